//! The real way to a node: over QUIC to a listener in this process.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_api_admin::{AdminAnswer, AdminCall, AdminError};
use garage_net::{Answer, Incoming, NodeId, NodeKey, QuicOptions, QuicTransport, Refusal, Service};
use garage_util::{
    config::{PeerAddr, RpcSecret},
    runtime::Runtime,
};
use serde_json::json;

use crate::cli::{caller::AdminCaller, rpc_caller::RpcCaller};

/// Answers every call with its own payload, and `Fail` with an error.
struct Echo;

impl Service for Echo {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        Box::pin(async move {
            let call: AdminCall = rmp_serde::from_slice(&incoming.payload).unwrap();
            let result = match call.endpoint.as_str() {
                "Fail" => Err(AdminError::invalid("as asked")),
                _ => Ok(serde_json::from_slice(&call.body).unwrap()),
            };
            Ok(Answer::of(rmp_serde::to_vec_named(&AdminAnswer::of(result)).unwrap().into()))
        })
    }

    fn datagram(&self, _from: NodeId, _data: Bytes) {}
}

#[tokio::test]
async fn a_command_reaches_a_node_that_shares_its_secret_and_no_other() {
    let key = NodeKey::from_seed([7; 32]).unwrap();
    let id = key.node().0;
    let (runtime, _tasks) = Runtime::real();
    let options = QuicOptions::node(SocketAddr::from(([127, 0, 0, 1], 0)), key, [1; 32]);
    let node = QuicTransport::bind(options, runtime, Arc::new(Echo)).unwrap();
    let peer = PeerAddr { id, address: node.local_addr().unwrap().into() };

    let caller = RpcCaller::connect(&peer, &RpcSecret([1; 32])).await.unwrap();
    assert_eq!(caller.call_raw("Echo", json!({"a": 1})).await, Ok(json!({"a": 1})));
    assert_eq!(caller.call_raw("Fail", json!(null)).await, Err(AdminError::invalid("as asked")));

    let wrong_secret = RpcCaller::connect(&peer, &RpcSecret([2; 32])).await.err().unwrap().to_string();
    assert!(wrong_secret.contains("check that it runs, that rpc_secret is the cluster's"), "{wrong_secret}");
    let wrong_id = PeerAddr { id: [9; 32], ..peer };
    assert!(RpcCaller::connect(&wrong_id, &RpcSecret([1; 32])).await.is_err());
}
