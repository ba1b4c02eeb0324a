//! Whom a read asks, and when: the nearest first, the next after a hedge delay or at once on an error. Pure.
//!
//! Invariants:
//! - each node is asked once;
//! - every delay is waited for once: a node whose delay passed does not make a third node be asked.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// What the shell does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<N> {
    /// Ask this node now.
    Ask(N),
    /// Wait for an answer, at most until then.
    Wait {
        /// The next hedge, or the deadline.
        until: Instant,
    },
    /// Nobody is left to ask or to wait for, or the deadline passed.
    Exhausted,
}

/// One read as its coordinator sees it.
#[derive(Debug)]
pub struct HedgedRead<N> {
    candidates: VecDeque<N>,
    /// Asked, not answered; with the moment at which the next one is asked because of it.
    waiting: Vec<(N, Option<Instant>)>,
    to_ask_count: usize,
    deadline: Instant,
}

impl<N: Copy + PartialEq> HedgedRead<N> {
    /// A read that asks the first `first_count` of `candidates` at once.
    pub fn new(candidates: Vec<N>, first_count: usize, deadline: Instant) -> HedgedRead<N> {
        HedgedRead { candidates: candidates.into(), waiting: Vec::new(), to_ask_count: first_count, deadline }
    }

    /// What to do now; an asked node is told by [`HedgedRead::asked`].
    pub fn next(&mut self, now: Instant) -> Next<N> {
        if self.deadline <= now {
            return Next::Exhausted;
        }
        for (_, hedge_at) in &mut self.waiting {
            if hedge_at.is_some_and(|at| at <= now) {
                *hedge_at = None;
                self.to_ask_count += 1;
            }
        }
        if 0 < self.to_ask_count
            && let Some(node) = self.candidates.pop_front()
        {
            self.to_ask_count -= 1;
            return Next::Ask(node);
        }
        if self.waiting.is_empty() {
            return Next::Exhausted;
        }
        // Without candidates a hedge has nobody to ask.
        let hedges = self.waiting.iter().filter_map(|(_, at)| *at).filter(|_| !self.candidates.is_empty());
        Next::Wait { until: hedges.min().unwrap_or(self.deadline).min(self.deadline) }
    }

    /// A node was asked; the next one follows after `hedge_delay` without its answer.
    pub fn asked(&mut self, node: N, now: Instant, hedge_delay: Duration) {
        self.waiting.push((node, Some(now + hedge_delay)));
    }

    /// A node answered; one that failed, or whose answer did not settle the read, is replaced at once.
    pub fn answered(&mut self, node: N, ask_another: bool) {
        let hedged = self.waiting.iter().position(|(asked, _)| *asked == node).map(|index| self.waiting.swap_remove(index).1.is_none());
        // One that was hedged already has its replacement under way.
        if ask_another && hedged == Some(false) {
            self.to_ask_count += 1;
        }
    }

    /// The read needs one more answer although all came well, for instance because they differ.
    pub fn ask_another(&mut self) {
        self.to_ask_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{HedgedRead, Next};

    const MS: Duration = Duration::from_millis(1);

    fn asked(read: &mut HedgedRead<u8>, now: Instant) -> Vec<u8> {
        let mut nodes = Vec::new();
        while let Next::Ask(node) = read.next(now) {
            read.asked(node, now, 30 * MS);
            nodes.push(node);
        }
        nodes
    }

    #[test]
    fn an_error_asks_the_next_at_once_and_silence_after_the_delay() {
        let start = Instant::now();
        let mut read = HedgedRead::new(vec![1, 2, 3, 4], 2, start + 1000 * MS);
        assert_eq!(asked(&mut read, start), [1, 2]);
        read.answered(1, true);
        assert_eq!(asked(&mut read, start + MS), [3]);
        assert_eq!(read.next(start + 2 * MS), Next::Wait { until: start + 30 * MS });
        assert_eq!(asked(&mut read, start + 30 * MS), [4], "node 2 is silent");
        assert_eq!(read.next(start + 31 * MS), Next::Wait { until: start + 1000 * MS }, "nobody is left to hedge with");
    }

    #[test]
    fn a_late_error_of_a_hedged_node_asks_nobody_twice() {
        let start = Instant::now();
        let mut read = HedgedRead::new(vec![1, 2, 3], 1, start + 1000 * MS);
        assert_eq!(asked(&mut read, start), [1]);
        assert_eq!(asked(&mut read, start + 30 * MS), [2]);
        read.answered(1, true);
        assert_eq!(asked(&mut read, start + 31 * MS), [0u8; 0]);
        read.answered(2, true);
        assert_eq!(asked(&mut read, start + 32 * MS), [3]);
        read.answered(3, true);
        assert_eq!(read.next(start + 33 * MS), Next::Exhausted);
    }
}
