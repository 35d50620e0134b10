//! What a request takes from the sidecar besides routing: its destination and table, an endpoint, the counters.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use gamut_controller_api::{Endpoint, EndpointSet, Pod, Transport};
use gamut_identity::SpiffeId;
use gamut_proxy::{
    balance::Cluster,
    tables::{Destination, Tables},
    telemetry::{Answered, Method, Protocol, Telemetry, Workload},
};
use gamut_route::{BackendId, ServicePort, Uid, table::AppProtocol};

use crate::Part;

const TIMES: u32 = 2_000;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

pub(crate) fn parts() -> anyhow::Result<Vec<Part>> {
    let endpoints: Vec<Endpoint> = (0..10).map(endpoint).collect::<anyhow::Result<_>>()?;
    Ok(vec![looking_up(), picking(&endpoints), counting(&endpoints)])
}

/// A hundred destinations, of which one is asked for.
fn looking_up() -> Part {
    let address = |n: u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, n)), 80);
    let tables = Tables::holding((0..100).map(|n| (address(n), Destination::NotOurs)));
    Part::new("look_up_destination", TIMES, move || tables.get(address(42)).is_some())
}

fn picking(endpoints: &[Endpoint]) -> Part {
    let cluster = Cluster::new(backend());
    cluster.update(&EndpointSet {
        id: backend(),
        protocol: AppProtocol::Http,
        endpoints: endpoints.to_vec(),
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    });
    Part::new("pick_endpoint", TIMES, move || cluster.pick(CLIENT, &[]).is_some())
}

fn counting(endpoints: &[Endpoint]) -> Part {
    let telemetry = Telemetry::new(Workload::default());
    let counters = telemetry.backend(None, &ServicePort::new("shop", "web", 80), &backend());
    let endpoint = endpoints.first().cloned();
    Part::new("count_request", TIMES, move || {
        let answered = Answered {
            method: Method::Get,
            protocol: Protocol::Http,
            status: 200,
            grpc_status: None,
            elapsed: Duration::from_micros(250),
            own: None,
        };
        counters.answered(endpoint.as_ref(), answered);
    })
}

fn backend() -> BackendId {
    BackendId::Service(ServicePort::new("shop", "web", 80))
}

fn endpoint(number: u8) -> anyhow::Result<Endpoint> {
    let name = format!("web-{number}");
    Ok(Endpoint {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, number)), 8080),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            uid: Uid::of(&name),
            workload: "web".to_owned(),
            name,
        }),
        transport: Transport::Mesh(SpiffeId::new("cluster.local", "shop", "web")?),
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    })
}
