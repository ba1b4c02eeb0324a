//! Calls that run on the nodes that `node` selects: each is asked by the same message, as `self`, and answers or fails for itself.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use garage_model::RequestContext;
use garage_net::NodeId;
use garage_rpc::CallOptions;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{AdminApi, encode};
use crate::{
    AdminCall, AdminError, Endpoint,
    limits::{LOOKUPS_AT_ONCE, NODE_TIMEOUT},
    types::{NodeAnswers, OnNode},
};

impl AdminApi {
    /// Runs an endpoint on every node that the request selects; `local` is its work on this one.
    pub(super) async fn on_nodes<E, B, T, F>(
        &self,
        request: OnNode<B>,
        context: RequestContext,
        local: impl Fn(B) -> F,
    ) -> Result<NodeAnswers<T>, AdminError>
    where
        E: Endpoint<Request = OnNode<B>, Response = NodeAnswers<T>>,
        B: Clone + Serialize + Send + Sync,
        T: DeserializeOwned + Send,
        F: Future<Output = Result<T, AdminError>> + Send,
    {
        let nodes = self.select_nodes(&request.node)?;
        let (local, body) = (&local, &request.body);
        let asked = nodes.into_iter().map(|node| async move {
            let answer = if node == self.node.cluster.local() {
                local(body.clone()).await.map_err(|error| error.to_string())
            } else {
                self.ask_node::<E, B, T>(node, body, context).await
            };
            (node, answer)
        });
        let mut answers = NodeAnswers::default();
        let mut asked = stream::iter(asked).buffer_unordered(LOOKUPS_AT_ONCE);
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(answer) => drop(answers.success.insert(node.to_string(), answer)),
                Err(error) => drop(answers.error.insert(node.to_string(), error)),
            }
        }
        Ok(answers)
    }

    async fn ask_node<E, B, T>(&self, node: NodeId, body: &B, context: RequestContext) -> Result<T, String>
    where
        E: Endpoint<Request = OnNode<B>, Response = NodeAnswers<T>>,
        B: Clone + Serialize,
        T: DeserializeOwned,
    {
        let payload = encode(&OnNode { node: "self".to_string(), body: body.clone() }).map_err(|error| error.to_string())?;
        let call = AdminCall { endpoint: E::NAME.to_string(), body: payload.to_string().into() };
        let deadline = context.deadline.min(Instant::now() + NODE_TIMEOUT);
        let answer = self.node.cluster.call(node, &call, CallOptions::until(deadline).traced(context.trace)).await;
        let answer = answer.map_err(|error| error.to_string())?.into_value().map_err(|error| error.to_string())?;
        let answers: NodeAnswers<T> = serde_json::from_value(answer).map_err(|error| format!("its answer cannot be read: {error}"))?;
        match (answers.success.into_values().next(), answers.error.into_values().next()) {
            (Some(answer), _) => Ok(answer),
            (None, Some(error)) => Err(error),
            (None, None) => Err("the node gave neither an answer nor an error".to_string()),
        }
    }

    /// The nodes that a selector means. Errors: `InvalidRequest` unless a prefix matches exactly one.
    fn select_nodes(&self, selector: &str) -> Result<Vec<NodeId>, AdminError> {
        match selector {
            "" => Err(AdminError::invalid("node must be *, self, or the beginning of a node id")),
            "self" => Ok(vec![self.node.cluster.local()]),
            "*" => Ok(self.reachable_nodes().into_iter().collect()),
            prefix => {
                let wanted = prefix.to_lowercase();
                let found: Vec<NodeId> = self.reachable_nodes().into_iter().filter(|node| node.to_string().starts_with(&wanted)).collect();
                if found.len() == 1 { Ok(found) } else { Err(AdminError::invalid(format!("{} nodes match '{prefix}'", found.len()))) }
            }
        }
    }

    /// Nodes of a live layout version, and those that are up.
    fn reachable_nodes(&self) -> BTreeSet<NodeId> {
        let mut nodes = self.node.cluster.layout().live_nodes();
        nodes.extend(self.node.cluster.status().into_iter().filter(|status| status.is_up).map(|status| status.node));
        nodes
    }
}
