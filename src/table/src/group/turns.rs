//! Rounds on one register through one node, one after the other: rivals of one node wait in line instead of refusing each other, and most
//! of those who waited are answered from what the one before them saw.
//!
//! Invariants:
//! - one round at a time on a register through this node; who waits is served in the order of arrival;
//! - what a round saw answers only those who stood in line before it began, so that what it saw was so while they waited;
//! - a register is remembered only while someone holds or awaits its turn.
//!
//! Not here: rivals through other nodes (the register's rules), plain writes (which need no round).

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};

use crate::{
    key::{GroupKey, SortKey, TableId},
    message::HeldRow,
};

type Name = (TableId, GroupKey, SortKey);

/// The lines of all registers on which rounds go on. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<BTreeMap<Name, Line>>>);

struct Line {
    /// How many ever stood in this line.
    arrived_count: u64,
    /// How many stand in it now, the one whose turn it is included.
    standing_count: u64,
    turn: Arc<tokio::sync::Mutex<Seen>>,
}

/// What the last round found the register to be.
#[derive(Default)]
struct Seen(Option<SeenRow>);

struct SeenRow {
    /// How many had arrived when the round began.
    arrived_before: u64,
    row: Option<HeldRow>,
}

/// A place in the line; given up when dropped.
struct Place {
    turns: Turns,
    name: Name,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.turns.0.lock();
        if let Some(line) = lines.get_mut(&self.name) {
            line.standing_count -= 1;
            if line.standing_count == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

/// The turn of one round; ends when dropped.
pub(super) struct Turn {
    /// Before the place, so that the next in line finds the line still there.
    seen: OwnedMutexGuard<Seen>,
    arrived_before: u64,
    /// Stood in line before the last round began.
    knows: Option<Option<HeldRow>>,
    _place: Place,
}

impl Turns {
    /// Waits for this register's turn; `None` when it does not come before the deadline.
    pub(super) async fn take(&self, name: Name, deadline: Instant) -> Option<Turn> {
        let (number, turn) = {
            let mut lines = self.0.lock();
            let line = lines.entry(name.clone()).or_insert_with(|| Line { arrived_count: 0, standing_count: 0, turn: Arc::default() });
            line.arrived_count += 1;
            line.standing_count += 1;
            (line.arrived_count, line.turn.clone())
        };
        let place = Place { turns: self.clone(), name };
        let mut seen = timeout_at(deadline, turn.lock_owned()).await.ok()?;
        let knows = seen.0.as_ref().filter(|seen| number <= seen.arrived_before).map(|seen| seen.row.clone());
        if knows.is_none() {
            // A round begins: until it ends nothing is known.
            seen.0 = None;
        }
        let arrived_before = self.0.lock().get(&place.name).map_or(number, |line| line.arrived_count);
        Some(Turn { seen, arrived_before, knows, _place: place })
    }
}

impl Turns {
    /// This register's turn, if nobody stands in line for it.
    pub(super) fn take_if_free(&self, name: Name) -> Option<Turn> {
        let turn: Arc<tokio::sync::Mutex<Seen>> = Arc::default();
        let seen = turn.clone().try_lock_owned().ok()?;
        let mut lines = self.0.lock();
        if lines.contains_key(&name) {
            return None;
        }
        lines.insert(name.clone(), Line { arrived_count: 1, standing_count: 1, turn });
        let place = Place { turns: self.clone(), name };
        Some(Turn { seen, arrived_before: 1, knows: None, _place: place })
    }
}

impl Turn {
    /// The row as it was at some moment since this one came to stand in line, if the round before it tells.
    pub(super) fn known(&self) -> Option<Option<&HeldRow>> {
        self.knows.as_ref().map(Option::as_ref)
    }

    /// A round begins, although something was known: its condition holds for what was seen, or it has none that could be tested.
    pub(super) fn begin_round(&mut self) {
        self.seen.0 = None;
    }

    /// The round that had this turn found the register to be `row`, at some moment of the round.
    pub(super) fn saw(&mut self, row: Option<HeldRow>) {
        self.seen.0 = Some(SeenRow { arrived_before: self.arrived_before, row });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::Instant;

    use super::{Name, Turns};
    use crate::{
        key::{GroupKey, SortKey, TableId},
        message::HeldRow,
    };

    fn name(text: &str) -> Name {
        (TableId(1), GroupKey(b"group".to_vec()), SortKey(text.as_bytes().to_vec()))
    }
    fn row(text: &str) -> HeldRow {
        HeldRow { entry: None, content: serde_bytes::ByteBuf::from(text) }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_tell_only_those_who_stood_in_line() {
        let (turns, deadline) = (Turns::default(), Instant::now() + Duration::from_secs(9));
        let take = |text: &str| turns.take(name(text), deadline);
        let mut first = take("a").now_or_never().unwrap().unwrap();
        assert!(first.known().is_none(), "nobody was there before");
        let (mut second, mut third) = (Box::pin(take("a")), Box::pin(take("a")));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert!(take("b").now_or_never().unwrap().is_some(), "another register has a line of its own");
        first.saw(Some(row("one")));
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "it is not its turn");
        let mut second = second.now_or_never().unwrap().unwrap();
        assert!(second.known().is_none(), "the first round began before the second came");
        let mut fourth = Box::pin(take("a"));
        assert!(fourth.as_mut().now_or_never().is_none());
        second.saw(None);
        drop(second);
        let mut third = third.now_or_never().unwrap().unwrap();
        assert_eq!(third.known(), Some(None), "the second round began after the third came");
        third.begin_round();
        drop(third);
        assert!(fourth.now_or_never().unwrap().unwrap().known().is_none(), "a round that tells nothing leaves nothing known");
        assert!(turns.0.lock().is_empty(), "lines that nobody stands in are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_answered_from_what_was_seen_leaves_it_to_the_next() {
        let (turns, deadline) = (Turns::default(), Instant::now() + Duration::from_secs(9));
        let take = || turns.take(name("a"), deadline);
        let mut first = take().now_or_never().unwrap().unwrap();
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(take())).collect();
        waiting.iter_mut().for_each(|turn| assert!(turn.as_mut().now_or_never().is_none()));
        first.saw(Some(row("one")));
        drop(first);
        let mut waiting = waiting.into_iter();
        let mut second = waiting.next().unwrap().now_or_never().unwrap().unwrap();
        second.saw(Some(row("two")));
        drop(second);
        for turn in waiting {
            let turn = turn.now_or_never().unwrap().unwrap();
            assert_eq!(turn.known(), Some(Some(&row("two"))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_turn_is_taken_at_once_and_a_taken_one_is_not() {
        let (turns, deadline) = (Turns::default(), Instant::now() + Duration::from_secs(9));
        let mut first = turns.take_if_free(name("a")).unwrap();
        assert!(turns.take_if_free(name("a")).is_none() && turns.take_if_free(name("b")).is_some());
        let mut second = Box::pin(turns.take(name("a"), deadline));
        assert!(second.as_mut().now_or_never().is_none());
        first.saw(Some(row("one")));
        drop(first);
        assert!(second.now_or_never().unwrap().unwrap().known().is_none(), "the first round began before the second came");
        assert!(turns.take_if_free(name("a")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_in_time_is_given_up() {
        let turns = Turns::default();
        let held = turns.take(name("a"), Instant::now() + Duration::from_secs(1)).await;
        assert!(turns.take(name("a"), Instant::now() + Duration::from_secs(1)).await.is_none());
        drop(held);
        assert!(turns.take(name("a"), Instant::now() + Duration::from_secs(1)).await.is_some());
    }
}
