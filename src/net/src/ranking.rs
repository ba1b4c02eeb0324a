//! Which of two connections between the same two nodes survives. Pure, and both ends decide alike.
//!
//! Invariants:
//! - both ends see the same marks for a connection, so that they keep the same one whatever order they learn of the two in;
//! - a connection to an earlier run of the peer never wins against one to a later run.

use crate::types::NodeId;

/// What tells a connection from another of the same pair. Both ends know all of it after the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Which end dialled.
    pub dialler: NodeId,
    /// The other end.
    pub listener: NodeId,
    /// Counts the dials of the dialler's run.
    pub dial_number: u64,
    /// A random number of the peer's run of this process; it tells this side that the peer restarted.
    pub peer_run: u64,
}

impl Mark {
    fn dialled_by_smaller(&self) -> bool {
        self.dialler < self.listener
    }

    /// Whether this connection, just made, replaces `other` of the same pair.
    pub fn replaces(&self, other: &Mark) -> bool {
        // Another run: the earlier one cannot finish a handshake any more, so the one that just did is the later.
        if self.peer_run != other.peer_run {
            return true;
        }
        // Dialled at once from both ends: the one dialled by the smaller id stays. Twice from one end: the later dial stays.
        (self.dialled_by_smaller(), self.dial_number) > (other.dialled_by_smaller(), other.dial_number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::Mark;
    use crate::types::NodeId;

    proptest! {
        #[test]
        fn two_connections_leave_the_same_one_whatever_their_order(ids: ([u8; 32], [u8; 32]), numbers: (u64, u64), swapped: (bool, bool)) {
            let mark = |swap: bool, dial_number| {
                let (dialler, listener) = if swap { (ids.1, ids.0) } else { ids };
                Mark { dialler: NodeId(dialler), listener: NodeId(listener), dial_number, peer_run: 1 }
            };
            let (one, two) = (mark(swapped.0, numbers.0), mark(swapped.1, numbers.1));
            if one != two {
                prop_assert_eq!(one.replaces(&two), !two.replaces(&one));
            }
        }
    }

    #[test]
    fn the_dial_of_the_smaller_id_stays() {
        let (small, large) = (NodeId([1; 32]), NodeId([2; 32]));
        let by_small = Mark { dialler: small, listener: large, dial_number: 0, peer_run: 1 };
        let by_large = Mark { dialler: large, listener: small, dial_number: 9, peer_run: 1 };
        assert!(by_small.replaces(&by_large) && !by_large.replaces(&by_small));
    }

    #[test]
    fn a_restarted_peer_replaces_its_former_connection_even_if_it_has_the_larger_id() {
        let (small, large) = (NodeId([1; 32]), NodeId([2; 32]));
        let before = Mark { dialler: small, listener: large, dial_number: 4, peer_run: 1 };
        assert!(Mark { dialler: large, listener: small, dial_number: 0, peer_run: 2 }.replaces(&before));
    }
}
