//! The message between nodes, and from the command line to a node, that carries one administration request as JSON text.

use bytes::Bytes;
use garage_net::Class;
use garage_rpc::message::{Access, Message};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::AdminError;

/// A request to the administration interface of the node that receives it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdminCall {
    /// Name of the endpoint.
    pub endpoint: String,
    /// The payload, JSON text.
    pub body: Bytes,
}

/// What comes back: JSON text of the endpoint's answer, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdminAnswer(pub Result<Bytes, AdminError>);

impl Message for AdminCall {
    const KIND: &'static str = "admin/call";
    const CLASS: Class = Class::Control;
    // Whoever knows the cluster secret may administer the cluster: the command line has no place in the layout.
    const ACCESS: Access = Access::SecretHolder;
    type Answer = AdminAnswer;
}

impl AdminAnswer {
    /// Wraps a handler's result.
    pub fn of(result: Result<serde_json::Value, AdminError>) -> Self {
        AdminAnswer(result.map(|value| value.to_string().into()))
    }

    /// The JSON answer.
    ///
    /// Errors: the node's own, or `InternalError` when what it sent is no JSON.
    pub fn into_value(self) -> Result<serde_json::Value, AdminError> {
        from_json(&self.0?, "the node's answer")
    }
}

/// Decodes JSON text; `what` names it in the error.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, AdminError> {
    serde_json::from_slice(text).map_err(|error| AdminError::internal(format!("{what} is not valid JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_the_wire_whichever_way_it_went() {
        for result in [Ok(serde_json::json!({"a": [1, null]})), Err(AdminError::invalid("no"))] {
            let packed = rmp_serde::to_vec_named(&AdminAnswer::of(result.clone())).unwrap();
            let back: AdminAnswer = rmp_serde::from_slice(&packed).unwrap();
            assert_eq!(back.into_value(), result);
        }
    }
}
