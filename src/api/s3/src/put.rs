//! PutObject: everything that can refuse comes before the body is asked for.
//!
//! Source: s3 reference §3.5, §3.8.

use garage_api_common::{S3Error, conditions::WriteCondition as ParsedCondition, http::Body};
use garage_model::{limits::SINGLE_PUT_MAX_BYTES, objects::WriteCondition, rows::checksum::ChecksumType};
use http::{Response, StatusCode};

use crate::{
    answer, checksums,
    content::VerifiedContent,
    encryption,
    error::too_large,
    headers, known_headers,
    labels::add_labels,
    lifecycle, lock,
    request::{IncomingBody, Request, Services, Target, write_condition},
    versioning,
};

/// PUT of an object, or POST of a form, which comes as the PUT that it stands for.
pub async fn put_object(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    known_headers::refuse_placement(&request.headers)?;
    // Of a form; other requests were asked before.
    known_headers::refuse_source(&request.headers)?;
    let mut stored_headers = headers::object_headers(&request.headers)?;
    lock::check(target, request, &stored_headers.lock)?;
    add_labels(services, target, request, &mut stored_headers).await?;
    let condition = write_condition(ParsedCondition::parse(&request.headers)?);
    let spec = body.spec()?;
    if lock::needs_integrity(target, &stored_headers.lock) && !body.of_form {
        spec.require_integrity()?;
    }
    // A form's file tells its length by its end.
    let size_bytes = if body.of_form { 0 } else { spec.required_length_bytes()? };
    if SINGLE_PUT_MAX_BYTES < size_bytes {
        return Err(too_large(size_bytes, SINGLE_PUT_MAX_BYTES));
    }
    if request.client_waits {
        precheck(services, target, request, &condition).await?;
    }
    let kept = spec.declared().algorithm().unwrap_or(checksums::DEFAULT);
    let content = VerifiedContent::new(body.open(spec.compute(kept)), kept, ChecksumType::FullObject);
    let encryption = stored_headers.encryption.clone();
    let (bucket, context) = (target.bucket_ref(), request.stream_context());
    let put = services.objects.put(&bucket, &target.key, stored_headers, Box::new(content), &condition, context);
    let stored = put.await.map_err(|error| target.write_subject(&condition).error(error))?;
    let mut response = answer::empty(StatusCode::OK);
    answer::add_stored(response.headers_mut(), &stored.etag, stored.checksum.as_ref(), None);
    encryption::write_headers(response.headers_mut(), request, encryption.as_ref());
    versioning::add_new_version(response.headers_mut(), stored.slot);
    lifecycle::add_expiration(response.headers_mut(), target, &stored);
    Ok(response)
}

/// Tests a condition before the body is asked for. The write tests it again, as others may come in between.
pub async fn precheck(services: &Services, target: &Target, request: &Request, condition: &WriteCondition) -> Result<(), S3Error> {
    if condition.is_none() {
        return Ok(());
    }
    let subject = target.write_subject(condition);
    let found = services.objects.head(&target.bucket_ref(), &target.key, request.context()).await;
    let found = found.map_err(|error| subject.error(error))?;
    condition.check(found.as_ref().map(|found| &found.meta)).map_err(|error| subject.error(error.into()))
}
