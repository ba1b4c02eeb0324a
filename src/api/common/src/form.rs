//! `multipart/form-data` as a state machine: bytes in, fields and the content of one file out, at whatever places the input is cut.
//!
//! Invariants:
//! - what stands before the file's content never occupies more than `FORM_FIELDS_MAX_BYTES`;
//! - of the file's content no more is held back than a boundary is long;
//! - the field named `file` ends the form: what follows it is ignored.
//!
//! Source: RFC 7578, RFC 2046 §5.1.1; AWS S3 API, POST Object; s3 reference §2.5. Readers off the shelf buffer whatever the client sends
//! ahead of them, so they could not keep the first two.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use percent_encoding::percent_decode_str;

use crate::{
    error::{ErrorCode, S3Error},
    limits::{FORM_BOUNDARY_MAX_BYTES, FORM_FIELDS_MAX_BYTES},
};

/// What the decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormEvent {
    /// A field before the file.
    Field {
        /// Its name as sent.
        name: String,
        /// Its value.
        value: String,
    },
    /// The file begins.
    File {
        /// The name that the client gave it, as sent.
        name: Option<String>,
    },
    /// Content of the file.
    Data(Bytes),
    /// The file is complete.
    FileEnd,
    /// The form ended without a file.
    NoFile,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// Behind a boundary.
    Delimiter,
    Headers,
    Value {
        name: String,
    },
    /// Before the line end that ends the headers of the file: with a boundary behind it, it ends an empty file as well.
    FileStart,
    File,
    Done,
}

/// Decodes one form.
#[derive(Debug)]
pub struct FormDecoder {
    /// Line end, two dashes, boundary.
    delimiter: Vec<u8>,
    state: State,
    buffer: BytesMut,
    /// Bytes of fields that were worked off.
    fields_bytes: usize,
}

impl FormDecoder {
    /// A decoder of forms with this boundary.
    pub fn new(boundary: &str) -> FormDecoder {
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first boundary needs no line end before it.
        FormDecoder { delimiter, state: State::Preamble, buffer: BytesMut::from(&b"\r\n"[..]), fields_bytes: 0 }
    }

    /// Takes bytes from the wire and appends what they mean to `events`.
    ///
    /// Errors: 400 `MalformedPOSTRequest`, 400 `MaxPostPreDataLengthExceededError`. After an error the decoder is of no more use.
    pub fn feed(&mut self, input: &[u8], events: &mut Vec<FormEvent>) -> Result<(), S3Error> {
        if self.state == State::Done {
            return Ok(());
        }
        self.buffer.extend_from_slice(input);
        while self.step(events)? {}
        let before_file = !matches!(self.state, State::FileStart | State::File | State::Done);
        if before_file && self.fields_bytes + self.buffer.len() > FORM_FIELDS_MAX_BYTES {
            return Err(too_long());
        }
        Ok(())
    }

    /// The wire has no more bytes. Errors: 400 `MalformedPOSTRequest` when the form is not complete.
    pub fn finish(&self) -> Result<(), S3Error> {
        if self.state == State::Done { Ok(()) } else { Err(malformed("the form ends before its last boundary")) }
    }

    /// One step; false when it needs more input.
    fn step(&mut self, events: &mut Vec<FormEvent>) -> Result<bool, S3Error> {
        match &self.state {
            State::Preamble => Ok(self.take_until_delimiter()?.map(|_| self.state = State::Delimiter).is_some()),
            State::Delimiter => self.after_delimiter(events),
            State::Headers => self.headers(events),
            State::Value { name } => {
                let name = name.clone();
                let Some(value) = self.take_until_delimiter()? else { return Ok(false) };
                // The line end that ended the headers; an empty value may share it with the boundary.
                events.push(FormEvent::Field { name, value: text(value.strip_prefix(b"\r\n").unwrap_or(&value))? });
                self.state = State::Delimiter;
                Ok(true)
            }
            State::FileStart => Ok(self.file_start(events)),
            State::File => Ok(self.file(events)),
            State::Done => {
                self.buffer.clear();
                Ok(false)
            }
        }
    }

    /// The bytes before the next delimiter, which goes too; `None`: it is not there yet.
    fn take_until_delimiter(&mut self) -> Result<Option<BytesMut>, S3Error> {
        let Some(at) = memmem::find(&self.buffer, &self.delimiter) else { return Ok(None) };
        let found = self.buffer.split_to(at);
        self.buffer.advance(self.delimiter.len());
        self.count(at + self.delimiter.len())?;
        Ok(Some(found))
    }

    /// Counts bytes of fields that were worked off.
    fn count(&mut self, bytes: usize) -> Result<(), S3Error> {
        self.fields_bytes += bytes;
        if self.fields_bytes > FORM_FIELDS_MAX_BYTES { Err(too_long()) } else { Ok(()) }
    }

    /// Two dashes end the form, else a line end begins a part; white space may stand before it.
    fn after_delimiter(&mut self, events: &mut Vec<FormEvent>) -> Result<bool, S3Error> {
        if self.buffer.starts_with(b"--") {
            events.push(FormEvent::NoFile);
            self.state = State::Done;
            return Ok(true);
        }
        let Some(at) = memmem::find(&self.buffer, b"\r\n") else { return Ok(false) };
        if !self.buffer[..at].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(malformed("bytes follow a boundary on its line"));
        }
        self.buffer.advance(at + 2);
        self.count(at + 2)?;
        self.state = State::Headers;
        Ok(true)
    }

    fn headers(&mut self, events: &mut Vec<FormEvent>) -> Result<bool, S3Error> {
        let Some(at) = memmem::find(&self.buffer, b"\r\n\r\n") else { return Ok(false) };
        let headers = self.buffer.split_to(at);
        self.buffer.advance(2);
        self.count(at + 2)?;
        let part = PartName::of(&text(&headers)?)?;
        if part.name.eq_ignore_ascii_case("file") {
            events.push(FormEvent::File { name: part.file_name });
            self.state = State::FileStart;
        } else {
            self.state = State::Value { name: part.name };
        }
        Ok(true)
    }

    fn file_start(&mut self, events: &mut Vec<FormEvent>) -> bool {
        if self.buffer.starts_with(&self.delimiter) {
            events.push(FormEvent::FileEnd);
            self.state = State::Done;
            return true;
        }
        if self.delimiter.starts_with(&self.buffer) {
            return false;
        }
        self.buffer.advance(2);
        self.state = State::File;
        true
    }

    /// Passes on what can't be the beginning of a delimiter.
    fn file(&mut self, events: &mut Vec<FormEvent>) -> bool {
        let (content_bytes, is_end) = match memmem::find(&self.buffer, &self.delimiter) {
            Some(at) => (at, true),
            None => ((self.buffer.len() + 1).saturating_sub(self.delimiter.len()), false),
        };
        if content_bytes > 0 {
            events.push(FormEvent::Data(self.buffer.split_to(content_bytes).freeze()));
        }
        if is_end {
            events.push(FormEvent::FileEnd);
            self.state = State::Done;
        }
        is_end
    }
}

/// How a part calls itself.
struct PartName {
    name: String,
    file_name: Option<String>,
}

impl PartName {
    fn of(headers: &str) -> Result<PartName, S3Error> {
        let fields = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        let mut dispositions = fields.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
        let (_, value) = dispositions.next().ok_or_else(|| malformed("a part has no Content-Disposition"))?;
        let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return Err(malformed("a part is no form-data"));
        }
        let (mut name, mut file_name, mut extended) = (None, None, None);
        for (parameter, value) in parameters_of(parameters)? {
            match parameter.to_ascii_lowercase().as_str() {
                "name" => name = Some(value),
                "filename" => file_name = Some(value),
                "filename*" => extended = extended_value(&value),
                _ => {}
            }
        }
        let name = name.ok_or_else(|| malformed("a part has no name"))?;
        Ok(PartName { name, file_name: extended.or(file_name) })
    }
}

/// `a=b; c="d"`; within quotes, `\"` and `\\` stand for the second character. Any other backslash is one: old browsers send whole paths.
fn parameters_of(mut rest: &str) -> Result<Vec<(String, String)>, S3Error> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';', '\r', '\n']);
        if rest.is_empty() {
            return Ok(found);
        }
        let (name, after) = rest.split_once('=').ok_or_else(|| malformed("a parameter of Content-Disposition has no value"))?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), after)
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = after;
    }
}

fn quoted_value(quoted: &str) -> Result<(String, &str), S3Error> {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    Err(malformed("a quoted parameter of Content-Disposition does not end"))
}

/// `UTF-8''percent-encoded`, RFC 8187.
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let is_utf8 = charset.eq_ignore_ascii_case("utf-8");
    percent_decode_str(encoded).decode_utf8().ok().filter(|_| is_utf8).map(|name| name.into_owned())
}

/// The boundary in a `Content-Type`; `None` when it is not `multipart/form-data`. Errors: 400 `MalformedPOSTRequest` without a usable boundary.
pub fn boundary_of(content_type: &str) -> Result<Option<String>, S3Error> {
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let mut parameters = parameters_of(parameters)?.into_iter();
    let boundary = parameters.find(|(name, _)| name.eq_ignore_ascii_case("boundary")).map(|(_, boundary)| boundary);
    let is_usable = |boundary: &String| !boundary.is_empty() && boundary.len() <= FORM_BOUNDARY_MAX_BYTES;
    boundary.filter(is_usable).map(Some).ok_or_else(|| malformed("the Content-Type names no boundary"))
}

fn text(bytes: &[u8]) -> Result<String, S3Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed("a field is not UTF-8"))
}
fn malformed(cause: &'static str) -> S3Error {
    S3Error::of(ErrorCode::MalformedPOSTRequest).caused_by(cause).closing()
}
fn too_long() -> S3Error {
    S3Error::of(ErrorCode::MaxPostPreDataLengthExceededError).with("MaxPostPreDataLengthBytes", FORM_FIELDS_MAX_BYTES).closing()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ErrorCode, FORM_FIELDS_MAX_BYTES, FormDecoder, FormEvent, S3Error, boundary_of};

    /// What a form means that arrives cut at `cuts`, pieces of the file joined.
    fn decode(form: &[u8], cuts: &[usize]) -> Result<(Vec<FormEvent>, Vec<u8>), S3Error> {
        let mut decoder = FormDecoder::new("XX");
        let mut events = Vec::new();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (form.len() + 1)).collect();
        places.extend([0, form.len()]);
        places.sort_unstable();
        for pair in places.windows(2) {
            decoder.feed(&form[pair[0]..pair[1]], &mut events)?;
        }
        decoder.finish()?;
        let data = events.iter().filter_map(|event| if let FormEvent::Data(data) = event { Some(data.to_vec()) } else { None });
        let data = data.collect::<Vec<_>>().concat();
        events.retain(|event| !matches!(event, FormEvent::Data(_)));
        Ok((events, data))
    }
    fn code(form: &[u8]) -> ErrorCode {
        decode(form, &[]).unwrap_err().code
    }
    fn part(disposition: &str, value: &str) -> String {
        format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    }
    fn field(name: &str, value: &str) -> FormEvent {
        FormEvent::Field { name: name.into(), value: value.into() }
    }
    fn file(name: Option<&str>) -> FormEvent {
        FormEvent::File { name: name.map(str::to_owned) }
    }

    #[test]
    fn fields_then_the_file_and_nothing_behind_it() {
        let form = [
            "preamble\r\n",
            &part("name=\"key\"", "a/${filename}"),
            &part("name=empty", ""),
            "--XX \t\r\ncontent-type: text/plain\r\nCONTENT-DISPOSITION: form-data; name=\"lines\"\r\n\r\none\r\ntwo\r\n",
            &part("name=\"file\"; filename=\"C:\\dir\\ä \\\"b\\\".txt\"\r\nContent-Type: image/png", "content\r\n--X\r\n"),
            &part("name=\"later\"", "ignored"),
            "--XX--\r\nepilogue",
        ]
        .concat();
        let (events, content) = decode(form.as_bytes(), &[]).unwrap();
        let expected = [
            field("key", "a/${filename}"),
            field("empty", ""),
            field("lines", "one\r\ntwo"),
            file(Some("C:\\dir\\ä \"b\".txt")),
            FormEvent::FileEnd,
        ];
        assert_eq!(events, expected);
        assert_eq!(content, b"content\r\n--X\r\n");
    }

    #[test]
    fn names_of_files_are_read_in_their_newer_form_too() {
        let check = |disposition: &str, expected: Option<&str>| {
            let form = format!("{}--XX--\r\n", part(disposition, "x"));
            assert_eq!(decode(form.as_bytes(), &[]).unwrap().0[0], file(expected), "{disposition}");
        };
        check("name=\"file\"", None);
        check("name=FILE; filename=plain.txt", Some("plain.txt"));
        check("filename*=UTF-8''%C3%A4.txt; name=\"file\"; filename=\"a.txt\"", Some("ä.txt"));
        check("name=\"file\"; filename=\"a;b=c.txt\"", Some("a;b=c.txt"));
    }

    #[test]
    fn an_empty_file_and_a_form_without_one() {
        for end in ["\r\n--XX--\r\n", "--XX--\r\n"] {
            let form = format!("--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{end}");
            let (events, content) = decode(form.as_bytes(), &[]).unwrap();
            assert_eq!((events, content), (vec![file(None), FormEvent::FileEnd], Vec::new()));
        }
        assert_eq!(decode(b"--XX--", &[]).unwrap().0, [FormEvent::NoFile]);
    }

    #[test]
    fn broken_forms_are_refused() {
        for form in [
            "",
            "no boundary at all",
            "--XX\r\n",
            "--XX garbage\r\n\r\n",
            "--XX\r\n\r\nvalue\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--XX--",
            "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nvalue\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nvalue\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name\r\n\r\nvalue\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name=file\r\n\r\nvalue\r\n",
            "--XX\r\nContent-Disposition: form-data; name=file\r\n\r\nvalue\r\n--X",
        ] {
            assert_eq!(code(form.as_bytes()), ErrorCode::MalformedPOSTRequest, "{form:?}");
        }
        assert_eq!(code(b"--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--XX--"), ErrorCode::MalformedPOSTRequest);
    }

    #[test]
    fn what_stands_before_the_file_is_bounded_and_the_file_is_not() {
        for form in [
            "x".repeat(FORM_FIELDS_MAX_BYTES + 1),
            part("name=a", &"x".repeat(FORM_FIELDS_MAX_BYTES)),
            part("name=a", "").repeat(1000),
            format!("--XX\r\n{}", "a: b\r\n".repeat(10_000)),
        ] {
            assert_eq!(code(form.as_bytes()), ErrorCode::MaxPostPreDataLengthExceededError);
        }
        let mut decoder = FormDecoder::new("XX");
        let mut events = Vec::new();
        decoder.feed(b"--XX\r\nContent-Disposition: form-data; name=file\r\n\r\n", &mut events).unwrap();
        for _ in 0..100 {
            decoder.feed(&[b'\r'; 10_000], &mut events).unwrap();
            events.clear();
            assert!(decoder.buffer.len() < decoder.delimiter.len());
        }
    }

    #[test]
    fn boundaries_are_read_from_the_content_type() {
        let check = |content_type: &str, expected: Option<&str>| assert_eq!(boundary_of(content_type).unwrap().as_deref(), expected);
        check("multipart/form-data; boundary=XX", Some("XX"));
        check("Multipart/Form-Data; charset=utf-8; BOUNDARY=\"a b\"", Some("a b"));
        check("application/x-www-form-urlencoded", None);
        check("", None);
        for bad in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary"] {
            assert_eq!(boundary_of(bad).unwrap_err().code, ErrorCode::MalformedPOSTRequest, "{bad}");
        }
        assert!(boundary_of(&format!("multipart/form-data; boundary={}", "x".repeat(1000))).is_err());
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_does_not_matter(
            value in "[\r\n\\-Xa]{0,20}", content in "[\r\n\\-Xa]{0,60}", cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let form = format!("{}{}--XX--", part("name=a", &value), part("name=file", &content));
            let whole = decode(form.as_bytes(), &[]).map_err(|error| error.code);
            prop_assert_eq!(decode(form.as_bytes(), &cuts).map_err(|error| error.code), whole);
        }
        #[test]
        fn content_comes_out_as_it_went_in(content in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(any::<usize>(), 0..8)) {
            let form = [b"--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", &content[..], b"\r\n--XX--"].concat();
            prop_assume!(!content.windows(4).any(|window| window == b"--XX"));
            prop_assert_eq!(decode(&form, &cuts).unwrap().1, content);
        }
        #[test]
        fn decoding_never_panics(form in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&form, &[]);
            let _ = decode(&[b"--XX\r\nContent-Disposition: form-data; ", &form[..]].concat(), &[3, 50]);
        }
        #[test]
        fn reading_a_content_type_never_panics(text in "(multipart/form-data;)?\\PC{0,60}") {
            let _ = boundary_of(&text);
        }
    }
}
