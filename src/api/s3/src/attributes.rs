//! What is known of an object besides its content: attributes, locks.
//!
//! Source: s3 reference §3.4 (GetObjectAttributes), §3.14.

use garage_api_common::{
    S3Error,
    conditions::{ReadConditions, ReadVerdict, Validators},
    http::Body,
    time::http_date,
    xml::XmlWriter,
};
use garage_model::rows::{object::ObjectMeta, payload::PartRef};
use http::{Response, StatusCode, header};

use crate::{
    answer, checksums, encryption, get, headers,
    limits::PAGE_MAX,
    request::{Request, Services, Target},
    versioning,
};

const NAMES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// GET of an object's attributes.
pub async fn get_attributes(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_read(&request.headers)?;
    let wanted = wanted(request)?;
    let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let mut found = get::find(services, target, request, wants("ObjectParts")).await?;
    encryption::open_object(services, request, &mut found, encryption::OWN_KEY)?;
    let meta = &found.meta;
    let stored = Validators { etag: &meta.etag, last_modified_ms: meta.modified_ms };
    match ReadConditions::of_read(&request.headers).evaluate(stored, request.now_ms) {
        ReadVerdict::Proceed => {}
        ReadVerdict::NotModified => return Ok(answer::empty(StatusCode::NOT_MODIFIED)),
        ReadVerdict::Failed(condition) => return Err(S3Error::precondition_failed(condition)),
    }
    let mut xml = XmlWriter::s3_document("GetObjectAttributesResponse");
    xml.optional("ETag", wants("ETag").then_some(&*meta.etag));
    if wants("Checksum") && meta.checksum.is_some() {
        xml.open("Checksum");
        checksums::write_xml(&mut xml, meta.checksum.as_ref(), None, true);
        xml.close("Checksum");
    }
    if wants("ObjectParts") && meta.part_count.is_some() {
        let parts = services.objects.parts(&found, request.context()).await.map_err(|error| target.subject().error(error))?;
        write_parts(&mut xml, request, meta, &parts)?;
    }
    xml.optional("StorageClass", wants("StorageClass").then(|| meta.headers.storage_class.as_deref().unwrap_or("STANDARD")));
    if wants("ObjectSize") {
        xml.value("ObjectSize", meta.size_bytes);
    }
    xml.close("GetObjectAttributesResponse");
    let mut response = answer::xml(xml.finish());
    headers::put(response.headers_mut(), header::LAST_MODIFIED, &http_date(meta.modified_ms));
    versioning::add_version(response.headers_mut(), versioning::shown(target.bucket.row.versioning, found.slot));
    Ok(response)
}

/// The attributes asked for. Errors: 400 `InvalidRequest` when there are none, `InvalidArgument` for an unknown one.
fn wanted(request: &Request) -> Result<Vec<String>, S3Error> {
    const HEADER: &str = "x-amz-object-attributes";
    let lines = request.headers.get_all(HEADER).iter().map(|line| line.to_str().unwrap_or("\u{FFFD}"));
    let names: Vec<String> =
        lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(S3Error::invalid_request(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        ));
    }
    match names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        Some(unknown) => Err(S3Error::invalid_argument("Invalid attribute name specified.", HEADER, unknown)),
        None => Ok(names),
    }
}

fn write_parts(xml: &mut XmlWriter, request: &Request, meta: &ObjectMeta, parts: &[PartRef]) -> Result<(), S3Error> {
    xml.open("ObjectParts");
    // Parts are listed only where they carry checksums the client can use.
    if meta.checksum.is_some() && parts.iter().any(|part| part.checksum.is_some()) {
        // What is not a number is ignored, as S3 does.
        let number = |name: &str| Ok::<_, S3Error>(request.header(name)?.and_then(|text| text.parse::<usize>().ok()));
        let marker = number("x-amz-part-number-marker")?.unwrap_or(0);
        let max = number("x-amz-max-parts")?.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let after: Vec<&PartRef> = parts.iter().filter(|part| marker < usize::from(part.part_number)).collect();
        let page = &after[..after.len().min(max)];
        let next = page.last().map_or(marker, |part| usize::from(part.part_number));
        xml.value("PartNumberMarker", marker).value("NextPartNumberMarker", next).value("MaxParts", max);
        xml.value("IsTruncated", page.len() < after.len());
        for part in page {
            xml.open("Part");
            checksums::write_xml(xml, part.checksum.as_ref(), None, false);
            xml.value("PartNumber", part.part_number).value("Size", part.size_bytes).close("Part");
        }
    }
    xml.value("PartsCount", parts.len()).close("ObjectParts");
    Ok(())
}
