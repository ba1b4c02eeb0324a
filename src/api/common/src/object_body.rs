//! An object's content as the body of an answer.

use std::ops::Range;

use futures::{StreamExt, stream};
use garage_model::{
    RequestContext,
    objects::{FoundObject, Objects},
};

use crate::{
    error::S3Error,
    failure::Subject,
    http::{Body, empty_body, stream_body},
};

/// The bytes of `range`, streamed. The first piece is awaited, so that an object that can't be read now is an error and not a broken answer.
///
/// Errors: those of reading, in the words of `subject`. An error after the first piece ends the connection in the middle of the body.
pub async fn object_body(
    objects: &Objects,
    found: &FoundObject,
    range: Range<u64>,
    context: RequestContext,
    subject: Subject<'_>,
) -> Result<Body, S3Error> {
    if range.is_empty() {
        return Ok(empty_body());
    }
    let mut content = objects.read(found, range, context).boxed();
    match content.next().await {
        Some(first) => {
            let first = first.map_err(|error| subject.error(error))?;
            Ok(stream_body(stream::iter([Ok(first)]).chain(content)))
        }
        None => Err(S3Error::internal("an object ended before its first byte")),
    }
}
