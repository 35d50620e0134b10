//! `sessionAffinity: ClientIP`: the same client goes to the same endpoint for as long as that is ready.
//!
//! By rendezvous hashing (Thaler and Ravishankar, 1998): every endpoint gets a score from client and
//! endpoint, the highest wins. So nothing is remembered, an endpoint that leaves moves only its own clients,
//! and the Service's time-out, after which kube-proxy may choose anew, never needs to be watched.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use super::endpoint::Endpoint;

/// The endpoint of a client, among those given.
pub(super) fn choose<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    client: IpAddr,
) -> Option<&'a Arc<Endpoint>> {
    endpoints.max_by_key(|endpoint| score(client, endpoint))
}

fn score(client: IpAddr, endpoint: &Endpoint) -> u64 {
    // Not `RandomState`: a restarted sidecar must score as before.
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    endpoint.address().hash(&mut hasher);
    hasher.finish()
}
