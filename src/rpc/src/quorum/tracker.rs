//! Counts the answers of one replicated operation until it has its quorum in every set, or cannot get it any more. Pure.
//!
//! Invariants:
//! - a node counts once, however often it answers;
//! - the operation fails as soon as one set's quorum is out of reach, not when the deadline passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Display},
};

use tokio::time::Instant;

use crate::register::{QuorumSet, QuorumSets};

/// A quorum was not reached.
#[derive(Debug, Clone)]
pub struct QuorumError<N, E> {
    /// Answers needed in the set that fell short.
    pub needed: usize,
    /// Answers got in that set.
    pub got: usize,
    /// Nodes in that set.
    pub of: usize,
    /// Who failed, and why.
    pub errors: Vec<(N, E)>,
    /// Who did not answer before the deadline.
    pub silent: Vec<N>,
}

impl<N: Debug, E: Display> Display for QuorumError<N, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} nodes answered, {} are needed", self.got, self.of, self.needed)?;
        for (node, error) in &self.errors {
            write!(f, "; {node:?}: {error}")?;
        }
        for node in &self.silent {
            write!(f, "; {node:?}: no answer in time")?;
        }
        Ok(())
    }
}
impl<N: Debug, E: Debug + Display> std::error::Error for QuorumError<N, E> {}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for answers until then.
    Wait {
        /// The deadline.
        until: Instant,
    },
    /// Every set has its quorum.
    Reached,
    /// Some set cannot reach its quorum any more.
    Failed,
}

/// One replicated operation as its coordinator sees it.
#[derive(Debug)]
pub struct QuorumWrite<N, E> {
    sets: QuorumSets<N>,
    waiting: BTreeSet<N>,
    acked: BTreeSet<N>,
    errors: BTreeMap<N, E>,
    deadline: Instant,
}

impl<N: Copy + Ord, E> QuorumWrite<N, E> {
    /// An operation that was sent to every node of `sets`.
    pub fn new(sets: QuorumSets<N>, deadline: Instant) -> QuorumWrite<N, E> {
        let waiting = sets.nodes().into_iter().collect();
        QuorumWrite { sets, waiting, acked: BTreeSet::new(), errors: BTreeMap::new(), deadline }
    }

    /// Takes an answer; one from a node that answered already, or was never asked, changes nothing.
    pub fn on_answer(&mut self, from: N, answer: Result<(), E>) {
        if !self.waiting.remove(&from) {
            return;
        }
        match answer {
            Ok(()) => drop(self.acked.insert(from)),
            Err(error) => drop(self.errors.insert(from, error)),
        }
    }

    /// Where the operation stands.
    pub fn verdict(&self, now: Instant) -> Verdict {
        if self.sets.has_quorum(&self.acked) {
            return Verdict::Reached;
        }
        // Fail once a quorum is out of reach: waiting for the deadline would only hold the client.
        let is_lost = self.sets.is_blocked(&self.errors.keys().copied().collect());
        if is_lost || self.deadline <= now { Verdict::Failed } else { Verdict::Wait { until: self.deadline } }
    }

    /// Why it failed: the numbers of the set that is furthest from its quorum.
    pub fn into_error(self) -> QuorumError<N, E> {
        let acked_in = |set: &QuorumSet<N>| set.nodes().iter().filter(|node| self.acked.contains(node)).count();
        let worst = self.sets.sets().iter().max_by_key(|set| set.quorum_count().saturating_sub(acked_in(set)));
        let (needed, got, of) = worst.map_or((0, 0, 0), |set| (set.quorum_count(), acked_in(set), set.nodes().len()));
        QuorumError { needed, got, of, errors: self.errors.into_iter().collect(), silent: self.waiting.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::{QuorumSet, QuorumSets, QuorumWrite, Verdict};

    fn two_versions() -> QuorumSets<u8> {
        QuorumSets::new(vec![QuorumSet::majority([1, 2, 3]), QuorumSet::majority([3, 4, 5])])
    }

    #[test]
    fn a_write_needs_its_quorum_in_every_live_version() {
        let now = Instant::now();
        let mut write = QuorumWrite::<u8, &str>::new(two_versions(), now + Duration::from_secs(1));
        write.on_answer(1, Ok(()));
        write.on_answer(2, Ok(()));
        assert!(matches!(write.verdict(now), Verdict::Wait { .. }), "the second version has no copy yet");
        write.on_answer(3, Ok(()));
        write.on_answer(3, Ok(()));
        assert!(matches!(write.verdict(now), Verdict::Wait { .. }), "a repeated answer is one copy");
        write.on_answer(5, Ok(()));
        assert_eq!(write.verdict(now), Verdict::Reached);
    }

    #[test]
    fn a_write_fails_once_a_quorum_is_out_of_reach() {
        let now = Instant::now();
        let mut write = QuorumWrite::new(two_versions(), now + Duration::from_secs(1));
        write.on_answer(4, Err("disk full"));
        assert!(matches!(write.verdict(now), Verdict::Wait { .. }));
        write.on_answer(5, Err("gone"));
        assert_eq!(write.verdict(now), Verdict::Failed);
        let error = write.into_error();
        assert_eq!((error.needed, error.got, error.of, error.errors.len()), (2, 0, 3, 2));
    }

    proptest! {
        #[test]
        fn a_verdict_once_given_never_changes(answers in prop::collection::vec((1u8..=5, any::<bool>()), 0..20)) {
            let now = Instant::now();
            let mut write = QuorumWrite::new(two_versions(), now + Duration::from_secs(1));
            let mut given = None;
            for (from, good) in answers {
                write.on_answer(from, if good { Ok(()) } else { Err(()) });
                let verdict = write.verdict(now);
                match given {
                    Some(earlier) => prop_assert_eq!(verdict, earlier),
                    None if !matches!(verdict, Verdict::Wait { .. }) => given = Some(verdict),
                    None => {}
                }
            }
        }
    }
}
