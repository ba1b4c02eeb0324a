//! The coordinator side of the agreement on the next layout version: a conditional write on a register that must be empty, at a
//! majority of the storage nodes of the version before. So two operators cannot apply two different versions of one number.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use garage_net::{CallError, NodeId};
use serde_bytes::ByteBuf;
use tokio::time::{Instant, timeout_at};

use super::{
    ballot::{LayoutBallot, LayoutBallotAnswer, decode_version, encode_version},
    keeper::UpdateError,
    sync::push_now,
};
use crate::{
    clock::ClockError,
    cluster::{CallOptions, Cluster},
    layout::{LayoutError, LayoutReport, LayoutVersion, RoleChange},
    limits::{APPLY_ROUNDS_MAX, APPLY_TIMEOUT, HEDGE_DELAY_UNKNOWN},
    register::{self, Content, Coordinator, Outcome, Phase, QuorumSet, QuorumSets, Step, WriteId},
};

/// A layout version was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its number.
    pub version: u64,
    /// What it changes.
    pub report: LayoutReport,
}

/// A layout version was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The layout's rules forbid it, or it could not be stored.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// Somebody else was first.
    #[error(
        "another change was applied as layout version {version} meanwhile: look at it with `garage layout show`, and apply again if needed"
    )]
    Beaten {
        /// The number.
        version: u64,
    },
    /// No majority.
    #[error(
        "layout version {version} was not applied: a majority of the {node_count} storage nodes of the present version must answer; \
         bring nodes back, then try again"
    )]
    NoMajority {
        /// The number.
        version: u64,
        /// Storage nodes of the version before.
        node_count: usize,
    },
    /// It was sent, and its fate is not known.
    #[error("it is not known whether layout version {version} was applied: look again with `garage layout show` in a few seconds")]
    Unknown {
        /// The number.
        version: u64,
    },
    /// The clock gives no stamp.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

impl From<LayoutError> for ApplyError {
    fn from(error: LayoutError) -> ApplyError {
        ApplyError::Update(error.into())
    }
}

impl Cluster {
    /// Stages a role, or its removal, for the next version; shown on all nodes soon after.
    pub async fn stage_role(&self, node: NodeId, change: RoleChange) -> Result<(), UpdateError> {
        self.update_layout(|history, stamp| Ok(history.staging_mut().stage_role(stamp, node, change)?)).await
    }

    /// Drops the staged changes.
    pub async fn revert_layout(&self) -> Result<(), UpdateError> {
        self.update_layout(|history, _| {
            history.staging_mut().clear();
            Ok(())
        })
        .await
    }

    /// Changes staged or trackers by `change`, which gets a stamp above every staged one; durable here on return, then pushed to the peers.
    ///
    /// Not for new versions: see [`Cluster::apply_layout`].
    pub async fn update_layout<T>(
        &self,
        change: impl FnOnce(&mut crate::layout::LayoutHistory, garage_util::hlc::Stamp) -> Result<T, UpdateError>,
    ) -> Result<T, UpdateError> {
        let stamp = self.tick(self.layout().staging().last_stamp()).await?;
        self.keeper().update(|history| change(history, stamp)).await
    }

    /// Applies the staged changes as `version`, the present one plus 1. On return the connected nodes know it.
    pub async fn apply_layout(&self, version: u64) -> Result<Applied, ApplyError> {
        let history = self.layout();
        if version != history.current().version + 1 {
            return Err(LayoutError::WrongVersion { given: version, expected: history.current().version + 1 }.into());
        }
        let (next, report) = history.preview()?;
        if history.current().is_ready() {
            let agreed = self.agree_on(&next).await?;
            self.adopt(&agreed).await?;
            if agreed != next {
                return Err(ApplyError::Beaten { version });
            }
        } else {
            // Nobody holds anything yet, so nobody can be asked; two first layouts at once settle on the same of the two by merging.
            self.adopt(&next).await?;
        }
        push_now(self).await;
        Ok(Applied { version, report })
    }

    /// Applies the staged changes in a new epoch, without asking anyone: for disasters only, on one node only. What was acknowledged may be lost.
    pub async fn force_layout(&self) -> Result<Applied, ApplyError> {
        let forced = self.keeper().update(|history| {
            let (forced, report) = history.forced()?;
            *history = forced;
            Ok::<_, UpdateError>(Applied { version: history.current().version, report })
        });
        let applied = forced.await?;
        tracing::warn!(version = applied.version, "a layout was forced: what only lost nodes had is given up");
        push_now(self).await;
        Ok(applied)
    }

    /// Makes a version that was decided the newest here, unless it is already.
    async fn adopt(&self, decided: &LayoutVersion) -> Result<(), UpdateError> {
        self.keeper()
            .update(|history| {
                if history.current().version + 1 == decided.version && history.epoch() <= decided.epoch {
                    *history = history.with_version(decided.clone());
                }
                Ok(())
            })
            .await
    }

    /// Proposes `next`; gives the version that was decided, be it this one or another's.
    async fn agree_on(&self, next: &LayoutVersion) -> Result<LayoutVersion, ApplyError> {
        let before = self.layout();
        let version = next.version;
        let nodes = before.current().storage_nodes().to_vec();
        let node_count = nodes.len();
        let coordinator = Coordinator::write_if(WriteId::random(self.runtime()), QuorumSets::single(QuorumSet::majority(nodes)));
        let mut drive = Drive::new(self, version, before.epoch(), Some(encode_version(next)));
        let outcome = drive.run(coordinator).await?;
        if let Outcome::Written { .. } = outcome {
            return Ok(next.clone());
        }
        if let Outcome::PreconditionFailed { newest: Some(entry) } = &outcome
            && let Some(decided) = drive.contents.get(&entry.id).and_then(|content| decode_version(content).ok())
        {
            return Ok(decided);
        }
        // A replica that knows the version to be decided refuses with the history that has it, which is then known here as well.
        match (self.layout().version(version), outcome) {
            (Some(decided), _) => Ok(decided.clone()),
            (None, Outcome::Unreachable | Outcome::Contended) => Err(ApplyError::NoMajority { version, node_count }),
            (None, _) => Err(ApplyError::Unknown { version }),
        }
    }
}

/// Settles a version that somebody proposed and did not spread: its coordinator may have stopped half way.
pub(super) async fn finish_undecided(cluster: &Cluster) {
    let Some((version, epoch)) = cluster.keeper().ballots.lock().await.undecided() else { return };
    let history = cluster.layout();
    if history.current().version + 1 != version || history.epoch() != epoch {
        return;
    }
    let nodes = history.current().storage_nodes().to_vec();
    let mut drive = Drive::new(cluster, version, epoch, None);
    let Ok(Outcome::Value { entry: Some(entry), .. }) = drive.run(Coordinator::read(QuorumSets::single(QuorumSet::majority(nodes)))).await
    else {
        return;
    };
    let Some(decided) = drive.contents.get(&entry.id).and_then(|content| decode_version(content).ok()) else { return };
    if let Err(error) = cluster.adopt(&decided).await {
        tracing::error!(%error, version, "a decided layout version cannot be stored");
    }
}

/// Carries the messages of one coordinator.
struct Drive<'a> {
    cluster: &'a Cluster,
    version: u64,
    epoch: u64,
    own: Option<ByteBuf>,
    /// The layouts that replicas answered with, by the write they stand for.
    contents: BTreeMap<WriteId, ByteBuf>,
    /// Which write each node answered with last.
    answered: BTreeMap<NodeId, WriteId>,
    rounds_count: usize,
    deadline: Instant,
}

type Answered = (NodeId, Phase, Result<LayoutBallotAnswer, CallError>);

impl<'a> Drive<'a> {
    fn new(cluster: &'a Cluster, version: u64, epoch: u64, own: Option<ByteBuf>) -> Drive<'a> {
        let (contents, answered) = (BTreeMap::new(), BTreeMap::new());
        Drive { cluster, version, epoch, own, contents, answered, rounds_count: 0, deadline: Instant::now() + APPLY_TIMEOUT }
    }

    async fn run(&mut self, mut coordinator: Coordinator<NodeId>) -> Result<Outcome<NodeId>, ClockError> {
        let mut calls = FuturesUnordered::new();
        let mut hedge_at = self.deadline;
        let mut step = coordinator.start();
        loop {
            step = match step {
                Step::Done(outcome) => return Ok(outcome),
                Step::Test { newest, .. } => coordinator.on_test(newest.is_none()),
                Step::Tick { above, refused_rounds } => {
                    self.rounds_count += 1;
                    if APPLY_ROUNDS_MAX < self.rounds_count {
                        coordinator.on_deadline()
                    } else {
                        self.back_off(refused_rounds).await;
                        coordinator.on_tick(self.cluster.tick(above).await?)
                    }
                }
                Step::Send { phase, message, to, content } => {
                    hedge_at = Instant::now() + HEDGE_DELAY_UNKNOWN;
                    for node in to {
                        calls.push(self.ask(node, phase, message, &content));
                    }
                    Step::Wait
                }
                // The calls stay in their set while the wait for the next answer is dropped.
                Step::Wait => match timeout_at(hedge_at, calls.next()).await {
                    Ok(Some(answered)) => self.take(&mut coordinator, answered),
                    Ok(None) => coordinator.on_deadline(),
                    Err(_) if self.deadline <= Instant::now() => coordinator.on_deadline(),
                    Err(_) => {
                        hedge_at = self.deadline;
                        coordinator.on_hedge_delay()
                    }
                },
            }
        }
    }

    async fn back_off(&self, refused_rounds: u32) {
        if 0 < refused_rounds {
            let most_ms = 20u64 << refused_rounds.min(6);
            tokio::time::sleep(Duration::from_millis(self.cluster.runtime().random_u64() % most_ms)).await;
        }
    }

    fn ask(
        &self,
        node: NodeId,
        phase: Phase,
        message: register::Message,
        content: &Content<NodeId>,
    ) -> impl Future<Output = Answered> + Send + use<> {
        let content = match content {
            Content::Nothing => None,
            Content::Own => self.own.clone(),
            Content::AnsweredBy(nodes) => {
                nodes.iter().find_map(|node| self.answered.get(node)).and_then(|id| self.contents.get(id)).cloned()
            }
        };
        let request = LayoutBallot { version: self.version, epoch: self.epoch, message, content };
        let (cluster, options) = (self.cluster.clone(), CallOptions::until(self.deadline));
        async move { (node, phase, cluster.call(node, &request, options).await) }
    }

    fn take(&mut self, coordinator: &mut Coordinator<NodeId>, (node, phase, answer): Answered) -> Step<NodeId> {
        match answer {
            Ok(LayoutBallotAnswer { answer, held }) => {
                if let Some((entry, content)) = held {
                    self.answered.insert(node, entry.id);
                    self.contents.insert(entry.id, content);
                }
                coordinator.on_answer(node, phase, answer)
            }
            Err(error) => {
                tracing::debug!(%node, %error, version = self.version, "no answer to a layout ballot");
                coordinator.on_no_answer(node, phase)
            }
        }
    }
}
