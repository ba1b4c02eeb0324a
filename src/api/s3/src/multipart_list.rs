//! ListParts and ListMultipartUploads.
//!
//! Source: s3 reference §3.3.

use garage_api_common::{S3Error, http::Body, query::Query, time::iso8601, xml::XmlWriter};
use garage_model::{
    rows::{
        checksum::{ChecksumAlgorithm, ChecksumType},
        upload::UploadId,
    },
    uploads::{ListPartsPage, ListUploadsPage, ListUploadsRequest, ListedPart, UploadEntry},
};
use http::Response;

use crate::{
    answer, checksums, headers, lifecycle,
    list::{Encoding, page_limit},
    multipart::{NamedUpload, check_key},
    request::{Request, Services, Target},
    settings::Owners,
};

/// GET of an upload's parts.
pub async fn list_parts(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let upload = NamedUpload::of(request)?;
    let limit = page_limit(&request.query, "max-parts", "max-parts")?;
    let marker = part_marker(&request.query)?;
    let page = services.uploads.list_parts(&target.bucket_ref(), &target.key, upload.id, marker, limit, request.context()).await;
    let page = page.map_err(|error| upload.subject(target).error(error))?;
    check_key(services, request, &upload, page.upload.headers.encryption.as_ref())?;
    let owners = Owners::find(services, target, request, [&*page.upload.initiator].into_iter()).await?;
    let mut response = answer::xml(render_parts(target, &owners, upload.text, marker, limit, &page));
    lifecycle::add_abort(response.headers_mut(), target, page.upload.initiated_ms);
    Ok(response)
}

/// Errors: 400 `InvalidArgument`. A marker past the last possible part is as good as that.
fn part_marker(query: &Query) -> Result<u16, S3Error> {
    let Some(text) = query.non_empty("part-number-marker") else { return Ok(0) };
    let number = text.trim().parse::<i32>().ok().filter(|number| 0 <= *number).ok_or_else(|| {
        S3Error::invalid_argument("Argument part-number-marker must be an integer between 0 and 2147483647", "part-number-marker", text)
    })?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

fn render_parts(target: &Target, owners: &Owners, upload: &str, marker: u16, limit: usize, page: &ListPartsPage) -> String {
    let mut xml = XmlWriter::s3_document("ListPartsResult");
    xml.text("Bucket", &target.bucket_name).text("Key", &target.key).text("UploadId", upload);
    write_people(&mut xml, owners, &page.upload.initiator, page.upload.headers.storage_class.as_deref());
    let next = page.parts.last().map_or(marker, |part| part.part_number);
    xml.value("PartNumberMarker", marker).value("NextPartNumberMarker", next).value("MaxParts", limit);
    xml.value("IsTruncated", page.truncated && 0 < limit);
    write_checksum_choice(&mut xml, page.upload.checksum);
    page.parts.iter().for_each(|part| write_part(&mut xml, part));
    xml.close("ListPartsResult");
    xml.finish()
}

fn write_part(xml: &mut XmlWriter, part: &ListedPart) {
    xml.open("Part").value("PartNumber", part.part_number).text("LastModified", &iso8601(part.modified_ms));
    xml.text("ETag", &headers::quoted(&part.etag)).value("Size", part.size_bytes);
    checksums::write_xml(xml, part.checksum.as_ref(), None, false);
    xml.close("Part");
}

/// Initiator, owner and storage class of an upload.
fn write_people(xml: &mut XmlWriter, owners: &Owners, initiator: &str, storage_class: Option<&str>) {
    owners.of(Some(initiator)).write(xml, "Initiator");
    owners.of(None).write(xml, "Owner");
    xml.text("StorageClass", storage_class.unwrap_or("STANDARD"));
}

fn write_checksum_choice(xml: &mut XmlWriter, chosen: Option<(ChecksumAlgorithm, ChecksumType)>) {
    if let Some((algorithm, kind)) = chosen {
        xml.text("ChecksumAlgorithm", algorithm.name()).text("ChecksumType", kind.name());
    }
}

/// GET of a bucket's open uploads.
pub async fn list_uploads(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    let query = &request.query;
    let encoding = Encoding::parse(query)?;
    let wanted = ListUploadsRequest {
        prefix: query.get("prefix").unwrap_or_default().to_owned(),
        delimiter: query.non_empty("delimiter").map(str::to_owned),
        key_after: query.non_empty("key-marker").map(str::to_owned),
        upload_after: upload_marker(query)?,
        limit: page_limit(query, "max-uploads", "max-uploads")?,
    };
    let page = services.uploads.list(&target.bucket_ref(), &wanted, request.context()).await;
    let page = page.map_err(|error| target.subject().error(error))?;
    let initiators = page.entries.iter().filter_map(|entry| match entry {
        UploadEntry::Upload(upload) => Some(&*upload.summary.initiator),
        UploadEntry::Prefix(_) => None,
    });
    let owners = Owners::find(services, target, request, initiators).await?;
    let marker = request.query.get("upload-id-marker").unwrap_or_default();
    Ok(answer::xml(render_uploads(target, &owners, (&wanted, marker), encoding, &page)))
}

/// Counts only together with a key marker. Errors: 400 `InvalidArgument` for what is no upload id.
fn upload_marker(query: &Query) -> Result<Option<UploadId>, S3Error> {
    match (query.non_empty("key-marker"), query.non_empty("upload-id-marker")) {
        (Some(_), Some(text)) => {
            let invalid = |_| S3Error::invalid_argument("Invalid uploadId marker", "upload-id-marker", text);
            text.parse().map(Some).map_err(invalid)
        }
        _ => Ok(None),
    }
}

fn render_uploads(
    target: &Target,
    owners: &Owners,
    (wanted, upload_marker): (&ListUploadsRequest, &str),
    encoding: Encoding,
    page: &ListUploadsPage,
) -> String {
    let mut xml = XmlWriter::s3_document("ListMultipartUploadsResult");
    let key = |xml: &mut XmlWriter, name: &str, value: &str| {
        xml.text(name, &encoding.apply(value));
    };
    xml.text("Bucket", &target.bucket_name);
    key(&mut xml, "KeyMarker", wanted.key_after.as_deref().unwrap_or_default());
    xml.text("UploadIdMarker", upload_marker);
    // Present on the last page too: clients read them without looking whether more follows.
    let (next_key, next_upload) = match page.entries.last() {
        Some(UploadEntry::Upload(upload)) => (upload.key.clone(), upload.id.to_string()),
        Some(UploadEntry::Prefix(prefix)) => (prefix.clone(), String::new()),
        None => Default::default(),
    };
    key(&mut xml, "NextKeyMarker", &next_key);
    xml.text("NextUploadIdMarker", &next_upload);
    key(&mut xml, "Prefix", &wanted.prefix);
    if let Some(delimiter) = &wanted.delimiter {
        key(&mut xml, "Delimiter", delimiter);
    }
    encoding.write(&mut xml);
    xml.value("MaxUploads", wanted.limit).value("IsTruncated", page.truncated);
    for entry in &page.entries {
        if let UploadEntry::Upload(upload) = entry {
            xml.open("Upload");
            key(&mut xml, "Key", &upload.key);
            xml.text("UploadId", &upload.id.to_string());
            let summary = &upload.summary;
            write_people(&mut xml, owners, &summary.initiator, summary.storage_class.as_deref());
            xml.text("Initiated", &iso8601(summary.initiated_ms));
            write_checksum_choice(&mut xml, summary.checksum);
            xml.close("Upload");
        }
    }
    for entry in &page.entries {
        if let UploadEntry::Prefix(prefix) = entry {
            xml.open("CommonPrefixes");
            key(&mut xml, "Prefix", prefix);
            xml.close("CommonPrefixes");
        }
    }
    xml.close("ListMultipartUploadsResult");
    xml.finish()
}

#[cfg(test)]
mod tests {
    use garage_api_common::query::Query;

    use super::{part_marker, upload_marker};

    #[test]
    fn markers_follow_the_rules() {
        let part = |raw: &str| part_marker(&Query::parse(raw).unwrap()).ok();
        assert_eq!(part(""), Some(0));
        assert_eq!(part("part-number-marker=7"), Some(7));
        assert_eq!(part("part-number-marker=70000"), Some(u16::MAX));
        assert_eq!(part("part-number-marker=-1"), None);
        assert_eq!(part("part-number-marker=x"), None);
        let id = "0".repeat(64);
        let upload = |raw: &str| upload_marker(&Query::parse(raw).unwrap()).map(|id| id.is_some()).ok();
        assert_eq!(upload(&format!("upload-id-marker={id}")), Some(false), "ignored without a key marker");
        assert_eq!(upload(&format!("key-marker=a&upload-id-marker={id}")), Some(true));
        assert_eq!(upload("key-marker=a&upload-id-marker=x"), None);
    }
}
