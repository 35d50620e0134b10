//! What a process of the mesh does so that its keys stay in it.
//!
//! A crash leaves no core: neither as a file, for which there is no room, nor with a program of the host's that collects them, which the
//! kernel doesn't ask for a process that isn't dumpable. Nor may others of the same user read its memory, its environment or
//! its open files in `/proc`, or trace it (prctl(2), PR_SET_DUMPABLE). Root on the node may, always.

use anyhow::Context as _;
use nix::sys::{
    prctl::set_dumpable,
    resource::{Resource, setrlimit},
};

/// Call it before there is anything to keep.
///
/// # Errors
/// The kernel refuses, which it does to nobody; then nothing may start.
pub(crate) fn keep() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("limiting core dumps to nothing")?;
    set_dumpable(false).context("leaving the process out of core dumps and traces")
}

#[cfg(test)]
mod tests {
    use nix::sys::{prctl::get_dumpable, resource::getrlimit};

    use super::*;

    #[test]
    fn a_process_that_keeps_its_keys_leaves_no_core_and_cant_be_traced() {
        keep().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(get_dumpable(), Ok(false));
    }
}
