//! The generated messages and the gRPC client and server of `proto/controller.proto`.

#![allow(missing_docs, unreachable_pub, clippy::all)]

use std::fmt;

tonic::include_proto!("gamut.controller.v1");

// These two are written by hand because their bytes can be session keys.

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("key", &self.key)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey").field("id", &self.id).finish_non_exhaustive()
    }
}
