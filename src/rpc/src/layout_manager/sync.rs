//! Equalises layout histories: pushed to the connected peers after each change, compared with each new peer, and whenever a peer's
//! announcement shows another digest.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use garage_net::{CallError, Class, NodeId};
use garage_util::encoding::{DecodeError, Stored};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ballot::{self, LayoutBallot};
use crate::{
    cluster::{CallOptions, Cluster},
    layout::{LayoutDamaged, LayoutHistory},
    limits::{CONTROL_CALL_TIMEOUT, DIALS_MAX, LAYOUT_PUSH_DELAY},
    message::{Access, Message, RouterBuilder, code, refusal},
    state::StateError,
};

/// How often trackers are looked at without a cause.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often undecided versions are looked for.
const UNDECIDED_PERIOD: Duration = Duration::from_secs(3);

/// Here is my layout history; give me yours if it differs once you have merged mine.
#[derive(Serialize, Deserialize)]
pub struct LayoutSync {
    /// The stored form of the history.
    #[serde(with = "serde_bytes")]
    pub history: Vec<u8>,
}

/// What differs after the merge.
#[derive(Serialize, Deserialize)]
pub struct LayoutSyncAnswer {
    /// The stored form of the merged history; `None`: it equals what was sent.
    #[serde(with = "serde_bytes")]
    pub history: Option<Vec<u8>>,
}

impl Message for LayoutSync {
    const KIND: &'static str = "rpc/layout_sync";
    const CLASS: Class = Class::Control;
    const ACCESS: Access = Access::SecretHolder;
    type Answer = LayoutSyncAnswer;
}

/// A peer's history was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// It cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It breaks a rule.
    #[error(transparent)]
    Damaged(#[from] LayoutDamaged),
    /// The disk refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The peer did not give it.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Takes over what is newer in a peer's history.
pub(crate) async fn merge_stored(cluster: &Cluster, stored: &[u8]) -> Result<(), MergeError> {
    let theirs = LayoutHistory::from_stored(stored)?;
    theirs.check()?;
    cluster
        .keeper()
        .update(|history| {
            history.merge(&theirs);
            Ok::<(), MergeError>(())
        })
        .await
}

/// Makes this node's history and a peer's equal.
pub(super) async fn sync_with(cluster: &Cluster, node: NodeId) -> Result<(), MergeError> {
    let message = LayoutSync { history: cluster.layout().to_stored() };
    let answer = cluster.call(node, &message, CallOptions::within(CONTROL_CALL_TIMEOUT)).await?;
    match answer.history {
        Some(history) => merge_stored(cluster, &history).await,
        None => Ok(()),
    }
}

/// The handlers of layout messages.
pub(crate) fn register_handlers(cluster: &Cluster, router: RouterBuilder) -> RouterBuilder {
    let (for_sync, for_ballot) = (cluster.clone(), cluster.clone());
    router
        .on_plain::<LayoutSync, _>(move |_caller, _context, message| {
            let cluster = for_sync.clone();
            async move {
                let merged = merge_stored(&cluster, &message.history).await;
                merged.map_err(|error| refusal(code::INVALID, format!("the layout history is not taken over: {error}")))?;
                let history = cluster.layout().to_stored();
                Ok(LayoutSyncAnswer { history: (history != message.history).then_some(history) })
            }
        })
        .on_plain::<LayoutBallot, _>(move |caller, _context, message| {
            let cluster = for_ballot.clone();
            async move { ballot::serve(&cluster, caller.node, message).await }
        })
}

/// Starts the tasks that keep histories equal.
pub(crate) fn start(cluster: &Cluster) {
    let cluster = cluster.clone();
    cluster.runtime().spawn("undecided layouts", settle_undecided(cluster.clone()));
    cluster.runtime().clone().spawn("layout", async move {
        let known = Arc::new(Mutex::new(BTreeMap::<NodeId, [u8; 32]>::new()));
        let mut changes = cluster.keeper().changes();
        loop {
            tokio::select! {
                biased;
                // Losing the race loses nothing: a change stays marked as unseen, a wish stays in its set.
                _ = changes.changed() => tokio::time::sleep(LAYOUT_PUSH_DELAY).await,
                () = cluster.keeper().sync_wakes.notified() => {}
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
            if let Err(error) = cluster.keeper().look_again().await {
                tracing::error!(%error, "the layout cannot be stored");
            }
            changes.mark_unchanged();
            sync_all(&cluster, &known).await;
        }
    });
}

/// Settles versions that somebody began to apply and did not finish; apart from the other task, as it may wait for silent nodes.
async fn settle_undecided(cluster: Cluster) {
    let mut seen_before = None;
    loop {
        tokio::time::sleep(UNDECIDED_PERIOD).await;
        // One that is there twice is not just being applied: its coordinator stopped half way.
        let seen = cluster.keeper().ballots.lock().await.undecided();
        if seen.is_some() && seen == seen_before {
            super::apply::finish_undecided(&cluster).await;
        }
        seen_before = seen;
    }
}

/// Compares histories with every connected peer whose digest is not known to be the same, and with those that were asked for.
async fn sync_all(cluster: &Cluster, known: &Arc<Mutex<BTreeMap<NodeId, [u8; 32]>>>) {
    let digest = cluster.keeper().held().digest;
    let wanted = cluster.keeper().take_wanted_syncs();
    let connected = cluster.membership().connected();
    known.lock().retain(|node, _| connected.contains(node));
    let differs = |node: &NodeId| wanted.contains(node) || known.lock().get(node) != Some(&digest);
    let targets: Vec<NodeId> = connected.iter().copied().filter(differs).collect();
    stream::iter(targets)
        .for_each_concurrent(DIALS_MAX, |node| async move {
            match sync_with(cluster, node).await {
                Ok(()) => drop(known.lock().insert(node, cluster.keeper().held().digest)),
                Err(error) => tracing::debug!(%node, %error, "layout histories were not compared"),
            }
        })
        .await;
}

/// Brings a change to every connected peer before returning, as far as they answer.
pub(super) async fn push_now(cluster: &Cluster) {
    let connected = cluster.membership().connected();
    stream::iter(connected)
        .for_each_concurrent(DIALS_MAX, |node| async move {
            if let Err(error) = sync_with(cluster, node).await {
                tracing::debug!(%node, %error, "the new layout was not pushed; the peer will ask for it");
            }
        })
        .await;
}
