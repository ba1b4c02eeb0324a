//! Where nodes live and what lies between them: an address each, and a proxy in front of it that delays, loses and cuts.
//!
//! With namespaces each node has a network of its own, and its link can be set down: the kernel then tells it so, unlike a proxy that is silent.
//! Namespaces are made in the network that this program runs in, which must be private to it (`unshare --net --mount`) and ends with it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use super::{Failure, Options};
use crate::proxy::{Gate, Limits, Loss, UdpProxy, Way};

/// One way between two nodes; there and back it is 50 ms.
const DELAY: Duration = Duration::from_millis(25);

/// Where one node lives.
pub(super) struct Place {
    /// It listens here.
    pub ip: IpAddr,
    /// Others reach it here.
    pub public: SocketAddr,
    namespace: Option<String>,
    link: String,
    proxy: UdpProxy,
}

/// What happens to packets of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing reaches it and nothing leaves it.
    Cut,
    /// Nothing reaches it.
    Deaf,
    /// Nothing leaves it.
    Mute,
    /// Three in ten are lost.
    Loss,
}

impl Place {
    pub(super) fn new(options: &Options, index: usize) -> Result<Place, Failure> {
        let number = index as u8 + 1;
        let (host, ip, namespace) = if options.namespaces {
            (Ipv4Addr::new(10, 213, number, 1), Ipv4Addr::new(10, 213, number, 2), Some(format!("garage-chaos-{number}")))
        } else {
            (Ipv4Addr::new(127, 77, 1, number), Ipv4Addr::new(127, 77, 0, number), None)
        };
        let link = format!("chaos{number}");
        if let Some(namespace) = &namespace {
            make_namespace(namespace, &link, host, ip)?;
        }
        let (public, upstream) = (SocketAddr::from((host, options.base_port)), SocketAddr::from((ip, options.base_port)));
        let gate = Gate::new(Loss::default(), options.seed + index as u64);
        let proxy = UdpProxy::start(public, upstream, DELAY, gate, Limits::default())?;
        Ok(Place { ip: ip.into(), public, namespace, link, proxy })
    }

    /// A command that runs where the node lives.
    pub(super) fn command(&self, program: &std::path::Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// Whether its link can be set down.
    pub(super) fn has_link(&self) -> bool {
        self.namespace.is_some()
    }

    /// Sets its link up or down, for nodes and clients.
    pub(super) fn set_link(&self, up: bool) -> Result<(), Failure> {
        ip(&["link", "set", &self.link, if up { "up" } else { "down" }])
    }
}

/// Brings trouble between a node and those others, or ends it.
///
/// Who of two nodes dialled the other decides through whose proxy they talk, so both proxies are told.
pub(super) fn trouble(places: &[&Place], index: usize, others: &[usize], trouble: Option<Trouble>, seed: u64) -> Result<(), Failure> {
    let gate = |lets_through: bool| -> Result<Option<Gate>, Failure> {
        let loss = if trouble == Some(Trouble::Loss) { Loss::percent(30.0)? } else { Loss::default() };
        let mut gate = Gate::new(loss, seed);
        gate.set_cut(!lets_through && trouble != Some(Trouble::Loss));
        Ok(trouble.is_some().then_some(gate))
    };
    let (to_it, from_it) = (trouble == Some(Trouble::Mute), trouble == Some(Trouble::Deaf));
    let place = places[index];
    for other in others.iter().filter(|other| **other != index).map(|other| places[*other]) {
        place.proxy.set_way(other.ip, Way::In, gate(to_it)?);
        place.proxy.set_way(other.ip, Way::Out, gate(from_it)?);
        other.proxy.set_way(place.ip, Way::In, gate(from_it)?);
        other.proxy.set_way(place.ip, Way::Out, gate(to_it)?);
    }
    Ok(())
}

/// Prepares the network of this program, and hides the names of its namespaces from others.
pub(super) fn prepare() -> Result<(), Failure> {
    std::fs::create_dir_all("/run/netns")?;
    command("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"])?;
    ip(&["link", "set", "lo", "up"])
}

fn make_namespace(namespace: &str, link: &str, host: Ipv4Addr, node: Ipv4Addr) -> Result<(), Failure> {
    let peer = format!("{link}n");
    ip(&["netns", "add", namespace])?;
    ip(&["link", "add", link, "type", "veth", "peer", "name", &peer])?;
    ip(&["link", "set", &peer, "netns", namespace])?;
    ip(&["addr", "add", &format!("{host}/30"), "dev", link])?;
    ip(&["link", "set", link, "up"])?;
    ip(&["-n", namespace, "addr", "add", &format!("{node}/30"), "dev", &peer])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "link", "set", &peer, "up"])?;
    ip(&["-n", namespace, "route", "add", "default", "via", &host.to_string()])
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    command("ip", arguments)
}

fn command(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())))
}
