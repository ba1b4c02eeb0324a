//! Free ports on loopback, below those that the kernel hands out for outgoing connections.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use parking_lot::Mutex;
use rand::RngExt;

const RANGE: RangeInclusive<u16> = 10_000..=32_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port on which nobody listens, neither TCP nor UDP; given once.
pub fn free() -> u16 {
    loop {
        let port = rand::rng().random_range(RANGE);
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().insert(port) {
            return port;
        }
    }
}
