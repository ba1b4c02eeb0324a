//! Two nodes tell each other whom they know: at each new connection, when one of them learns of a node, and now and then.

use garage_net::{CallError, Class, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Announcement, PeerRecord};
use crate::{
    cluster::{CallOptions, Cluster, StoreMark},
    limits::CONTROL_CALL_TIMEOUT,
    message::{Access, Message, RouterBuilder, code, refusal},
};

/// What a node tells another.
#[derive(Clone, Serialize, Deserialize)]
pub struct Told {
    /// Of itself.
    pub announcement: Announcement,
    /// How far its store has come.
    pub store_mark: StoreMark,
    /// Of the peers it knows.
    pub peers: Vec<PeerRecord>,
    /// The highest mark that it knows of the store of the one it tells: who finds its own store behind that has lost something.
    #[serde(default)]
    pub store_known: Option<StoreMark>,
}

/// This is what I know; what do you?
#[derive(Serialize, Deserialize)]
pub struct Exchange {
    /// What the caller tells.
    pub told: Told,
}

impl Message for Exchange {
    const KIND: &'static str = "rpc/exchange";
    const CLASS: Class = Class::Control;
    const ACCESS: Access = Access::SecretHolder;
    type Answer = Told;
}

/// What this node tells `to`.
fn telling(cluster: &Cluster, to: NodeId) -> Told {
    let membership = cluster.membership();
    Told {
        announcement: membership.own_announcement(cluster),
        store_mark: (membership.own_mark)(),
        peers: membership.with_book(|book, _| book.records()),
        store_known: membership.with_book(|book, _| book.peer(to).and_then(|peer| peer.store_mark)),
    }
}

/// Takes what `from` told.
fn take(cluster: &Cluster, from: NodeId, told: Told) {
    let membership = cluster.membership();
    membership.compare_own_store(told.store_known);
    let differs = told.announcement.history_digest != cluster.keeper().held().digest;
    membership.learn(PeerRecord { node: from, addresses: Vec::new(), announcement: Some(told.announcement) });
    for record in told.peers {
        membership.learn(record);
    }
    membership.compare_store_mark(from, told.store_mark);
    membership.note_link(cluster, from);
    if differs {
        cluster.keeper().want_sync(from);
    }
}

/// The handlers of membership messages.
pub(crate) fn register_handlers(cluster: &Cluster, router: RouterBuilder) -> RouterBuilder {
    let cluster = cluster.clone();
    router.on_plain::<Exchange, _>(move |caller, _context, message| {
        let cluster = cluster.clone();
        async move {
            if message.told.announcement.node != caller.node {
                return Err(refusal(code::INVALID, "the announcement is another node's"));
            }
            let answer = telling(&cluster, caller.node);
            take(&cluster, caller.node, message.told);
            Ok(answer)
        }
    })
}

/// Tells `node` and takes what it tells.
pub(super) async fn exchange_with(cluster: &Cluster, node: NodeId) -> Result<(), CallError> {
    let message = Exchange { told: telling(cluster, node) };
    let asked_at = Instant::now();
    let told = cluster.call(node, &message, CallOptions::within(CONTROL_CALL_TIMEOUT)).await?;
    if told.announcement.node == node {
        cluster.note_clock(node, told.announcement.clock_ms, asked_at.elapsed());
        take(cluster, node, told);
    }
    Ok(())
}
