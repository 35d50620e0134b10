//! Linux capabilities as manifests name them, and the bounding set that containers get.
//!
//! Dropping from the bounding set is enough: programs start by `exec`, where root gets the bounding set and every other
//! user nothing (capabilities(7), "Transformation of capabilities during execve").

use std::io;

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// What container runtimes grant where a manifest says nothing.
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The capabilities that a `securityContext` leaves: the names in `drop` and `add` as Kubernetes writes them (`NET_ADMIN`,
/// `ALL`). `Err`: a name that is none.
pub(crate) fn granted(add: &[String], drop: &[String], privileged: bool) -> Result<u64, String> {
    if privileged {
        return Ok(CapabilitySet::all().bits());
    }
    let removed = named(drop)?;
    let added = named(add)?;
    Ok(DEFAULT.difference(removed).union(added).bits())
}

/// Takes all others away from the calling process, for good.
pub(crate) fn keep_only(kept: u64) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_truncate(kept);
    for (_, capability) in
        CapabilitySet::all().iter_names().filter(|(_, capability)| !kept.contains(*capability))
    {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel doesn't have yet.
            Err(rustix::io::Errno::INVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

fn named(names: &[String]) -> Result<CapabilitySet, String> {
    names.iter().try_fold(CapabilitySet::empty(), |set, name| {
        let plain = name.strip_prefix("CAP_").unwrap_or(name);
        match plain {
            "ALL" => Ok(CapabilitySet::all()),
            _ => CapabilitySet::from_name(plain).map(|one| set.union(one)).ok_or_else(|| name.clone()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_that_one() {
        let kept = granted(&names(&["NET_ADMIN"]), &names(&["ALL"]), false);
        assert_eq!(kept, Ok(CapabilitySet::NET_ADMIN.bits()));
    }

    #[test]
    fn without_a_word_in_the_manifest_a_container_gets_what_runtimes_give() {
        let kept = CapabilitySet::from_bits_truncate(granted(&[], &[], false).unwrap());
        assert!(kept.contains(CapabilitySet::NET_BIND_SERVICE));
        assert!(!kept.intersects(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN));
        assert_eq!(granted(&[], &names(&["ALL"]), true), Ok(CapabilitySet::all().bits()));
    }

    #[test]
    fn a_name_that_is_no_capability_is_told() {
        assert_eq!(granted(&names(&["NET_ADMINN"]), &[], false), Err("NET_ADMINN".to_owned()));
    }
}
