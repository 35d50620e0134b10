//! Instances: a running `gamut up`, found by its name.
//!
//! An instance is its abstract unix socket `\0gamut/<name>`. Nothing of it is in the file system; it is there as long as
//! the processes are, and the kernel lists it in `/proc/net/unix`.

use std::{
    fmt, fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    str::FromStr,
};

use thiserror::Error;

/// The environment variable that names the instance to talk to.
pub const INSTANCE_VARIABLE: &str = "GAMUT_INSTANCE";

const PREFIX: &str = "gamut/";

/// An instance's name: letters, digits, `-`, `_` and `.`, at most 64 of them. No text at all is the default name, so that an
/// empty [`INSTANCE_VARIABLE`] counts as unset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceName(String);

/// A name that no instance can have.
#[derive(Debug, Error)]
#[error("{0:?} can't be an instance's name; use 1 to 64 letters, digits, '-', '_' or '.'")]
pub struct InvalidName(String);

impl InstanceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes the name: fails with `AddrInUse` when an instance of this name runs.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&self.address()?)
    }

    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&self.address()?)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("{PREFIX}{}", self.0))
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for InstanceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.len() <= 64 && text.chars().all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidName(text.to_owned())),
        }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of the instances that run on this machine, in order.
///
/// # Errors
/// `/proc/net/unix` can't be read.
pub fn running() -> io::Result<Vec<InstanceName>> {
    Ok(names_in(&fs::read_to_string("/proc/net/unix")?))
}

/// The kernel prints an abstract name with `@` for its first byte; one line for each listening or connected socket.
fn names_in(listing: &str) -> Vec<InstanceName> {
    let sockets = listing.lines().filter_map(|line| line.split_whitespace().nth(7));
    let mut names: Vec<InstanceName> =
        sockets.filter_map(|name| name.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok()).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_found_once_each_among_other_sockets() {
        let listing = "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 20135 @gamut/demo\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 20136 @gamut/demo\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 20137 /run/gamut/other\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 20138 @other/gamut/x\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 20139 @gamut/a.b_c-1\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 20140\n";
        let names: Vec<String> = names_in(listing).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.b_c-1", "demo"]);
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        assert_eq!("".parse::<InstanceName>().unwrap(), InstanceName::default(), "an empty variable is none");
        for name in ["a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(name.parse::<InstanceName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_taken_as_long_as_its_listener_lives() {
        let name: InstanceName = format!("unit-test-{}", std::process::id()).parse().unwrap();
        assert_eq!(name.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = name.listen().unwrap();
        assert_eq!(name.listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(running().unwrap().contains(&name));
        name.connect().unwrap();
        drop(listener);
        assert!(!running().unwrap().contains(&name));
    }
}
