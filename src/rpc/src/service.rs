//! What other nodes may ask of this one: the access rule in front of the router.
//!
//! Nodes of a live layout version may send everything; those of earlier versions hand over the blocks that they still have; other holders of the
//! cluster secret only gossip, layout and administration, each logged. Before the first layout nobody is a member.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_net::{Answer, Incoming, NodeId, Refusal, Service};

use crate::{
    cluster::{Cluster, not_a_member},
    message::{Access, Router},
};

/// The cluster's side of the transport.
pub(crate) struct ClusterService {
    cluster: Cluster,
    router: Router,
}

impl ClusterService {
    pub(crate) fn new(cluster: Cluster, router: Router) -> ClusterService {
        ClusterService { cluster, router }
    }
}

impl Service for ClusterService {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let from = incoming.from.node;
        let held = self.cluster.keeper().held();
        self.cluster.membership().heard(from);
        if !held.members.contains(&from) {
            let is_refused = match self.router.access(&incoming.kind) {
                Some(Access::Member) => true,
                Some(Access::FormerMember) => !held.former_members.contains(&from),
                Some(Access::SecretHolder) | None => false,
            };
            if is_refused {
                tracing::warn!(%from, address = ?incoming.from.address, kind = incoming.kind, "refused a call from outside the layout");
                return Box::pin(async move { Err(not_a_member(from)) });
            }
            tracing::debug!(%from, address = ?incoming.from.address, kind = incoming.kind, "a call from outside the layout");
        }
        // A caller with a newer layout is asked for it; its call is served meanwhile, as it plans for more than this node knows.
        if held.mark.version < incoming.layout.version {
            self.cluster.keeper().want_sync(from);
        }
        self.router.run(incoming)
    }

    fn datagram(&self, from: NodeId, data: Bytes) {
        self.cluster.membership().on_datagram(from, data);
    }
}

/// Keeps the type usable as a trait object.
const _: fn(Arc<ClusterService>) -> Arc<dyn Service> = |service| service;
