//! The replica side of the agreement on the next layout version: one register for each version number, kept on the storage nodes of
//! the version before. Durable before each answer.

use garage_net::{Class, NodeId, Refusal};
use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::sync::sync_with;
use crate::{
    cluster::Cluster,
    layout::LayoutVersion,
    message::{Access, Message, code, refusal},
    register::{self, Entry, RegisterSide},
    state::{StateError, StateFiles},
};

const FILE: &str = "layout_ballot";

/// One step of the agreement on a layout version.
#[derive(Clone, Serialize, Deserialize)]
pub struct LayoutBallot {
    /// The version to be agreed on.
    pub version: u64,
    /// The epoch of the version before: a forced layout starts the ballots anew.
    pub epoch: u64,
    /// The register's message.
    pub message: register::Message,
    /// The layout that goes along with an apply, in its stored form.
    #[serde(default)]
    pub content: Option<ByteBuf>,
}

/// The answer, with the content of the entry it names.
#[derive(Clone, Serialize, Deserialize)]
pub struct LayoutBallotAnswer {
    /// The register's answer.
    pub answer: register::Answer,
    /// The entry held after it, and the layout it stands for.
    #[serde(default)]
    pub held: Option<(Entry, ByteBuf)>,
}

impl Message for LayoutBallot {
    const KIND: &'static str = "rpc/layout_ballot";
    const CLASS: Class = Class::Control;
    const ACCESS: Access = Access::SecretHolder;
    type Answer = LayoutBallotAnswer;
}

/// The register of one version number at this replica.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ballot {
    version: u64,
    epoch: u64,
    held: Option<(Entry, ByteBuf)>,
    side: RegisterSide,
}

impl Stored for Ballot {
    const WHAT: &'static str = "layout ballot";
}

/// The newest ballot of this node: once a version is decided, its ballot is of no use.
pub(crate) struct BallotBox {
    ballot: Ballot,
    files: StateFiles,
}

impl BallotBox {
    pub(super) async fn open(files: StateFiles) -> Result<BallotBox, StateError> {
        Ok(BallotBox { ballot: files.load(FILE).await?.unwrap_or_default(), files })
    }

    /// The version on which a ballot was begun here, with its epoch, if an entry was accepted.
    pub(super) fn undecided(&self) -> Option<(u64, u64)> {
        self.ballot.held.as_ref().map(|_| (self.ballot.version, self.ballot.epoch))
    }

    async fn step(&mut self, request: &LayoutBallot) -> Result<LayoutBallotAnswer, StateError> {
        let is_same = (self.ballot.version, self.ballot.epoch) == (request.version, request.epoch);
        let mut ballot =
            if is_same { self.ballot.clone() } else { Ballot { version: request.version, epoch: request.epoch, ..Ballot::default() } };
        let row = ballot.held.as_ref().map(|(entry, _)| *entry);
        let (answer, replaced) = ballot.side.serve(row, &request.message);
        if let (Some(entry), Some(content)) = (replaced, &request.content) {
            ballot.held = Some((entry, content.clone()));
        }
        self.files.save(FILE, &ballot).await?;
        self.ballot = ballot;
        Ok(LayoutBallotAnswer { answer, held: self.ballot.held.clone() })
    }
}

/// Serves a step, if the version it is about comes next here.
pub(super) async fn serve(cluster: &Cluster, from: NodeId, request: LayoutBallot) -> Result<LayoutBallotAnswer, Refusal> {
    check_content(&request)?;
    if cluster.keeper().abstains() {
        return Err(refusal(code::UNAVAILABLE, "this node lost its store and does not take part in agreements until it is refilled"));
    }
    let expected = |cluster: &Cluster| (cluster.layout().current().version + 1, cluster.layout().epoch());
    if expected(cluster) < (request.version, request.epoch)
        && let Err(error) = sync_with(cluster, from).await
    {
        tracing::debug!(%from, %error, "the layout before the proposed one is not known here");
    }
    let keeper = cluster.keeper();
    let mut ballots = keeper.ballots.lock().await;
    let (version, epoch) = expected(cluster);
    if (request.version, request.epoch) == (version, epoch) {
        let step = ballots.step(&request).await;
        return step.map_err(|error| refusal(code::UNAVAILABLE, error.to_string()));
    }
    if request.version < version || request.epoch < epoch {
        let message = format!("layout version {} was applied already", request.version);
        return Err(Refusal { code: code::STALE_LAYOUT.to_string(), message, detail: cluster.layout().to_stored().into() });
    }
    Err(refusal(code::UNAVAILABLE, format!("layout version {} is not known here yet", request.version - 1)))
}

/// An apply must carry a layout that can be applied as that version.
fn check_content(request: &LayoutBallot) -> Result<(), Refusal> {
    let register::Message::Apply { .. } = request.message else { return Ok(()) };
    let Some(content) = &request.content else { return Err(refusal(code::INVALID, "the proposed layout is missing")) };
    let proposed = decode_version(content).map_err(|reason| refusal(code::INVALID, format!("the proposed layout is damaged: {reason}")))?;
    if proposed.version != request.version {
        return Err(refusal(code::INVALID, format!("layout version {} was proposed as {}", proposed.version, request.version)));
    }
    Ok(())
}

/// A layout version from its stored form, checked.
pub(super) fn decode_version(content: &[u8]) -> Result<LayoutVersion, String> {
    let version: LayoutVersion = rmp_serde::from_slice(content).map_err(|error| error.to_string())?;
    version.check().map_err(|error| error.to_string())?;
    Ok(version)
}

/// The form in which [`decode_version`] reads it.
pub(super) fn encode_version(version: &LayoutVersion) -> ByteBuf {
    ByteBuf::from(crate::message::encode(version).to_vec())
}
