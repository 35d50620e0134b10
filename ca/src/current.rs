//! The authority of now: others sign and answer with it while it is replaced.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::authority::Authority;

/// A way to the authority of now. Clones lead to the same one.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Authority>>);

impl Current {
    /// The authority of now. What belongs together (a leaf, its chain, the roots) is to be taken from one and the same.
    pub fn load(&self) -> Guard<Arc<Authority>> {
        self.0.load()
    }

    /// From now on this one signs.
    pub(crate) fn replace(&self, authority: Authority) {
        self.0.store(Arc::new(authority));
    }
}

impl From<Arc<Authority>> for Current {
    fn from(authority: Arc<Authority>) -> Self {
        Self(Arc::new(ArcSwap::new(authority)))
    }
}
