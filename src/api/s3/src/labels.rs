//! What the writer of a new object says of it besides content and headers: tags, who may do what with it, and under which key it
//! is encrypted.

use garage_api_common::S3Error;
use garage_model::rows::object::ObjectHeaders;

use crate::{
    acl, encryption,
    request::{Request, Services, Target},
    tagging,
};

/// Adds tags, owner, access control list and encryption, as the request's headers ask for them and the bucket allows.
///
/// Errors: those of [`tagging::of_header`], [`acl::of_new_object`] and [`encryption::of_new_object`].
pub async fn add_labels(services: &Services, target: &Target, request: &Request, headers: &mut ObjectHeaders) -> Result<(), S3Error> {
    headers.tags = tagging::of_header(&request.headers)?;
    (headers.owner, headers.acl) = acl::of_new_object(services, target, request).await?;
    headers.encryption = encryption::of_new_object(services, target, request)?;
    Ok(())
}
