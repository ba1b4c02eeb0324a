//! How long a page of a list takes between two nodes on a long path, as it is and packed.
//!
//! `cargo run --release -p garage_net --example long_path -- target/release/udp-proxy [ROUND_TRIP_MS]`
//!
//! Prints the least and the median time of one call that answers as a replica answers a LIST of 1,000 keys, beside one of a few bytes.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use garage_net::{Answer, Call, Class, Incoming, LayoutMark, NodeKey, QuicOptions, QuicTransport, Refusal, Service, Transport};
use garage_util::runtime::Runtime;
use serde::Serialize;
use tokio::time::{Instant, sleep};

const SECRET: [u8; 32] = [42; 32];
const CALLS_COUNT: usize = 30;
const KEYS_COUNT: u64 = 1_000;
const PROXY_STARTS_WITHIN: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An entry of a replica's page, as long as those of the list and with as much chance in it.
#[derive(Serialize)]
struct Item {
    key: String,
    time: u64,
    node: u64,
    step: bool,
    #[serde(with = "serde_bytes")]
    id: Vec<u8>,
    size_bytes: u64,
    etag: String,
    modified_ms: u64,
    storage_class: Option<String>,
    checksum: Option<String>,
}

fn page(runtime: &Runtime) -> Result<Bytes, Failure> {
    let item = |number: u64| {
        let mut chance = [0; 48];
        runtime.fill_random(&mut chance);
        Item {
            key: format!("list/{number:08}"),
            time: 1_700_000_000_000 + number,
            node: number % 3,
            step: false,
            id: chance[..32].to_vec(),
            size_bytes: 1024,
            etag: hex::encode(&chance[32..]),
            modified_ms: 1_700_000_000_000 + number,
            storage_class: None,
            checksum: None,
        }
    };
    Ok(rmp_serde::to_vec_named(&(0..KEYS_COUNT).map(item).collect::<Vec<_>>())?.into())
}

/// Answers `page` with a page, anything else with a word.
struct Replica(Bytes);

impl Service for Replica {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let payload = if incoming.kind == "page" { self.0.clone() } else { Bytes::from_static(b"word") };
        async move { Ok(Answer::of(payload)) }.boxed()
    }
    fn datagram(&self, _: garage_net::NodeId, _: Bytes) {}
}

fn node(runtime: &Runtime, page: &Bytes, pack_rtt_min: Duration) -> Result<QuicTransport, Failure> {
    let options = QuicOptions::node((Ipv4Addr::LOCALHOST, 0).into(), NodeKey::throw_away()?, SECRET);
    Ok(QuicTransport::bind(QuicOptions { pack_rtt_min, ..options }, runtime.clone(), Arc::new(Replica(page.clone())))?)
}

/// Ends with this value.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn proxy(program: &str, upstream: SocketAddr, round_trip_ms: f64) -> Result<(Proxy, SocketAddr), Failure> {
    // Free a moment ago.
    let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let delay_ms = (round_trip_ms / 2.0).to_string();
    let mut command = Command::new(program);
    command.args(["--listen", &address.to_string(), "--upstream", &upstream.to_string(), "--delay-ms", &delay_ms]);
    Ok((Proxy(command.stdout(Stdio::null()).spawn()?), address))
}

async fn times_ms(from: &QuicTransport, to: &QuicTransport, kind: &'static str) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::new();
    for _ in 0..CALLS_COUNT {
        let begun = Instant::now();
        let (deadline, layout) = (begun + Duration::from_secs(60), LayoutMark::default());
        let call = Call { kind, class: Class::Metadata, deadline, trace: 0, layout, payload: Bytes::new(), body: None };
        from.call(to.local_node(), call).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().ok_or("which udp-proxy program?")?;
    let round_trip_ms: f64 = arguments.next().map_or(Ok(100.0), |text| text.parse())?;
    let (runtime, _tasks) = Runtime::real();
    let page = page(&runtime)?;
    println!("a page of {} bytes, {} bytes packed", page.len(), garage_net::packing::pack(&page).map_or(page.len(), |packed| packed.len()));
    for (what, kind, pack_rtt_min) in
        [("a word", "word", Duration::MAX), ("a page as it is", "page", Duration::MAX), ("a page packed", "page", Duration::ZERO)]
    {
        let (near, far) = (node(&runtime, &page, pack_rtt_min)?, node(&runtime, &page, pack_rtt_min)?);
        let (_proxy, address) = proxy(&program, far.local_addr().ok_or("no address")?, round_trip_ms)?;
        let begun = Instant::now();
        while let Err(error) = near.connect(address, Some(far.local_node())).await {
            if PROXY_STARTS_WITHIN < begun.elapsed() {
                return Err(error.into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let times = times_ms(&near, &far, kind).await?;
        println!("{what}: least {:.1} ms, median {:.1} ms", times[0], times[times.len() / 2]);
    }
    Ok(())
}
