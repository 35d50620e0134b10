//! Network namespaces for tests: nameless, joined by virtual cables, gone with the value that stands for
//! them.
//!
//! Also used by the sidecar's tests (`#[path]`). Needs root.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod reach;

use std::{
    fs::{self, File},
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    thread,
};

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoVeth},
};

/// A network namespace with its loopback interface up. The kernel removes it, with all its interfaces and
/// rules, when this is dropped and no socket of it is left.
pub(crate) struct Netns(File);

impl Netns {
    /// A new, empty namespace.
    pub(crate) fn new() -> Self {
        let namespace = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace takes root");
            // Addresses are usable at once, without a second of duplicate detection.
            for which in ["all", "default"] {
                write(&format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0");
            }
            File::open("/proc/thread-self/ns/net").expect("the thread's namespace")
        });
        let namespace = Self(namespace.join().expect("the thread of the namespace"));
        namespace.netlink(async |netlink| {
            netlink.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.expect("lo up");
        });
        namespace
    }

    /// Runs `work` on a thread inside the namespace, with `user` as the owner of the files and sockets that
    /// it opens.
    pub(crate) fn run_as<T: Send>(&self, user: u32, work: impl FnOnce() -> T + Send) -> T {
        self.run(move || {
            nix::unistd::setfsuid(user.into());
            work()
        })
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` as [`Self::run`] does, on a runtime of its own.
    pub(crate) fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work())
        })
    }

    /// Joins two namespaces by a cable, its ends named `here` and `there` and up.
    pub(crate) fn cable(&self, here: &str, peer: &Self, there: &str) {
        self.netlink(async |netlink| {
            let far_end = LinkUnspec::new_with_name(there).setns_by_fd(peer.0.as_raw_fd()).build();
            let far_end = InfoData::Veth(InfoVeth::Peer(far_end));
            let cable = LinkVeth::new(here, there).set_info_data(far_end).up().build();
            netlink.link().add(cable).execute().await.expect("a cable");
        });
        peer.netlink(async |netlink| {
            let end = index(&netlink, there).await;
            netlink.link().set(LinkUnspec::new_with_index(end).up().build()).execute().await.expect("up");
        });
    }

    /// Gives an interface an address.
    pub(crate) fn address(&self, interface: &str, address: &str, prefix: u8) {
        let address: IpAddr = address.parse().expect("an address");
        self.netlink(async |netlink| {
            let interface = index(&netlink, interface).await;
            netlink.address().add(interface, address, prefix).execute().await.expect("an address");
        });
    }

    /// Sends everything else through `gateway`.
    pub(crate) fn default_route(&self, gateway: &str) {
        let gateway: IpAddr = gateway.parse().expect("an address");
        self.netlink(async |netlink| {
            let everything =
                if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let route =
                RouteMessageBuilder::<IpAddr>::new().destination_prefix(everything, 0).expect("a network");
            let route = route.gateway(gateway).expect("a gateway").build();
            netlink.route().add(route).execute().await.expect("a default route");
        });
    }

    /// Lets packets pass from one cable to another.
    pub(crate) fn forward(&self) {
        self.run(|| {
            write("/proc/sys/net/ipv4/ip_forward", "1");
            write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        });
    }

    fn netlink(&self, work: impl AsyncFnOnce(Handle) + Send) {
        self.block_on(async move || {
            let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
            let connection = tokio::spawn(connection);
            work(handle).await;
            connection.abort();
        });
    }
}

async fn index(netlink: &Handle, name: &str) -> u32 {
    let mut links = netlink.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.expect("links").expect("the interface").header.index
}

fn write(file: &str, value: &str) {
    let mut file = fs::OpenOptions::new().write(true).open(file).expect(file);
    file.write_all(value.as_bytes()).expect("a setting of the kernel");
}
