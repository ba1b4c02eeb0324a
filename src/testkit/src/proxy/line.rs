//! Packets on their way: each leaves exactly one delay after it came.
//!
//! The delay is the same for all, so a plain queue keeps them in the order of departure, and its head is all a thread has to wait for. A thread
//! of its own, not a timer of the runtime, because those wake in steps of a millisecond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// A packet with what sends it on.
struct Departure<T> {
    due: Instant,
    len_bytes: usize,
    packet: T,
}

/// The entrance of a line. Clones share one line; it ends when the last of them is dropped.
pub(super) struct Line<T> {
    delay: Duration,
    bytes_max: usize,
    queued_bytes: Arc<AtomicUsize>,
    departures: SyncSender<Departure<T>>,
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        let Line { delay, bytes_max, queued_bytes, departures } = self;
        Line { delay: *delay, bytes_max: *bytes_max, queued_bytes: queued_bytes.clone(), departures: departures.clone() }
    }
}

impl<T: Send + 'static> Line<T> {
    /// A line that holds each packet for `delay` and then hands it to `send`; no more than `packets_max` and `bytes_max` are on it.
    pub(super) fn start(
        delay: Duration,
        packets_max: usize,
        bytes_max: usize,
        send: impl FnMut(T) + Send + 'static,
    ) -> std::io::Result<Line<T>> {
        let (departures, queue) = sync_channel(packets_max);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let counter = queued_bytes.clone();
        thread::Builder::new().name("delay-line".into()).spawn(move || run(&queue, &counter, send))?;
        Ok(Line { delay, bytes_max, queued_bytes, departures })
    }

    /// Puts a packet that came at `now` on its way; `false`: it was dropped because the line is full.
    pub(super) fn push(&self, now: Instant, len_bytes: usize, packet: T) -> bool {
        let queued = self.queued_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let departure = Departure { due: now + self.delay, len_bytes, packet };
        let fits = queued + len_bytes <= self.bytes_max && self.departures.try_send(departure).is_ok();
        if !fits {
            self.queued_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
        }
        fits
    }
}

fn run<T>(queue: &Receiver<Departure<T>>, queued_bytes: &AtomicUsize, mut send: impl FnMut(T)) {
    while let Ok(departure) = queue.recv() {
        thread::sleep(departure.due.saturating_duration_since(Instant::now()));
        queued_bytes.fetch_sub(departure.len_bytes, Ordering::Relaxed);
        send(departure.packet);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    #[test]
    fn packets_leave_in_order_and_never_before_their_delay() {
        let delay = Duration::from_millis(20);
        let (sent, received) = channel();
        let line = Line::start(delay, 1_000, 1_000, move |packet: (usize, Instant)| sent.send((packet, Instant::now())).unwrap()).unwrap();
        for index in 0..100 {
            let now = Instant::now();
            assert!(line.push(now, 1, (index, now)));
        }
        for expected in 0..100 {
            let ((index, came), left) = received.recv().unwrap();
            assert_eq!(index, expected);
            assert!(came + delay <= left, "packet {index} left {:?} after it came", left - came);
        }
    }

    #[test]
    fn a_full_line_drops_what_comes_and_takes_more_once_it_has_room() {
        let (release, held) = sync_channel::<()>(0);
        let (sent, received) = channel();
        let line = Line::start(Duration::ZERO, 8, 100, move |packet: u32| {
            held.recv().unwrap();
            sent.send(packet).unwrap();
        })
        .unwrap();
        assert!(!line.push(Instant::now(), 101, 0), "more bytes than the line holds");
        assert!(line.push(Instant::now(), 1, 1));
        // The thread holds one and eight wait behind it; whatever the thread has taken so far, twelve more cannot all fit.
        let taken: Vec<u32> = (2..14).filter(|packet| line.push(Instant::now(), 1, *packet)).collect();
        assert!((7..=8).contains(&taken.len()), "{taken:?}");
        for expected in std::iter::once(&1).chain(&taken) {
            release.send(()).unwrap();
            assert_eq!(received.recv().unwrap(), *expected);
        }
        assert!(line.push(Instant::now(), 1, 99));
        release.send(()).unwrap();
        assert_eq!(received.recv().unwrap(), 99);
    }
}
