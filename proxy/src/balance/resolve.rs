//! Names as endpoints: a backend outside the mesh (a Service of type ExternalName) is looked up here, by the pod's own DNS,
//! and looked up again for as long as it is in use.
//!
//! ```text
//! EndpointSet.external ─ Resolver ─ look up ─> endpoints of the Cluster ─ wait ─┐
//!                                      ^───────────────────────────────────────┘
//! ```
//!
//! What was resolved last stays in force while a look-up fails. Before the first answer there are no endpoints, and
//! requests are answered so.

use std::{io, net::SocketAddr, sync::Weak, time::Duration};

use gamut_controller_api::{Endpoint, EndpointSet, ExternalHost, Transport};
use tokio::{net::lookup_host, task::JoinHandle, time::sleep};

use super::Cluster;

/// How long addresses are used before they are looked up again. The system's resolver doesn't tell their time to live.
const FRESH: Duration = Duration::from_secs(10);

/// How long to wait after a look-up that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// A name that is being looked up. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Resolver {
    set: EndpointSet,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Looks a name up, and again, for as long as its cluster is there.
    pub(super) fn start(cluster: Weak<Cluster>, external: ExternalHost, set: EndpointSet) -> Self {
        let task = tokio::spawn(keep_fresh(cluster, external, set.clone(), resolve));
        Self { set, task }
    }

    /// Whether it does already what a set asks for.
    pub(super) fn is_for(&self, set: &EndpointSet) -> bool {
        self.set == *set
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_fresh<F>(
    cluster: Weak<Cluster>,
    external: ExternalHost,
    set: EndpointSet,
    resolve: impl Fn(ExternalHost) -> F,
) where
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    loop {
        let resolved = resolve(external.clone()).await;
        let Some(cluster) = cluster.upgrade() else { return };
        let wait = match resolved {
            Ok(addresses) => {
                let endpoints = addresses.into_iter().map(endpoint).collect();
                cluster.adopt(&EndpointSet { endpoints, ..set.clone() });
                FRESH
            }
            Err(error) => {
                let ExternalHost { host, port } = &external;
                tracing::warn!(backend = %set.id, "{host}:{port} can't be resolved, its last addresses stay: {error}");
                AGAIN
            }
        };
        drop(cluster);
        sleep(wait).await;
    }
}

async fn resolve(external: ExternalHost) -> io::Result<Vec<SocketAddr>> {
    // With a dot at its end a name is what it says, whatever the pod's search list: so DNS has it (ExternalName is a CNAME).
    let name = format!("{}.", external.host);
    let addresses = one_family(lookup_host((name, external.port)).await?.collect());
    match addresses.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")),
        false => Ok(addresses),
    }
}

/// The addresses of the first one's family, which the system prefers (RFC 6724): the pod may have no way to the other.
fn one_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let family = addresses.first().map(SocketAddr::is_ipv6);
    addresses.retain(|address| Some(address.is_ipv6()) == family);
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        pod: None,
        transport: Transport::Plaintext,
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        future::ready,
        sync::{Arc, Mutex},
    };

    use gamut_route::{BackendId, ServicePort};

    use super::*;

    const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn outside() -> (EndpointSet, ExternalHost) {
        let external = ExternalHost { host: "localhost".to_owned(), port: 80 };
        let set = EndpointSet {
            id: BackendId::Service(ServicePort::new("shop", "outside", 80)),
            protocol: gamut_route::table::AppProtocol::Detect,
            endpoints: Vec::new(),
            client_ip_affinity: None,
            retry_budget: None,
            external: Some(external.clone()),
        };
        (set, external)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_and_its_last_addresses_stay_while_that_fails() {
        let (set, external) = outside();
        let cluster = Cluster::new(set.id.clone());
        let answers = Mutex::new(VecDeque::from([Some("192.0.2.1:80"), None, Some("192.0.2.2:80")]));
        let scripted = move |_| {
            let answer = answers.lock().unwrap().pop_front().flatten();
            ready(answer.map(|address| vec![address.parse().unwrap()]).ok_or(io::ErrorKind::NotFound.into()))
        };
        let task = tokio::spawn(keep_fresh(Arc::downgrade(&cluster), external, set, scripted));
        let address = || cluster.pick(CLIENT, &[]).map(|picked| picked.address().to_string());

        assert_eq!(address(), None, "nobody knows yet");
        let moment = Duration::from_millis(1);
        sleep(moment).await;
        assert_eq!(address().as_deref(), Some("192.0.2.1:80"));
        sleep(FRESH).await;
        assert_eq!(address().as_deref(), Some("192.0.2.1:80"), "the second look-up failed");
        sleep(AGAIN).await;
        assert_eq!(address().as_deref(), Some("192.0.2.2:80"));
        drop(cluster);
        task.await.unwrap();
    }

    #[test]
    fn the_preferred_family_is_used_alone() {
        let addresses =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let found = ["[2001:db8::2]:80", "192.0.2.1:80", "[2001:db8::1]:80", "[2001:db8::2]:80"];
        assert_eq!(one_family(addresses(&found)), addresses(&["[2001:db8::1]:80", "[2001:db8::2]:80"]));
        assert_eq!(one_family(addresses(&found[1..])), addresses(&["192.0.2.1:80"]));
        assert_eq!(one_family(Vec::new()), []);
    }
}
