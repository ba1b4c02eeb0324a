//! What bad input is thrown at: one function a target, bytes in, a panic when a promise is broken.
//!
//! Two engines share them: `src/api/s3/tests/bad_input` for a short time in every run of the tests, and cargo-fuzz (this directory) for long.

use bytes::Bytes;
use garage_api_common::{
    checksum::{ChecksumAlgorithm, DeclaredChecksum, completion_value},
    conditions::{ReadConditions, Validators, WriteCondition, if_range_holds},
    encoded_word,
    form::{FormDecoder, FormEvent, boundary_of},
    limits::{FORM_FIELDS_MAX_BYTES, XML_DEPTH_MAX, XML_ELEMENTS_MAX},
    payload::{ChunkDecoder, ChunkEvent, ChunkSignatures},
    query::Query,
    ranges::{resolve_copy_range, resolve_range},
    request::Address,
    sigv4::{Claim, KeySecret, RequestView, SignatureSettings},
    time::{parse_http_date, parse_iso_basic, parse_iso8601},
    xml::{Element, parse_any},
};
use garage_api_s3::{
    documents::READERS,
    post::{Fields, Policy},
    router::{BucketOperation, ObjectOperation, Operation, route},
    selectors::{BUCKET_SELECTORS, OBJECT_SELECTORS},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("routing", routing),
    ("signature", signature),
    ("chunked", chunked),
    ("xml", xml),
    ("form", form),
    ("header_values", header_values),
    ("documents", documents),
];

/// The next line of the input, and the rest.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
/// A request of four sections: method, host, target, then headers, a line each.
fn request(data: &[u8]) -> Option<(Method, String, Uri, HeaderMap)> {
    let (method, rest) = line(data);
    let (host, rest) = line(rest);
    let (target, mut rest) = line(rest);
    let mut headers = HeaderMap::new();
    while !rest.is_empty() && headers.len() < 100 {
        let (header, after) = line(rest);
        rest = after;
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&header[..colon]), HeaderValue::from_bytes(&header[colon + 1..])) {
            headers.append(name, value);
        }
    }
    Some((Method::from_bytes(method).ok()?, text(host), text(target).parse().ok()?, headers))
}

/// Address, query and route. A request that names a sub-resource never means the object or bucket itself.
pub fn routing(data: &[u8]) {
    let Some((method, host, uri, headers)) = request(data) else { return };
    let Ok(address) = Address::resolve(Some(&host), uri.path(), &["s3.example".to_owned()]) else { return };
    let Ok(query) = Query::parse(uri.query().unwrap_or_default()) else { return };
    let headers = query.with_hoisted_headers(&headers);
    let names_sub_resource =
        OBJECT_SELECTORS.iter().any(|(name, ..)| query.has(name)) || BUCKET_SELECTORS.iter().any(|selector| query.has(selector.name));
    let means_itself = matches!(
        route(&method, &address, &query, &headers),
        Ok(Operation::Object(
            _,
            _,
            ObjectOperation::GetObject
                | ObjectOperation::HeadObject
                | ObjectOperation::PutObject
                | ObjectOperation::CopyObject
                | ObjectOperation::DeleteObject
        ))
    );
    let makes_or_deletes_bucket = matches!(
        route(&method, &address, &query, &headers),
        Ok(Operation::Bucket(_, BucketOperation::CreateBucket | BucketOperation::DeleteBucket))
    ) && BUCKET_SELECTORS.iter().any(|selector| query.has(selector.name));
    assert!(!(names_sub_resource && means_itself), "{method} {uri}");
    assert!(!makes_or_deletes_bucket, "{method} {uri}");
}

/// The claim of a signature and its check. Nobody without the secret is let in.
pub fn signature(data: &[u8]) {
    let Some((method, _, uri, headers)) = request(data) else { return };
    let Ok(query) = Query::parse(uri.query().unwrap_or_default()) else { return };
    let view = RequestView { method: &method, uri: &uri, headers: &headers, query: &query };
    // Some moment of the day that the inputs at hand were signed on.
    let now_ms = 1_369_353_600_000;
    if let Ok(Claim::Signed(claim)) = Claim::parse(view, &SignatureSettings::s3("us-east-1"), now_ms) {
        let key = KeySecret { secret: "a secret that no input knows".to_owned() };
        assert!(claim.verify(view, &key).is_err(), "a signature was guessed");
    }
}

/// A body in chunks, cut as its first bytes say. There is never more content than was announced, and a clean end means all of it.
pub fn chunked(data: &[u8]) {
    let [kind, length, cut, wire @ ..] = data else { return };
    let signatures = [ChunkSignatures::None, ChunkSignatures::Chunks, ChunkSignatures::ChunksAndTrailers][usize::from(kind % 3)];
    let declared = ChecksumAlgorithm::ALL.get(usize::from(kind / 3)).copied();
    let mut decoder = ChunkDecoder::new(signatures, u64::from(*length), declared);
    let mut events = Vec::new();
    let fed = wire.chunks(usize::from(*cut).max(1)).try_for_each(|piece| decoder.feed(Bytes::copy_from_slice(piece), &mut events));
    let ended = fed.is_ok() && decoder.finish(&mut events).is_ok();
    let content_bytes: usize = events.iter().map(|event| if let ChunkEvent::Data(data) = event { data.len() } else { 0 }).sum();
    assert!(content_bytes <= usize::from(*length));
    assert!(!ended || content_bytes == usize::from(*length));
}

/// A document. What was read has its bounds.
pub fn xml(data: &[u8]) {
    fn depth_and_count(element: &Element) -> (usize, usize) {
        let children: Vec<(usize, usize)> = element.children.iter().map(depth_and_count).collect();
        let depth = children.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
        (depth + 1, children.iter().map(|(_, count)| count).sum::<usize>() + 1)
    }
    if let Ok(root) = parse_any(data) {
        let (depth, count) = depth_and_count(&root);
        assert!(depth <= XML_DEPTH_MAX && count <= XML_ELEMENTS_MAX);
    }
}

/// A settings document (bucket policy, list, tags, website, ...), of the kind that the first byte says; each kind checks its own promises.
pub fn documents(data: &[u8]) {
    let [kind, document @ ..] = data else { return };
    let (_, reads) = READERS[usize::from(*kind) % READERS.len()];
    reads(document);
}

/// A form, cut as its first byte says, and the policy in it. The fields before the file have their bound.
pub fn form(data: &[u8]) {
    let [cut, wire @ ..] = data else { return };
    let (content_type, wire) = line(wire);
    let boundary = boundary_of(&text(content_type)).ok().flatten().unwrap_or_else(|| "XX".to_owned());
    let mut decoder = FormDecoder::new(&boundary);
    let mut events = Vec::new();
    let fed = wire.chunks(usize::from(*cut).max(1)).try_for_each(|piece| decoder.feed(piece, &mut events));
    if fed.is_err() || decoder.finish().is_err() {
        return;
    }
    let mut sent = Vec::new();
    let mut file_name = None;
    for event in events {
        match event {
            FormEvent::Field { name, value } => sent.push((name, value)),
            FormEvent::File { name } => file_name = name,
            FormEvent::Data(_) | FormEvent::FileEnd | FormEvent::NoFile => {}
        }
    }
    assert!(sent.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= FORM_FIELDS_MAX_BYTES);
    let Ok(fields) = Fields::new(sent, file_name.as_deref()) else { return };
    let _ = (fields.key().map(str::len), fields.headers());
    if let Some(Ok(policy)) = fields.get("policy").map(Policy::parse) {
        let _ = policy.check("bucket", &fields, 0);
    }
}

/// Values of headers: ranges, dates, conditions, checksums, encoded words. A range lies within its object.
pub fn header_values(data: &[u8]) {
    let [size, value @ ..] = data else { return };
    let (size_bytes, value) = (u64::from(*size), text(value));
    if let Ok(Some(range)) = resolve_range(&value, size_bytes) {
        assert!(range.start < range.end && range.end <= size_bytes);
    }
    if let Ok(range) = resolve_copy_range(&value, size_bytes) {
        assert!(range.start < range.end && range.end <= size_bytes);
    }
    let _ = (parse_http_date(&value), parse_iso8601(&value), parse_iso_basic(&value), encoded_word::decode(&value));
    let Ok(header) = HeaderValue::from_bytes(value.as_bytes()) else { return };
    let names =
        ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "x-amz-trailer", "x-amz-checksum-crc32"];
    for name in names {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), header.clone())]);
        let stored = Validators { etag: "e", last_modified_ms: size_bytes };
        let _ = (ReadConditions::of_read(&headers).evaluate(stored, 0), if_range_holds(&headers, stored));
        let _ = (WriteCondition::parse(&headers), DeclaredChecksum::parse(&headers), completion_value(&headers));
    }
}
