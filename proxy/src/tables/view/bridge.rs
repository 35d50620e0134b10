//! The endpoints for the moment in which a delivery is applied.

use std::{collections::HashMap, net::SocketAddr};

use gamut_controller_api::{Endpoint, EndpointSet};

/// What is in force between a set's additions and its removals: every endpoint that takes traffic in either set. `None`
/// when the new set takes nothing away.
///
/// A table may be replaced in between, and neither the old one nor the new one may find its backend empty because of the
/// order in which the parts of one delivery are worked off.
pub(super) fn bridge(old: &EndpointSet, new: &EndpointSet) -> Option<EndpointSet> {
    let kept: HashMap<SocketAddr, &Endpoint> = new.endpoints.iter().map(|e| (e.address, e)).collect();
    let leaving =
        |endpoint: &&Endpoint| endpoint.ready && !kept.get(&endpoint.address).is_some_and(|kept| kept.ready);
    let leaving: HashMap<SocketAddr, &Endpoint> =
        old.endpoints.iter().filter(leaving).map(|endpoint| (endpoint.address, endpoint)).collect();
    if leaving.is_empty() {
        return None;
    }
    let arriving = new.endpoints.iter().filter(|endpoint| !leaving.contains_key(&endpoint.address));
    let mut endpoints: Vec<Endpoint> = arriving.chain(leaving.values().copied()).cloned().collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    Some(EndpointSet { endpoints, ..new.clone() })
}
