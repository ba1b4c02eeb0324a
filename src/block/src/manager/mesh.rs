//! The other nodes, as the block manager needs them; a trait, so that tests can put stuck, lying and dead nodes in their place.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use garage_net::{BodyStream, CallError, Class, NodeId};
use garage_rpc::{CallOptions, Cluster, Encoded, LayoutNotReady, Message, Placement, StoreMark, register::QuorumSets};

use super::RequestContext;
use crate::{
    hash::BlockHash,
    message::{
        AddReferences, AskBlocks, BlockHeader, BlocksKnown, CheckBlock, CopyState, GetBlock, HintReferences, PutBlock, ReferencesAdded,
    },
    service::body_of,
};

/// Where a block lives, for one operation. Keep it until the operation's last call has ended, as [`Placement`] demands.
#[derive(Clone, Debug)]
pub struct Holders {
    /// A write needs a quorum in each of these.
    pub write: QuorumSets<NodeId>,
    /// Who may have a copy: nearest first, unreachable ones last.
    pub read_order: Vec<NodeId>,
    /// What this follows from, kept in use.
    pub placement: Option<Arc<Placement>>,
}

/// Where blocks are, and how to call those who have them.
pub trait Mesh: Send + Sync {
    /// This node.
    fn local(&self) -> NodeId;
    /// Where a block lives.
    fn holders(&self, block: BlockHash) -> Result<Holders, LayoutNotReady>;
    /// Sends a block with its reference.
    fn put(&self, to: NodeId, message: PutBlock, bytes: Bytes, context: RequestContext)
    -> BoxFuture<'static, Result<StoreMark, CallError>>;
    /// Asks for a block; its bytes follow the header.
    fn get(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>>;
    /// Sends references to blocks that should be there.
    fn add_references(
        &self,
        to: NodeId,
        message: AddReferences,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<ReferencesAdded, CallError>>;
    /// Asks a node to look at its copy.
    fn check(&self, to: NodeId, message: CheckBlock, context: RequestContext) -> BoxFuture<'static, Result<CopyState, CallError>>;
    /// Asks a node what it knows of blocks.
    fn ask(&self, to: NodeId, message: AskBlocks, context: RequestContext) -> BoxFuture<'static, Result<BlocksKnown, CallError>>;
    /// Tells a node of references whose versions may be dead.
    fn hint(&self, to: NodeId, message: HintReferences, context: RequestContext) -> BoxFuture<'static, Result<StoreMark, CallError>>;
    /// As [`Mesh::get`], giving way to what clients wait for.
    fn fetch(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>>;
    /// As [`Mesh::put`], giving way to what clients wait for.
    fn hand_over(
        &self,
        to: NodeId,
        message: PutBlock,
        bytes: Bytes,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<StoreMark, CallError>>;
    /// Every other node that may still have a copy of some block: storage nodes of all layout versions that are remembered.
    fn former_holders(&self) -> Vec<NodeId>;
}

/// A block on its way.
pub type SentBlock = (BlockHeader, Option<BodyStream>);
/// An answer with the body that may follow it, or why there is none.
pub(crate) type Called<M> = Result<(<M as Message>::Answer, Option<BodyStream>), CallError>;

impl From<RequestContext> for CallOptions {
    fn from(context: RequestContext) -> CallOptions {
        CallOptions::until(context.deadline).traced(context.trace)
    }
}

fn call<M: Message>(
    cluster: &Cluster,
    to: NodeId,
    message: &M,
    body: Option<BodyStream>,
    options: impl Into<CallOptions>,
) -> BoxFuture<'static, Called<M>> {
    let (cluster, message, options) = (cluster.clone(), Encoded::new(message), options.into());
    async move { cluster.call_with_body(to, &message, body, options).await }.boxed()
}

/// Options of a call that gives way to what clients wait for.
fn calm(context: RequestContext) -> CallOptions {
    CallOptions::from(context).in_class(Class::Background)
}

/// Notes how far the store of the node had come that acknowledged a write.
fn noted(cluster: &Cluster, to: NodeId, mark: StoreMark) -> StoreMark {
    if let Some(regression) = cluster.note_store_mark(to, mark) {
        tracing::warn!(node = %to.short(), ?regression, "a node acknowledged a block with another store than before");
    }
    mark
}

/// The holders in versions that are no longer live and still kept, of those that can be reached, whether they have a role now or not.
fn former_holders(cluster: &Cluster, block: BlockHash) -> std::collections::BTreeSet<NodeId> {
    let (layout, hash) = (cluster.layout(), block.placement_hash());
    let former = layout.historical().filter(|version| version.is_ready());
    let holders = former.flat_map(|version| version.nodes_of(version.partition_of(&hash)).collect::<Vec<NodeId>>());
    holders.filter(|node| cluster.is_up(*node)).collect()
}

impl Mesh for Cluster {
    fn local(&self) -> NodeId {
        Cluster::local(self)
    }

    fn holders(&self, block: BlockHash) -> Result<Holders, LayoutNotReady> {
        let placement = self.placement(&block.placement_hash())?;
        let mut read_order = placement.read_nodes.clone();
        // While blocks move, the nodes of another live version may have what those of the read version lack.
        let mut others: Vec<NodeId> = placement.write.nodes().into_iter().filter(|node| !read_order.contains(node)).collect();
        self.order_by_nearness(&mut others);
        read_order.extend(others);
        // Blocks move after their rows: who held them in a version that was just left may still be the only one who has them.
        let mut former: Vec<NodeId> = former_holders(self, block).into_iter().filter(|node| !read_order.contains(node)).collect();
        self.order_by_nearness(&mut former);
        read_order.extend(former);
        Ok(Holders { write: placement.write.clone(), read_order, placement: Some(Arc::new(placement)) })
    }

    fn put(
        &self,
        to: NodeId,
        message: PutBlock,
        bytes: Bytes,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        let (cluster, sent) = (self.clone(), call(self, to, &message, Some(body_of(bytes, None)), context));
        async move { Ok(noted(&cluster, to, sent.await?.0)) }.boxed()
    }

    fn get(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>> {
        call(self, to, &message, None, context)
    }

    fn add_references(
        &self,
        to: NodeId,
        message: AddReferences,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<ReferencesAdded, CallError>> {
        let (cluster, sent) = (self.clone(), call(self, to, &message, None, context));
        async move {
            let added = sent.await?.0;
            noted(&cluster, to, added.mark);
            Ok(added)
        }
        .boxed()
    }

    fn check(&self, to: NodeId, message: CheckBlock, context: RequestContext) -> BoxFuture<'static, Result<CopyState, CallError>> {
        let sent = call(self, to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }

    fn ask(&self, to: NodeId, message: AskBlocks, context: RequestContext) -> BoxFuture<'static, Result<BlocksKnown, CallError>> {
        let sent = call(self, to, &message, None, context);
        async move { Ok(sent.await?.0) }.boxed()
    }

    fn hint(&self, to: NodeId, message: HintReferences, context: RequestContext) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        let (cluster, sent) = (self.clone(), call(self, to, &message, None, context));
        async move { Ok(noted(&cluster, to, sent.await?.0)) }.boxed()
    }

    fn fetch(&self, to: NodeId, message: GetBlock, context: RequestContext) -> BoxFuture<'static, Result<SentBlock, CallError>> {
        call(self, to, &message, None, calm(context))
    }

    fn hand_over(
        &self,
        to: NodeId,
        message: PutBlock,
        bytes: Bytes,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<StoreMark, CallError>> {
        let (cluster, sent) = (self.clone(), call(self, to, &message, Some(body_of(bytes, None)), calm(context)));
        async move { Ok(noted(&cluster, to, sent.await?.0)) }.boxed()
    }

    fn former_holders(&self) -> Vec<NodeId> {
        let layout = self.layout();
        let versions = layout.live().chain(layout.historical());
        let nodes: BTreeSet<NodeId> = versions.flat_map(|version| version.storage_nodes().iter().copied()).collect();
        let mut nodes: Vec<NodeId> = nodes.into_iter().filter(|node| *node != Cluster::local(self)).collect();
        self.order_by_nearness(&mut nodes);
        nodes
    }
}
