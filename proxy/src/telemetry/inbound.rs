//! Requests and connections that came to our app: by port, below that by the caller's identity and the status.

use std::sync::Arc;

use gamut_identity::SpiffeId;

use super::{
    family::Family,
    requests::{Answered, Protocol, Series},
    tcp::{TcpConnection, TcpCounters},
};

/// The most callers of one port that are counted apart.
const MAX_CALLERS: usize = 64;

/// The counters of one port of our own pod.
pub struct InboundCounters {
    requests: Family<CallerLabels, Series>,
    tcp: Family<CallerLabels, Arc<TcpCounters>>,
}

/// Who called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallerLabels {
    pub(super) caller: Caller,
    pub(super) protocol: Option<Protocol>,
    pub(super) own: Option<&'static str>,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// This identity, over mTLS.
    Mesh(SpiffeId),
    /// Somebody in plaintext.
    Plaintext,
    /// Anybody beyond [`MAX_CALLERS`].
    Other,
}

impl Default for InboundCounters {
    fn default() -> Self {
        let other = CallerLabels { caller: Caller::Other, protocol: None, own: None };
        Self {
            requests: Family::new(MAX_CALLERS, other.clone(), |_| Series::default()),
            tcp: Family::new(MAX_CALLERS, other, |_| Arc::default()),
        }
    }
}

impl InboundCounters {
    /// Counts a request of this mesh peer, or of somebody who spoke plaintext.
    pub fn answered(&self, peer: Option<&SpiffeId>, answered: Answered) {
        self.requests.with(
            |labels| labels.are_of(peer, Some(answered.protocol), answered.own),
            || CallerLabels::of(peer, Some(answered.protocol), answered.own),
            |series| series.add(&answered),
        );
    }

    /// Counts a connection of opaque bytes until the returned value is dropped.
    pub fn tcp(&self, peer: Option<&SpiffeId>) -> TcpConnection {
        self.tcp.with(
            |labels| labels.are_of(peer, None, None),
            || CallerLabels::of(peer, None, None),
            TcpConnection::open,
        )
    }

    pub(super) fn each_series(&self, f: impl FnMut(&CallerLabels, &Series)) {
        self.requests.each(f);
    }

    pub(super) fn each_tcp(&self, mut f: impl FnMut(&CallerLabels, &TcpCounters)) {
        self.tcp.each(|labels, counters| f(labels, counters));
    }
}

impl CallerLabels {
    fn of(peer: Option<&SpiffeId>, protocol: Option<Protocol>, own: Option<&'static str>) -> Self {
        let caller = peer.map_or(Caller::Plaintext, |peer| Caller::Mesh(peer.clone()));
        Self { caller, protocol, own }
    }

    fn are_of(&self, peer: Option<&SpiffeId>, protocol: Option<Protocol>, own: Option<&'static str>) -> bool {
        let same_caller = match (&self.caller, peer) {
            (Caller::Mesh(known), Some(peer)) => known == peer,
            (Caller::Plaintext, None) => true,
            _ => false,
        };
        same_caller && (self.protocol, self.own) == (protocol, own)
    }
}

impl std::fmt::Debug for InboundCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundCounters").finish_non_exhaustive()
    }
}
