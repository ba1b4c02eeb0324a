//! XML both ways: a writer for answers, and a strict, bounded reader that turns a request document into a small tree.
//!
//! Invariants:
//! - what is written parses back to the same text, control characters included (as `&#x..;`, the way S3 writes them);
//! - what is read has no DTD and no entities but the five predefined ones, a bounded depth and a bounded size.

use std::borrow::Cow;

use quick_xml::{Reader, XmlVersion, events::Event};

use crate::{
    error::{ErrorCode, S3Error},
    limits::{XML_ATTRIBUTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX},
};

/// The namespace of S3 documents.
pub const S3_NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// The first line of every XML answer.
pub const XML_PROLOG: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Writes elements in order into a string.
#[derive(Debug)]
pub struct XmlWriter {
    out: String,
}

impl XmlWriter {
    /// A document that starts with the prolog.
    pub fn document() -> XmlWriter {
        XmlWriter { out: XML_PROLOG.to_owned() }
    }
    /// A piece of a document, without prolog.
    pub fn fragment() -> XmlWriter {
        XmlWriter { out: String::new() }
    }
    /// A document whose root element stands in the S3 namespace; close it with `close(root)`.
    pub fn s3_document(root: &str) -> XmlWriter {
        let mut xml = XmlWriter::document();
        xml.open_with(root, &[("xmlns", S3_NAMESPACE)]);
        xml
    }
    /// `<name>`
    pub fn open(&mut self, name: &str) -> &mut XmlWriter {
        self.open_with(name, &[])
    }
    /// `<name a="b">`
    pub fn open_with(&mut self, name: &str, attributes: &[(&str, &str)]) -> &mut XmlWriter {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape_into(value, &mut self.out);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }
    /// `</name>`
    pub fn close(&mut self, name: &str) -> &mut XmlWriter {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        self
    }
    /// `<name>value</name>`, escaped.
    pub fn text(&mut self, name: &str, value: &str) -> &mut XmlWriter {
        self.open(name).raw_text(value).close(name)
    }
    /// `<name>value</name>` for anything that displays itself (numbers, booleans).
    pub fn value(&mut self, name: &str, value: impl std::fmt::Display) -> &mut XmlWriter {
        self.text(name, &value.to_string())
    }
    /// `<name>value</name>` if there is a value.
    pub fn optional(&mut self, name: &str, value: Option<&str>) -> &mut XmlWriter {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }
    /// Escaped text without an element.
    pub fn raw_text(&mut self, value: &str) -> &mut XmlWriter {
        escape_into(value, &mut self.out);
        self
    }
    /// The text so far.
    pub fn finish(self) -> String {
        self.out
    }
}

/// Escapes text for element content and attribute values.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    escape_into(text, &mut out);
    Cow::Owned(out)
}

fn needs_escape(c: char) -> bool {
    matches!(c, '<' | '>' | '&' | '"' | '\'' | '\0'..='\x08' | '\x0B'..='\x1F' | '\x7F'..='\u{9F}' | '\u{2028}' | '\u{FFFE}' | '\u{FFFF}')
}

fn escape_into(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // Illegal in XML 1.0, or (carriage return) altered by every reader. Newline and tab stay as they are.
            c if needs_escape(c) => out.push_str(&format!("&#x{:X};", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// One element of a request document: its local name, its own text, and its children in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The name without a namespace prefix.
    pub name: String,
    /// The element's own text, character data joined, references resolved. Not trimmed.
    pub text: String,
    /// Attributes with their names as written (prefix included).
    pub attributes: Vec<(String, String)>,
    /// Child elements in document order.
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }
    /// All children of this name.
    pub fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
    /// The text of the first child of this name, as written.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }
    /// The trimmed text of the first child of this name; for values that are not keys.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.text_of(name).map(str::trim)
    }
    /// The trimmed text of a child that must be there: 400 `MalformedXML` otherwise.
    pub fn required(&self, name: &str) -> Result<&str, S3Error> {
        self.value_of(name).ok_or_else(malformed)
    }
    /// The child of this name if there is one, 400 `MalformedXML` if there are several.
    pub fn at_most_one<'a>(&'a self, name: &'a str) -> Result<Option<&'a Element>, S3Error> {
        let mut found = self.children_named(name);
        let first = found.next();
        if found.next().is_some() { Err(malformed()) } else { Ok(first) }
    }
    /// 400 `MalformedXML` unless every child is one of `names`; for schemas that are strict.
    pub fn only(&self, names: &[&str]) -> Result<(), S3Error> {
        if self.children.iter().all(|child| names.contains(&child.name.as_str())) { Ok(()) } else { Err(malformed()) }
    }
}

/// 400 `MalformedXML`.
pub fn malformed() -> S3Error {
    S3Error::of(ErrorCode::MalformedXML)
}

/// Reads a document whose root must be one of `roots` (any namespace, any prefix).
///
/// Errors: `MissingRequestBodyError` for an empty (or blank) body, `MalformedXML` for everything else that is wrong: not UTF-8, not well-formed, a
/// DTD, an unknown entity, nested deeper than `XML_DEPTH_MAX`, more than `XML_ELEMENTS_MAX` elements, another root. The size is bounded by whoever read the body.
pub fn parse(body: &[u8], roots: &[&str]) -> Result<Element, S3Error> {
    let root = parse_any(body)?;
    if roots.contains(&root.name.as_str()) { Ok(root) } else { Err(malformed()) }
}

/// As [`parse`], with any root.
pub fn parse_any(body: &[u8]) -> Result<Element, S3Error> {
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let text = text.trim_start_matches('\u{FEFF}').trim_start();
    if text.is_empty() {
        return Err(S3Error::of(ErrorCode::MissingRequestBodyError));
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut tree = TreeBuilder::default();
    loop {
        let event = reader.read_event().map_err(|error| malformed().caused_by(error))?;
        if matches!(event, Event::Eof) {
            return tree.finish();
        }
        tree.take(event)?;
    }
}

#[derive(Default)]
struct TreeBuilder {
    open: Vec<Element>,
    root: Option<Element>,
    elements_count: usize,
}

impl TreeBuilder {
    fn take(&mut self, event: Event<'_>) -> Result<(), S3Error> {
        match event {
            Event::Start(start) => self.push(element_of(&start)?),
            Event::Empty(start) => {
                self.push(element_of(&start)?)?;
                self.pop()
            }
            Event::End(_) => self.pop(),
            Event::Text(text) => self.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => self.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(|_| malformed())? {
                    Some(c) => c.to_string(),
                    None => predefined(&reference.into_inner())?.to_owned(),
                };
                self.text(&resolved)
            }
            Event::DocType(_) => Err(malformed().caused_by("a DTD is not allowed")),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::Eof => Ok(()),
        }
    }
    fn push(&mut self, element: Element) -> Result<(), S3Error> {
        // Only one root, and never deeper than any S3 document is.
        if self.root.is_some() || self.open.len() >= XML_DEPTH_MAX || self.elements_count >= XML_ELEMENTS_MAX {
            return Err(malformed());
        }
        self.elements_count += 1;
        self.open.push(element);
        Ok(())
    }
    fn pop(&mut self) -> Result<(), S3Error> {
        let element = self.open.pop().ok_or_else(malformed)?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }
    fn text(&mut self, text: &str) -> Result<(), S3Error> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            // Between prolog, root and end of the document there is only white space.
            None if text.trim().is_empty() => {}
            None => return Err(malformed()),
        }
        Ok(())
    }
    fn finish(self) -> Result<Element, S3Error> {
        if self.open.is_empty() { self.root.ok_or_else(malformed) } else { Err(malformed()) }
    }
}

fn element_of(start: &quick_xml::events::BytesStart<'_>) -> Result<Element, S3Error> {
    let mut element = Element { name: local_name(start.name().as_ref()).to_owned(), ..Element::default() };
    for attribute in start.attributes() {
        // Looking for an attribute that stands twice costs their number squared.
        if element.attributes.len() >= XML_ATTRIBUTES_MAX {
            return Err(malformed());
        }
        let attribute = attribute.map_err(|_| malformed())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| malformed())?;
        element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(element)
}

fn local_name(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

fn predefined(name: &str) -> Result<&'static str, S3Error> {
    Ok(match name {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "quot" => "\"",
        "apos" => "'",
        _ => return Err(malformed()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ErrorCode, XML_ELEMENTS_MAX, XmlWriter, parse, parse_any};

    fn code_of(body: &str) -> ErrorCode {
        parse_any(body.as_bytes()).expect_err(body).code
    }

    #[test]
    fn namespaces_prefixes_order_bom_and_leading_space_do_not_matter() {
        let plain = parse(b"<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object></Delete>", &["Delete"]).unwrap();
        let prefixed = "\u{FEFF} \n<?xml version=\"1.0\"?><!-- x --><s:Delete xmlns:s=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                        <s:Quiet>true</s:Quiet><s:Object><s:Key>a</s:Key></s:Object></s:Delete>\n";
        let prefixed = parse(prefixed.as_bytes(), &["Delete"]).unwrap();
        assert_eq!(plain.children, prefixed.children);
        assert_eq!(plain.value_of("Quiet"), Some("true"));
    }

    #[test]
    fn references_survive_newline_normalisation() {
        let element = parse_any(b"<K>a&#13;b&#xA;c\r\nd&amp;&lt;&quot;<![CDATA[<e>]]></K>").unwrap();
        assert_eq!(element.text, "a\rb\nc\nd&<\"<e>");
    }

    #[test]
    fn an_empty_body_is_missing_and_a_bad_one_malformed() {
        assert_eq!(code_of(""), ErrorCode::MissingRequestBodyError);
        assert_eq!(code_of("  \n"), ErrorCode::MissingRequestBodyError);
        for bad in [
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "text",
            "<a>&nope;</a>",
            "<a>&</a>",
            "<a b=c/>",
            "<a/>x",
            "{\"json\":1}",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<a>&#0;</a>",
            "<a><b></a></b>",
        ] {
            assert_eq!(code_of(bad), ErrorCode::MalformedXML, "{bad}");
        }
        assert_eq!(parse_any(b"<a>\xff</a>").unwrap_err().code, ErrorCode::MalformedXML);
        assert_eq!(parse(b"<Other/>", &["Delete"]).unwrap_err().code, ErrorCode::MalformedXML);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let bomb = "<a>".repeat(100_000);
        assert_eq!(code_of(&bomb), ErrorCode::MalformedXML);
        let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
        assert_eq!(code_of(&deep), ErrorCode::MalformedXML);
    }

    #[test]
    fn a_crowd_of_elements_is_refused() {
        let crowd = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count));
        assert!(parse_any(crowd(1000).as_bytes()).is_ok());
        assert_eq!(code_of(&crowd(XML_ELEMENTS_MAX)), ErrorCode::MalformedXML);
        let attributes: String = (0..100_000).map(|number| format!(" a{number}=\"\"")).collect();
        assert_eq!(code_of(&format!("<a{attributes}/>")), ErrorCode::MalformedXML);
    }

    #[test]
    fn entities_are_refused_whatever_they_stand_for() {
        let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
        let file = "<!DOCTYPE l [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&x;</Key></Object></Delete>";
        for body in [laughs, file, "<a>&#x110000;</a>", "<a>&#xD800;</a>"] {
            assert_eq!(code_of(body), ErrorCode::MalformedXML, "{body}");
        }
    }

    #[test]
    fn s3_documents_carry_the_namespace() {
        let mut xml = XmlWriter::s3_document("Tagging");
        xml.value("N", 3).optional("None", None).close("Tagging");
        let expected =
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><N>3</N></Tagging>";
        assert_eq!(xml.finish(), expected);
    }

    proptest! {
        #[test]
        fn reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_any(&bytes);
        }
        #[test]
        fn reader_never_panics_on_markup(text in "[<>/&;#a-c!\\[\\]\\-\"'= x0-9?\r\n]{0,200}") {
            let _ = parse_any(text.as_bytes());
        }
        #[test]
        fn what_is_written_reads_back(text in "[\\x01-\\x{10FFFF}]{0,60}") {
            let mut xml = XmlWriter::document();
            xml.text("K", &text);
            prop_assert_eq!(parse_any(xml.finish().as_bytes()).unwrap().text, text);
        }
    }
}
