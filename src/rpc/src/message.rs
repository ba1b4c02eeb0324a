//! Typed calls between nodes: what a message is, and the router that finds its handler.
//!
//! A message and its answer travel as MessagePack with named fields, so a field can be added with a default. Calls to the own node
//! take the same path without the network. Not here: who may call what (`cluster`), bytes on the wire (`garage_net`).

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use garage_net::{Answer, BodyStream, Caller, Class, Incoming, LayoutMark, Refusal};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

/// Machine codes of refusals that this crate gives.
pub mod code {
    /// The caller is not a node of a live layout version.
    pub const NOT_A_MEMBER: &str = "NotAMember";
    /// This release knows no such message.
    pub const UNKNOWN_MESSAGE: &str = "UnknownMessage";
    /// The message could not be decoded.
    pub const MALFORMED: &str = "Malformed";
    /// The caller acts on an older layout than this node acknowledged; the detail is the layout history.
    pub const STALE_LAYOUT: &str = "StaleLayout";
    /// The node cannot do it now: it is stopping, or its disk failed.
    pub const UNAVAILABLE: &str = "Unavailable";
    /// The message makes no sense to this node.
    pub const INVALID: &str = "Invalid";
}

/// Who may send a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A node of a live layout version only.
    Member,
    /// These, and nodes of earlier versions that are remembered: they may have blocks left to hand over.
    FormerMember,
    /// Whoever has proven to know the cluster secret: gossip, layout and administration.
    SecretHolder,
}

/// A typed call.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name on the wire; `crate/name` by convention, never used for anything else later.
    const KIND: &'static str;
    /// The priority of its stream.
    const CLASS: Class;
    /// Who may send it.
    const ACCESS: Access = Access::Member;
    /// What a handler answers.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// A message in its wire form, to be sent to several nodes while being encoded once. Cheap to clone.
pub struct Encoded<M> {
    payload: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Encoded<M> {
    /// The wire form of `message`.
    pub fn new(message: &M) -> Encoded<M> {
        Encoded { payload: encode(message), message: PhantomData }
    }
    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.payload.len()
    }
    pub(crate) fn payload(&self) -> Bytes {
        self.payload.clone()
    }
}

impl<M> Clone for Encoded<M> {
    fn clone(&self) -> Self {
        Encoded { payload: self.payload.clone(), message: PhantomData }
    }
}

/// MessagePack with named fields.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value).expect("writing to a vector cannot fail, and messages have no unserializable fields").into()
}

/// What came with a call besides the message.
#[derive(Clone, Copy, Debug)]
pub struct CallContext {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Ties the steps of one request together in logs.
    pub trace: u64,
    /// The layout the caller acts on.
    pub layout: LayoutMark,
}

/// What a handler gives back: the answer and, if it streams, a body.
pub type Handled<A> = Result<(A, Option<BodyStream>), Refusal>;

/// A refusal without detail.
pub fn refusal(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: code.to_string(), message: message.into(), detail: Bytes::new() }
}

type Run = Box<dyn Fn(Caller, CallContext, Bytes, Option<BodyStream>) -> BoxFuture<'static, Result<Answer, Refusal>> + Send + Sync>;

struct Handler {
    access: Access,
    run: Run,
}

/// Collects handlers; each kind once.
#[derive(Default)]
pub struct RouterBuilder {
    handlers: BTreeMap<&'static str, Handler>,
}

impl RouterBuilder {
    /// No handlers yet.
    pub fn new() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// Handles `M` with `handler`, which may take and give a body stream.
    ///
    /// Panics when `M::KIND` has a handler already: two messages of one name are a bug that must not reach a node.
    pub fn on<M, F>(mut self, handler: impl Fn(Caller, CallContext, M, Option<BodyStream>) -> F + Send + Sync + 'static) -> RouterBuilder
    where
        M: Message,
        F: Future<Output = Handled<M::Answer>> + Send + 'static,
    {
        let run: Run = Box::new(move |caller, context, payload, body| {
            let message = match rmp_serde::from_slice::<M>(&payload) {
                Ok(message) => message,
                Err(error) => {
                    let refused = refusal(code::MALFORMED, format!("{} cannot be read: {error}", M::KIND));
                    return Box::pin(async move { Err(refused) });
                }
            };
            let handled = handler(caller, context, message, body);
            Box::pin(async move {
                let (answer, body) = handled.await?;
                Ok(Answer { payload: encode(&answer), body })
            })
        });
        let earlier = self.handlers.insert(M::KIND, Handler { access: M::ACCESS, run });
        assert!(earlier.is_none(), "two handlers for {}", M::KIND);
        self
    }

    /// Handles `M` with `handler`, neither side streaming a body.
    pub fn on_plain<M, F>(self, handler: impl Fn(Caller, CallContext, M) -> F + Send + Sync + 'static) -> RouterBuilder
    where
        M: Message,
        F: Future<Output = Result<M::Answer, Refusal>> + Send + 'static,
    {
        self.on::<M, _>(move |caller, context, message, _body| {
            let handled = handler(caller, context, message);
            async move { Ok((handled.await?, None)) }
        })
    }

    /// The finished router.
    pub fn build(self) -> Router {
        Router { handlers: Arc::new(self.handlers) }
    }
}

/// Finds the handler of a call. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    handlers: Arc<BTreeMap<&'static str, Handler>>,
}

impl Router {
    /// Who may send messages of this kind; `None`: it has no handler.
    pub fn access(&self, kind: &str) -> Option<Access> {
        self.handlers.get(kind).map(|handler| handler.access)
    }

    /// Runs the handler of a call whose access was checked.
    pub fn run(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let Some(handler) = self.handlers.get(incoming.kind.as_str()) else {
            let kind: String = incoming.kind.chars().take(80).collect();
            let refused = refusal(code::UNKNOWN_MESSAGE, format!("this node knows no message {kind:?}: upgrade the older node"));
            return Box::pin(async move { Err(refused) });
        };
        let context = CallContext { deadline: incoming.deadline, trace: incoming.trace, layout: incoming.layout };
        (handler.run)(incoming.from, context, incoming.payload, incoming.body)
    }
}
