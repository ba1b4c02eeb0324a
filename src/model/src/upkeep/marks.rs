//! Marks of versions in use: being read by a slow client, or still being uploaded. Whoever would call such a version dead waits.
//!
//! A coordinator whose request takes longer than [`MARK_INTERVAL`] tells a quorum of the version's group, again and again until it ends.
//! Marks are kept in memory: one that a restart loses is renewed within the interval, and a quorum of the others has it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use garage_net::Class;
use garage_rpc::{Message, RouterBuilder, message::Access, register::WriteId};
use garage_table::{Group, Tables, group::RequestContext};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a request goes on before it marks what it uses, and how often it does so.
pub const MARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a mark holds.
pub const MARK_LIFE: Duration = Duration::from_secs(300);
/// Marks that a node keeps. When there is one more, every version counts as in use for as long as that mark would have held: nothing is
/// called dead too early, and by then 100,000 slow requests run.
pub const MARKS_MAX_COUNT: usize = 100_000;
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// These versions are in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct MarkInUse {
    ids: Vec<WriteId>,
}
impl Message for MarkInUse {
    const KIND: &'static str = "model/mark-in-use";
    const CLASS: Class = Class::Metadata;
    const ACCESS: Access = Access::Member;
    type Answer = ();
}

/// Are these versions in use?
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AreInUse {
    ids: Vec<WriteId>,
}
impl Message for AreInUse {
    const KIND: &'static str = "model/are-in-use";
    const CLASS: Class = Class::Background;
    const ACCESS: Access = Access::Member;
    type Answer = Vec<bool>;
}

/// The marks that a node keeps for others. Cheap to clone.
#[derive(Clone, Default)]
pub struct Marks(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// When each mark ends.
    ends: BTreeMap<WriteId, Instant>,
    /// When the last mark ends for which there was no room.
    unkept_end: Option<Instant>,
}

impl Marks {
    /// Answers marks and questions about them.
    pub fn register(&self, router: RouterBuilder) -> RouterBuilder {
        let (mark, ask) = (self.clone(), self.clone());
        router
            .on_plain::<MarkInUse, _>(move |_, _, message| {
                mark.renew(message.ids);
                std::future::ready(Ok(()))
            })
            .on_plain::<AreInUse, _>(move |_, _, message| {
                let answer = message.ids.iter().map(|id| ask.is_in_use(*id)).collect();
                std::future::ready(Ok(answer))
            })
    }

    fn renew(&self, ids: Vec<WriteId>) {
        let (mut kept, now) = (self.0.lock(), Instant::now());
        kept.ends.retain(|_, end| now < *end);
        for id in ids {
            if kept.ends.len() < MARKS_MAX_COUNT || kept.ends.contains_key(&id) {
                kept.ends.insert(id, now + MARK_LIFE);
            } else {
                kept.unkept_end = Some(now + MARK_LIFE);
            }
        }
    }

    fn is_in_use(&self, id: WriteId) -> bool {
        let (kept, now) = (self.0.lock(), Instant::now());
        kept.ends.get(&id).is_some_and(|end| now < *end) || kept.unkept_end.is_some_and(|end| now < end)
    }
}

/// Whether a version is in use by anyone; `None`: no quorum could tell.
pub async fn is_in_use(tables: &Tables, group: &Group, id: WriteId) -> Option<bool> {
    let context = RequestContext::within(CALL_TIMEOUT);
    let answers = tables.call_quorum(group, &AreInUse { ids: vec![id] }, context).await.ok()?;
    Some(answers.into_iter().flatten().any(|in_use| in_use))
}

/// Marks a version for as long as the guard lives, beginning after [`MARK_INTERVAL`].
pub fn mark_while_held(tables: &Tables, group: &Group, id: WriteId) -> DropGuard {
    let (over, tables, group) = (CancellationToken::new(), tables.clone(), group.clone());
    let ended = over.clone();
    tables.cluster().runtime().clone().spawn("in-use marks", async move {
        let marking = async {
            loop {
                sleep(MARK_INTERVAL).await;
                let context = RequestContext::within(CALL_TIMEOUT);
                if let Err(error) = tables.call_quorum(&group, &MarkInUse { ids: vec![id] }, context).await {
                    tracing::debug!(%error, "a version in use could not be marked; the next mark follows");
                }
            }
        };
        // Dropping a mark on its way loses nothing: its request has ended.
        tokio::select! { biased; () = ended.cancelled() => {} () = marking => {} }
    });
    over.drop_guard()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use garage_rpc::register::WriteId;
    use tokio::time::sleep;

    use super::{MARK_LIFE, MARKS_MAX_COUNT, Marks};

    #[tokio::test(start_paused = true)]
    async fn a_mark_ends_unless_it_is_renewed() {
        let (marks, id) = (Marks::default(), WriteId([1; 32]));
        assert!(!marks.is_in_use(id));
        marks.renew(vec![id]);
        sleep(MARK_LIFE - Duration::from_secs(1)).await;
        assert!(marks.is_in_use(id));
        marks.renew(vec![id]);
        sleep(MARK_LIFE - Duration::from_secs(1)).await;
        assert!(marks.is_in_use(id));
        sleep(Duration::from_secs(2)).await;
        assert!(!marks.is_in_use(id));
    }
    #[tokio::test(start_paused = true)]
    async fn with_more_marks_than_are_kept_everything_counts_as_in_use_for_a_while() {
        let id = |number: u32| WriteId(std::array::from_fn(|at| number.to_be_bytes().get(at).copied().unwrap_or(0)));
        let marks = Marks::default();
        marks.renew((0..MARKS_MAX_COUNT as u32).map(id).collect());
        assert!(!marks.is_in_use(id(u32::MAX)));
        sleep(Duration::from_secs(1)).await;
        marks.renew(vec![id(MARKS_MAX_COUNT as u32)]);
        assert!(marks.is_in_use(id(MARKS_MAX_COUNT as u32)) && marks.is_in_use(id(u32::MAX)));
        sleep(MARK_LIFE).await;
        assert!(!marks.is_in_use(id(MARKS_MAX_COUNT as u32)) && !marks.is_in_use(id(u32::MAX)));
    }
}
