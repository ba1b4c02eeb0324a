//! How commands reach the administration interface: one raw call, and a typed one over it.

use futures::future::BoxFuture;
use garage_api_admin::{
    AdminError, Endpoint,
    types::{NodeAnswers, OnNode},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::error::CliError;

/// Something that answers administration requests: a node over RPC, or a fake in tests.
pub(crate) trait AdminCaller: Send + Sync {
    /// Calls `endpoint` with a JSON payload.
    fn call_raw<'a>(&'a self, endpoint: &'a str, body: Value) -> BoxFuture<'a, Result<Value, AdminError>>;
}

/// A typed call.
pub(crate) async fn call<E: Endpoint>(caller: &dyn AdminCaller, request: E::Request) -> Result<E::Response, CliError> {
    let failed = |error| CliError::Api { endpoint: E::NAME, error };
    let payload = serde_json::to_value(request).map_err(|error| failed(AdminError::invalid(error.to_string())))?;
    let answer = caller.call_raw(E::NAME, payload).await.map_err(failed)?;
    serde_json::from_value(answer).map_err(|error| failed(AdminError::internal(format!("its answer cannot be read: {error}"))))
}

/// A typed call that runs on nodes: `self`, `*`, or one by a prefix of its id.
pub(crate) async fn call_nodes<E, B, T>(caller: &dyn AdminCaller, node: &str, body: B) -> Result<NodeAnswers<T>, CliError>
where
    E: Endpoint<Request = OnNode<B>, Response = NodeAnswers<T>>,
    B: Serialize + DeserializeOwned,
{
    call::<E>(caller, OnNode { node: node.to_owned(), body }).await
}

/// A typed call that runs on the contacted node only: its answer, or its error as this command's.
pub(crate) async fn call_self<E, B, T>(caller: &dyn AdminCaller, body: B) -> Result<T, CliError>
where
    E: Endpoint<Request = OnNode<B>, Response = NodeAnswers<T>>,
    B: Serialize + DeserializeOwned,
{
    let answers = call_nodes::<E, B, T>(caller, "self", body).await?;
    if let Some(answer) = answers.success.into_values().next() {
        return Ok(answer);
    }
    let error = answers.error.into_values().next().unwrap_or_else(|| "the node gave neither an answer nor an error".into());
    Err(CliError::Message(error))
}
