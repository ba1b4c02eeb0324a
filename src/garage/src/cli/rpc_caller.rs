//! The way to a node over its RPC port: one connection with a key that is thrown away afterwards.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_api_admin::{AdminAnswer, AdminCall, AdminError};
use garage_net::{
    Answer, Call, CallError, Class, Incoming, LayoutMark, NodeId, NodeKey, QuicOptions, QuicTransport, Refusal, Service, Transport,
};
use garage_util::{
    config::{PeerAddr, RpcSecret},
    runtime::{RealTasks, Runtime},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{caller::AdminCaller, error::CliError};

/// Longest time one command may take on the node.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the node may take to hear that the command is over; it would find out by itself, later.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(50);

/// Calls the administration interface of one node.
pub(crate) struct RpcCaller {
    transport: QuicTransport,
    node: NodeId,
    // Tasks of the transport live as long as this.
    _tasks: RealTasks,
}

impl RpcCaller {
    /// Connects to `peer`.
    ///
    /// Errors: an address that does not resolve, nobody there, another node there, a secret that is not the cluster's.
    pub(crate) async fn connect(peer: &PeerAddr, secret: &RpcSecret) -> Result<Self, CliError> {
        let fail = |reason: String| {
            CliError::Message(format!(
                "cannot talk to node {peer}: {reason}; check that it runs, that rpc_secret is the cluster's, and that its full id is right"
            ))
        };
        let key = NodeKey::throw_away().map_err(|error| fail(error.to_string()))?;
        let (runtime, tasks) = Runtime::real();
        let transport = QuicTransport::bind(QuicOptions::client(key, secret.0), runtime, Arc::new(NothingToServe))
            .map_err(|error| fail(error.to_string()))?;
        let node = NodeId(peer.id);
        let mut last = "its host name has no address".to_owned();
        for address in resolve(peer).await.map_err(fail)? {
            match transport.connect(address, Some(node)).await {
                Ok(_) => return Ok(RpcCaller { transport, node, _tasks: tasks }),
                Err(error) => last = error.to_string(),
            }
        }
        Err(fail(last))
    }

    /// Tells the node that the command is over.
    pub(crate) async fn close(self) {
        let _ = timeout(GOODBYE_TIMEOUT, self.transport.close(Duration::ZERO)).await;
    }
}

async fn resolve(peer: &PeerAddr) -> Result<Vec<SocketAddr>, String> {
    if let Some(address) = peer.address.literal() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((peer.address.host.as_str(), peer.address.port)).await;
    found.map(Iterator::collect).map_err(|error| format!("its host name does not resolve: {error}"))
}

impl AdminCaller for RpcCaller {
    fn call_raw<'a>(&'a self, endpoint: &'a str, body: Value) -> BoxFuture<'a, Result<Value, AdminError>> {
        Box::pin(async move {
            let message = AdminCall { endpoint: endpoint.to_owned(), body: body.to_string().into() };
            let payload = rmp_serde::to_vec_named(&message).map_err(|error| AdminError::internal(error.to_string()))?;
            let call = Call {
                kind: <AdminCall as garage_rpc::message::Message>::KIND,
                class: Class::Control,
                deadline: tokio::time::Instant::now() + CALL_TIMEOUT,
                trace: 0,
                layout: LayoutMark::default(),
                payload: payload.into(),
                body: None,
            };
            let answer = self.transport.call(self.node, call).await.map_err(broken)?;
            let answer: AdminAnswer = rmp_serde::from_slice(&answer.payload)
                .map_err(|error| AdminError::internal(format!("the node's answer cannot be read: {error}")))?;
            answer.into_value()
        })
    }
}

/// A call that did not reach a handler.
fn broken(error: CallError) -> AdminError {
    match error {
        CallError::Refused(refusal) => AdminError::unavailable(refusal.message),
        other => AdminError::unavailable(other.to_string()),
    }
}

/// A client serves nobody.
struct NothingToServe;

impl Service for NothingToServe {
    fn serve(&self, _incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let refused =
            Refusal { code: "NotAMember".into(), message: "this is a command line client, not a node".into(), detail: Bytes::new() };
        Box::pin(async move { Err(refused) })
    }

    fn datagram(&self, _from: NodeId, _data: Bytes) {}
}
