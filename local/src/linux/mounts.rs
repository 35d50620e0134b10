//! Mounts, in the mount namespace of the calling process.

use std::{fs, io, path::Path};

use nix::mount::{MsFlags, mount};
use thiserror::Error;

/// A mount that failed.
#[derive(Debug, Error)]
#[error("mounting {what} on {on}: {source}")]
pub(crate) struct MountError {
    what: String,
    on: String,
    source: io::Error,
}

/// From here on, mounts in this namespace are seen nowhere else, and those of others aren't seen here.
pub(crate) fn make_private() -> Result<(), MountError> {
    mounted("private propagation", Path::new("/"), |none| {
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
    })
}

/// An empty file system in memory.
pub(crate) fn tmpfs(on: &Path, mode: u32) -> Result<(), MountError> {
    let options = format!("mode={mode:o}");
    mounted("tmpfs", on, |_| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), on, Some("tmpfs"), flags, Some(options.as_str()))
    })
}

/// A view of the calling process's own process namespace.
pub(crate) fn proc(on: &Path) -> Result<(), MountError> {
    mounted("proc", on, |none| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), on, Some("proc"), flags, none)
    })
}

/// A file or directory (with what is mounted below it) in a second place.
pub(crate) fn bind(from: &Path, on: &Path, read_only: bool) -> Result<(), MountError> {
    let what = from.display().to_string();
    mounted(&what, on, |none| {
        mount(Some(from), on, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        // A bind mount takes its flags only when it is mounted again.
        let sealed = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        match read_only {
            true => mount(none, on, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | sealed, none),
            false => Ok(()),
        }
    })
}

/// A mount with all that is mounted below it to another place.
pub(crate) fn relocate(from: &Path, to: &Path) -> Result<(), MountError> {
    let what = from.display().to_string();
    mounted(&what, to, |none| mount(Some(from), to, none, MsFlags::MS_MOVE, none))
}

/// Makes an empty file (and its directories) to mount a file on.
pub(crate) fn file_to_mount_on(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

fn mounted(
    what: &str,
    on: &Path,
    attempt: impl FnOnce(Option<&'static str>) -> nix::Result<()>,
) -> Result<(), MountError> {
    attempt(None).map_err(|errno| MountError {
        what: what.to_owned(),
        on: on.display().to_string(),
        source: errno.into(),
    })
}
