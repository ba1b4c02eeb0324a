//! PutObject: everything that can refuse comes before the body is asked for.
//!
//! Source: s3 reference §3.5, §3.8.

use garage_api_common::{S3Error, conditions::WriteCondition as ParsedCondition, http::Body};
use garage_model::{limits::SINGLE_PUT_MAX_BYTES, objects::WriteCondition, rows::checksum::ChecksumKind};
use http::{Response, StatusCode};

use crate::{
    answer, checksums,
    content::VerifiedContent,
    error::too_large,
    headers,
    request::{IncomingBody, Request, Services, Target, write_condition},
};

/// PUT of an object.
pub async fn put_object(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    headers::refuse_on_write(&request.headers)?;
    let stored_headers = headers::object_headers(&request.headers)?;
    let condition = write_condition(ParsedCondition::parse(&request.headers)?);
    let spec = body.spec()?;
    let size_bytes = spec.required_length_bytes()?;
    if SINGLE_PUT_MAX_BYTES < size_bytes {
        return Err(too_large(size_bytes, SINGLE_PUT_MAX_BYTES));
    }
    if request.client_waits {
        precheck(services, target, request, &condition).await?;
    }
    let kept = spec.declared().algorithm().unwrap_or(checksums::DEFAULT);
    let content = VerifiedContent::new(body.open(spec.compute(kept)), kept, ChecksumKind::FullObject);
    let (bucket, context) = (target.bucket_ref(), request.stream_context());
    let put = services.objects.put(&bucket, &target.key, stored_headers, Box::new(content), &condition, context);
    let stored = put.await.map_err(|error| target.write_subject(&condition).error(error))?;
    let mut response = answer::empty(StatusCode::OK);
    answer::add_stored(response.headers_mut(), &stored.etag, stored.checksum.as_ref(), None);
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
