//! The same delay for TCP: each direction of a connection is read, held and written on.
//!
//! Setting up a connection is not delayed, the bytes on it are; so it suits protocols that keep their connections.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks held in one direction; then the sender is slowed down by TCP itself.
const CHUNKS_MAX: usize = 2_048;
/// Connections at once; further ones are closed.
const CONNECTIONS_MAX: usize = 256;

/// A running proxy; it ends with its process.
pub struct TcpProxy {
    address: SocketAddr,
}

impl TcpProxy {
    /// Starts to pass bytes between `listen` and `upstream`, each held for `delay`.
    pub fn start(listen: SocketAddr, upstream: SocketAddr, delay: Duration) -> io::Result<TcpProxy> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        thread::Builder::new().name("tcp-accept".into()).spawn(move || accept_all(&listener, upstream, delay))?;
        Ok(TcpProxy { address })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn accept_all(listener: &TcpListener, upstream: SocketAddr, delay: Duration) {
    // Counts directions: two a connection.
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        if 2 * CONNECTIONS_MAX <= open.load(Ordering::Relaxed) {
            continue;
        }
        if let Err(error) = join(client, upstream, delay, &open) {
            eprintln!("udp-proxy: cannot pass a connection on to {upstream}: {error}");
        }
    }
}

/// Connects a client with the upstream in both directions.
fn join(client: TcpStream, upstream: SocketAddr, delay: Duration, open: &Arc<AtomicUsize>) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pass(client.try_clone()?, server.try_clone()?, delay, open)?;
    pass(server, client, delay, open)
}

/// Passes bytes in one direction, on two threads: one reads and stamps, one waits and writes.
fn pass(from: TcpStream, to: TcpStream, delay: Duration, open: &Arc<AtomicUsize>) -> io::Result<()> {
    let (chunks, queue) = sync_channel(CHUNKS_MAX);
    let open = open.clone();
    open.fetch_add(1, Ordering::Relaxed);
    thread::Builder::new().name("tcp-write".into()).spawn(move || {
        write_all(to, &queue);
        open.fetch_sub(1, Ordering::Relaxed);
    })?;
    thread::Builder::new().name("tcp-read".into()).spawn(move || read_all(from, delay, &chunks))?;
    Ok(())
}

fn read_all(mut from: TcpStream, delay: Duration, chunks: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(len_bytes) => {
                if chunks.send((Instant::now() + delay, buffer[..len_bytes].to_vec())).is_err() {
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn write_all(mut to: TcpStream, queue: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, chunk)) = queue.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy, and the listener that it leads to.
    fn proxy(delay: Duration) -> (TcpProxy, TcpListener) {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpProxy::start("127.0.0.1:0".parse().unwrap(), upstream.local_addr().unwrap(), delay).unwrap();
        (proxy, upstream)
    }

    #[test]
    fn bytes_arrive_whole_and_the_end_of_one_direction_leaves_the_other_open() {
        let (proxy, upstream) = proxy(Duration::ZERO);
        let sent: Vec<u8> = (0..1 << 20).map(|index: u32| (index % 251) as u8).collect();
        let expected = sent.clone();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let writer = thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        let (mut server, _) = upstream.accept().unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{} of {} bytes arrived", received.len(), expected.len());
        server.write_all(b"thanks").unwrap();
        drop(server);
        assert_eq!(writer.join().unwrap(), b"thanks");
    }

    #[test]
    fn there_and_back_takes_at_least_two_delays() {
        let delay = Duration::from_millis(30);
        let (proxy, upstream) = proxy(delay);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let started = Instant::now();
        client.write_all(b"x").unwrap();
        let (mut server, _) = upstream.accept().unwrap();
        let mut buffer = [0];
        server.read_exact(&mut buffer).unwrap();
        server.write_all(&buffer).unwrap();
        client.read_exact(&mut buffer).unwrap();
        assert!(2 * delay <= started.elapsed(), "{:?}", started.elapsed());
    }
}
