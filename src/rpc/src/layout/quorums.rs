//! How many answers are enough, by replication factor and consistency mode.
//!
//! Invariants: a consistent read quorum and a consistent write quorum of one replica set share a node; so do two majorities.

use garage_util::config::ConsistencyMode;

/// How many of `replication_factor` replicas a plain read waits for.
pub fn read_quorum(replication_factor: usize, mode: ConsistencyMode) -> usize {
    match mode {
        ConsistencyMode::Consistent => replication_factor.div_ceil(2),
        ConsistencyMode::Degraded | ConsistencyMode::Dangerous => 1,
    }
}

/// How many of `replication_factor` replicas a plain write waits for.
pub fn write_quorum(replication_factor: usize, mode: ConsistencyMode) -> usize {
    match mode {
        ConsistencyMode::Consistent | ConsistencyMode::Degraded => replication_factor + 1 - replication_factor.div_ceil(2),
        ConsistencyMode::Dangerous => 1,
    }
}

/// How many of `replica_count` replicas are more than half: what rounds, control rows and the layout itself always wait for.
pub fn majority(replica_count: usize) -> usize {
    replica_count / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::{ConsistencyMode, majority, read_quorum, write_quorum};

    #[test]
    fn quorums_are_those_of_the_published_table() {
        let table = [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 3), (5, 3, 3), (6, 3, 4), (7, 4, 4)];
        for (replication_factor, read, write) in table {
            assert_eq!(read_quorum(replication_factor, ConsistencyMode::Consistent), read);
            assert_eq!(write_quorum(replication_factor, ConsistencyMode::Consistent), write);
            assert_eq!(write_quorum(replication_factor, ConsistencyMode::Degraded), write);
            assert_eq!(read_quorum(replication_factor, ConsistencyMode::Degraded), 1);
            assert_eq!(read_quorum(replication_factor, ConsistencyMode::Dangerous), 1);
            assert_eq!(write_quorum(replication_factor, ConsistencyMode::Dangerous), 1);
        }
    }

    #[test]
    fn quorums_that_must_meet_do_meet() {
        for count in 1..64 {
            assert!(count < read_quorum(count, ConsistencyMode::Consistent) + write_quorum(count, ConsistencyMode::Consistent));
            assert!(count < 2 * majority(count) && majority(count) <= count);
        }
    }
}
