//! The few things that are asked of the kernel, in safe wrappers: namespaces, mounts, capabilities, descriptors over sockets.

pub(crate) mod capabilities;
pub(crate) mod descriptors;
pub(crate) mod mounts;
pub(crate) mod namespaces;
