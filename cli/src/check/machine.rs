//! The tests of a machine, in the order in which `gamut up` would meet what they test.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
};

use gamut_netfilter::{
    Chain, Hook, Kind, Match, Protocol, Rule, Verdict,
    vip::{self, Vip},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};

use super::Finding;

/// inotify instances per user: each `gamut up` and controller takes one, and so do editors and desktops.
const FEW_INOTIFY_INSTANCES: u64 = 16;

/// Open files per process: a sidecar has two for each connection.
const FEW_FILES: u64 = 1024;

const PRIVILEGED: &str =
    "gamut up needs CAP_SYS_ADMIN and CAP_NET_ADMIN; in a container, run it with --privileged";

/// Examines this machine. What needs namespaces is done on a thread of its own, whose namespaces end with it.
pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![root(), kernel(), open_files(), inotify()];
    if geteuid().is_root() {
        match thread::spawn(in_new_namespaces).join() {
            Ok(more) => findings.extend(more),
            Err(_) => findings.push(Finding::failed("namespaces", "the test broke off", PRIVILEGED)),
        }
    }
    findings
}

fn root() -> Finding {
    let user = geteuid();
    if user.is_root() {
        Finding::ok("root", "uid 0")
    } else {
        Finding::failed(
            "root",
            format!("uid {user}"),
            "gamut up makes namespaces and interfaces; run it with sudo",
        )
    }
}

fn kernel() -> Finding {
    const WHAT: &str = "kernel";
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else {
        return Finding::failed(WHAT, "/proc isn't mounted", "mount it: mount -t proc proc /proc");
    };
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // 5.2 is the first with NAT in nftables' family inet, which one table for both families needs.
    if version >= (5, 2) {
        Finding::ok(WHAT, release)
    } else {
        Finding::failed(
            WHAT,
            release,
            "Linux 5.2 is the oldest with NAT for both address families in one table",
        )
    }
}

fn open_files() -> Finding {
    const WHAT: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < FEW_FILES => Finding::warning(
            WHAT,
            format!("{soft} per process"),
            "many connections at once will fail; ulimit -n 65536",
        ),
        Ok((soft, _)) => Finding::ok(WHAT, format!("{soft} per process")),
        Err(error) => Finding::warning(WHAT, error, "the limit can't be read"),
    }
}

fn inotify() -> Finding {
    const WHAT: &str = "inotify";
    let instances = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    match instances.as_deref().map(|text| text.trim().parse::<u64>()) {
        Ok(Ok(instances)) if instances >= FEW_INOTIFY_INSTANCES => {
            Finding::ok(WHAT, format!("{instances} instances"))
        }
        Ok(Ok(instances)) => Finding::warning(
            WHAT,
            format!("{instances} instances"),
            "saved manifests may go unnoticed; sysctl fs.inotify.max_user_instances=128",
        ),
        _ => {
            Finding::failed(WHAT, "not there", "saved manifests can't be noticed; use a kernel with inotify")
        }
    }
}

fn in_new_namespaces() -> Vec<Finding> {
    const WHAT: &str = "namespaces";
    let kinds = [
        ("mount", CloneFlags::CLONE_NEWNS),
        ("network", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
    ];
    for (name, kind) in kinds {
        if let Err(error) = unshare(kind) {
            return vec![Finding::failed(WHAT, format!("{name}: {error}"), PRIVILEGED)];
        }
    }
    let names = kinds.map(|(name, _)| name).join(", ");
    vec![Finding::ok(WHAT, names), mounts(), nat(), ipv6()]
}

fn mounts() -> Finding {
    const WHAT: &str = "mounts";
    let nothing = None::<&str>;
    let outcome = mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .and_then(|()| mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), nothing));
    match outcome {
        Ok(()) => Finding::ok(WHAT, "a /run of its own"),
        Err(error) => Finding::failed(WHAT, error, PRIVILEGED),
    }
}

/// Writes the rules of a Service with two endpoints, and a redirection as sidecars have it, for both families.
fn nat() -> Finding {
    const WHAT: &str = "nftables";
    let vip = |host: IpAddr| Vip {
        address: SocketAddr::new(host, 80),
        protocol: Protocol::Tcp,
        backends: vec![SocketAddr::new(host, 8080), SocketAddr::new(host, 8081)],
    };
    let vips = [vip(Ipv4Addr::LOCALHOST.into()), vip(Ipv6Addr::LOCALHOST.into())];
    let mut rules = vip::ruleset("gamut-check", &vips);
    let tcp = Rule::new([Match::Protocol(Protocol::Tcp)], Verdict::Redirect(15001));
    rules.chains.push(Chain::base("redirect", Kind::Nat, Hook::Output, Hook::DSTNAT, vec![tcp]));
    match gamut_netfilter::apply(&rules) {
        Ok(()) => Finding::ok(WHAT, "NAT and redirection for both families"),
        Err(error) => Finding::failed(
            WHAT,
            error,
            "the kernel needs nf_tables with NAT: modprobe -a nf_tables nft_chain_nat nft_redir nft_masq nft_reject_inet",
        ),
    }
}

fn ipv6() -> Finding {
    const WHAT: &str = "IPv6";
    match fs::read_to_string("/proc/thread-self/net/if_inet6") {
        Ok(_) => Finding::ok(WHAT, "there"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::warning(WHAT, "the kernel has none", "pods get IPv4 addresses only")
        }
        Err(error) => Finding::warning(WHAT, error, "it can't be found out whether there is IPv6"),
    }
}
