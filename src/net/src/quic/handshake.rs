//! What both sides say after TLS and before anything else: the proof of the cluster secret, dialler first.

use quinn::{Connection, SendStream};

use super::{
    reasons::{BAD_HELLO, Closing, MYSELF, WRONG_SECRET, connection_reason},
    stream::{HeadError, Outgoing, Receiving, head_for},
};
use crate::{
    frame::{Hello, decode_header},
    proof::{Binding, EXPORTER_BYTES, EXPORTER_LABEL, Role, prove, verify},
    ranking::Mark,
    tls::node_of_spki,
    types::NodeId,
};

/// Who this side is.
#[derive(Clone, Copy)]
pub struct Us<'a> {
    /// Its node id.
    pub node: NodeId,
    /// The number of this run.
    pub run: u64,
    /// The cluster secret.
    pub secret: &'a [u8; 32],
}

/// A peer that proved itself.
pub struct Proven {
    /// Who it is.
    pub node: NodeId,
    /// What ranks the connection.
    pub mark: Mark,
}

/// Why the other side is not let in, or does not let us in.
pub enum Rejected {
    /// This side has closed, with that code and sentence.
    ByUs(NodeId, &'static Closing),
    /// The other side closed or went away, in its words or ours.
    ByPeer(Option<NodeId>, String),
}

/// The dialler's part.
pub async fn as_dialler(me: Us<'_>, connection: &Connection, dial_number: u64) -> Result<Proven, Rejected> {
    let peer = peer_of(connection, me)?;
    let binding = binding(connection, me.node, peer)?;
    let broken = || broken(connection, peer);
    let (send, receive) = connection.open_bi().await.map_err(|_| broken())?;
    say_hello(send, Hello { run: me.run, dial_number, proof: prove(me.secret, Role::Dialler, &binding).to_vec() })
        .await
        .ok_or_else(broken)?;
    let hello = hear_hello(connection, peer, receive).await?;
    if !verify(me.secret, Role::Listener, &binding, &hello.proof) {
        return Err(reject(connection, peer, &WRONG_SECRET));
    }
    Ok(Proven { node: peer, mark: Mark { dialler: me.node, listener: peer, dial_number, peer_run: hello.run } })
}

/// The listener's part: says nothing before the dialler's proof holds.
pub async fn as_listener(me: Us<'_>, connection: &Connection) -> Result<Proven, Rejected> {
    let peer = peer_of(connection, me)?;
    let binding = binding(connection, peer, me.node)?;
    let broken = || broken(connection, peer);
    let (send, receive) = connection.accept_bi().await.map_err(|_| broken())?;
    let hello = hear_hello(connection, peer, receive).await?;
    if !verify(me.secret, Role::Dialler, &binding, &hello.proof) {
        return Err(reject(connection, peer, &WRONG_SECRET));
    }
    let dial_number = hello.dial_number;
    say_hello(send, Hello { run: me.run, dial_number, proof: prove(me.secret, Role::Listener, &binding).to_vec() })
        .await
        .ok_or_else(broken)?;
    Ok(Proven { node: peer, mark: Mark { dialler: peer, listener: me.node, dial_number, peer_run: hello.run } })
}

/// Closes before any stream is dropped: the end of a stream must not overtake the reason.
fn reject(connection: &Connection, peer: NodeId, closing: &'static Closing) -> Rejected {
    connection.close(closing.code, closing.reason.as_bytes());
    Rejected::ByUs(peer, closing)
}

fn peer_of(connection: &Connection, me: Us<'_>) -> Result<NodeId, Rejected> {
    let keys = connection.peer_identity().and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
    match keys.as_deref().map(Vec::as_slice) {
        Some([key]) => match node_of_spki(key) {
            Some(node) if node == me.node => Err(reject(connection, node, &MYSELF)),
            Some(node) => Ok(node),
            None => Err(Rejected::ByPeer(None, BAD_HELLO.reason.into())),
        },
        _ => Err(Rejected::ByPeer(None, BAD_HELLO.reason.into())),
    }
}

fn binding(connection: &Connection, dialler: NodeId, listener: NodeId) -> Result<Binding, Rejected> {
    let mut exporter = [0; EXPORTER_BYTES];
    // The length is fixed and small, which is all that this can complain of.
    let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"");
    exported.map_err(|_| Rejected::ByPeer(None, BAD_HELLO.reason.into()))?;
    Ok(Binding { dialler, listener, exporter })
}

fn broken(connection: &Connection, peer: NodeId) -> Rejected {
    let reason = connection.close_reason().map_or_else(|| BAD_HELLO.reason.into(), |error| connection_reason(&error));
    Rejected::ByPeer(Some(peer), reason)
}

async fn say_hello(send: SendStream, hello: Hello) -> Option<()> {
    let mut outgoing = Outgoing::new(send);
    let head = head_for(&hello, &bytes::Bytes::new()).ok()?;
    outgoing.send_head(head, bytes::Bytes::new()).await.ok()?;
    outgoing.finish();
    Some(())
}

async fn hear_hello(connection: &Connection, peer: NodeId, receive: quinn::RecvStream) -> Result<Hello, Rejected> {
    match Receiving::new(receive).read_head(None).await {
        Ok(head) => decode_header(&head.header).map_err(|_| reject(connection, peer, &BAD_HELLO)),
        Err(HeadError::Frame(_)) => Err(reject(connection, peer, &BAD_HELLO)),
        Err(HeadError::Read(_)) => Err(broken(connection, peer)),
    }
}
