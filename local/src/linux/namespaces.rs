//! Namespaces: left behind, opened, entered.
//!
//! `unshare` and `setns` for mount and user namespaces work only in a process with one thread, so they happen in helper
//! processes before any thread exists. A network namespace can be entered by one thread alone.

use std::{fs::File, io, os::fd::AsFd, thread};

use nix::sched::CloneFlags;

use crate::control::Namespace;

impl Namespace {
    /// Its name below `/proc/PID/ns`.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
        }
    }

    fn flag(self) -> CloneFlags {
        match self {
            Self::Mnt => CloneFlags::CLONE_NEWNS,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Pid => CloneFlags::CLONE_NEWPID,
        }
    }
}

/// Leaves the shared namespaces of these kinds for new ones. A new process namespace takes effect for children.
pub(crate) fn unshare(kinds: &[Namespace]) -> io::Result<()> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    Ok(nix::sched::unshare(flags)?)
}

/// A process's namespace, kept alive by the descriptor.
pub(crate) fn open(process: i32, kind: Namespace) -> io::Result<File> {
    File::open(format!("/proc/{process}/ns/{}", kind.file_name()))
}

/// Moves the calling thread into a namespace (for processes: its future children).
pub(crate) fn enter(namespace: impl AsFd, kind: Namespace) -> io::Result<()> {
    Ok(nix::sched::setns(namespace, kind.flag())?)
}

/// Runs `work` in a process's network namespace, on a thread of its own that ends with it.
///
/// # Errors
/// The process is gone, or no thread could be started, or the work panicked.
pub(crate) fn in_network_of<T: Send + 'static>(
    process: i32,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let network = open(process, Namespace::Net)?;
    let thread = thread::Builder::new().name("in-pod".to_owned()).spawn(move || {
        enter(&network, Namespace::Net)?;
        Ok(work())
    })?;
    thread.join().map_err(|_| io::Error::other("the thread in the pod's network namespace panicked"))?
}
