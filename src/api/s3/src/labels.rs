//! What the writer of a new object says of it besides content and headers: tags, and who may do what with it.

use garage_api_common::S3Error;
use garage_model::rows::object::ObjectHeaders;

use crate::{
    acl,
    request::{Request, Services, Target},
    tagging,
};

/// Adds tags, owner and access control list, as the request's headers ask for them and the bucket allows.
///
/// Errors: those of [`tagging::of_header`] and [`acl::of_new_object`].
pub async fn add_labels(services: &Services, target: &Target, request: &Request, headers: &mut ObjectHeaders) -> Result<(), S3Error> {
    headers.tags = tagging::of_header(&request.headers)?;
    (headers.owner, headers.acl) = acl::of_new_object(services, target, request).await?;
    Ok(())
}
