//! Interfaces, addresses and routes over netlink, in the node's network namespace and in a pod's.
//!
//! ```text
//! pod: eth0 10.244.0.20/32, default via 169.254.1.1 and fe80::1
//!       │ veth pair
//! node: pod<N> fe80::1, routes 10.244.0.20 and fd00:10:244::14 to it; lo 10.244.0.1, 10.96.0.10, 169.254.1.1;
//!       services: where the Services' ranges are routed to, and nothing arrives
//! ```

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth},
        route::RouteScope,
    },
};
use thiserror::Error;
use tokio::task::JoinHandle;

use super::addresses::{DNS_V4, NODE_V4, NODE_V6, SERVICES_V4, SERVICES_V6};

/// Every pod's way out.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The name of every pod's interface.
const POD_INTERFACE: &str = "eth0";
/// A veth pair that leads nowhere. The Services' ranges need a route, for packets to get as far as the rules that translate
/// or refuse them; a route to `lo` won't do, which the kernel takes for "unreachable" (IPv6) or for local (IPv4).
const SERVICES_INTERFACE: [&str; 2] = ["services", "services-end"];

/// A change to the network that the kernel refused.
#[derive(Debug, Error)]
#[error("{doing}: {source}")]
pub(crate) struct LinkError {
    doing: String,
    source: io::Error,
}

/// A connection to the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// Whether this kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Settings that a new network namespace needs before its first interface; the kernel looks at the namespace of who
/// writes. Pods get addresses that nobody else has, so nothing waits for duplicates (DAD).
pub(crate) fn prepare_namespace(forwarding: bool) -> Result<(), LinkError> {
    let mut settings = vec![
        ("ipv4/ip_forward", if forwarding { "1" } else { "0" }),
        // As container runtimes do: any user of a pod may listen on its port 80.
        ("ipv4/ip_unprivileged_port_start", "0"),
        // New namespaces copy these from the host, where they may be strict.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/arp_ignore", "0"),
        ("ipv4/conf/default/arp_ignore", "0"),
    ];
    if has_ipv6() {
        settings.extend([
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/all/forwarding", if forwarding { "1" } else { "0" }),
        ]);
    }
    for (name, value) in settings {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .map_err(|source| LinkError { doing: format!("setting net.{name} to {value}"), source })?;
    }
    Ok(())
}

impl Links {
    /// # Errors
    /// No netlink socket to be had.
    pub(crate) fn connect() -> Result<Self, LinkError> {
        let failed = |source| LinkError { doing: "opening a netlink socket".to_owned(), source };
        let (connection, handle, _) = new_connection().map_err(failed)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Gives the node its addresses.
    pub(crate) async fn set_up_node(&self) -> Result<(), LinkError> {
        let lo = self.bring_up("lo").await?;
        for address in [NODE_V4, DNS_V4, GATEWAY_V4] {
            self.add_address(lo, address.into()).await?;
        }
        let [name, end] = SERVICES_INTERFACE;
        let pair = LinkVeth::new(name, end).build();
        done(format!("making interface {name}"), self.handle.link().add(pair).execute().await)?;
        self.bring_up(end).await?;
        let nowhere = self.bring_up(name).await?;
        let (network, length) = (SERVICES_V4.addr().into(), SERVICES_V4.prefix_len());
        self.add_route(nowhere, network, length, None, Some(NODE_V4.into())).await?;
        if has_ipv6() {
            self.add_address(lo, NODE_V6.into()).await?;
            let (network, length) = (SERVICES_V6.addr().into(), SERVICES_V6.prefix_len());
            self.add_route(nowhere, network, length, None, Some(NODE_V6.into())).await?;
        }
        Ok(())
    }

    /// Makes a veth pair between here (`name`) and the network namespace of a process, and routes these addresses to it.
    pub(crate) async fn attach(
        &self,
        name: &str,
        process: i32,
        addresses: &[IpAddr],
    ) -> Result<(), LinkError> {
        let process = process.unsigned_abs();
        let peer = LinkUnspec::new_with_name(POD_INTERFACE).setns_by_pid(process).build();
        let pair = LinkVeth::new(name, POD_INTERFACE).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        done(format!("making interface {name}"), self.handle.link().add(pair.build()).execute().await)?;
        let index = self.bring_up(name).await?;
        if has_ipv6() {
            self.add_address(index, GATEWAY_V6.into()).await?;
        }
        for address in addresses {
            let (length, source): (u8, IpAddr) = match address {
                IpAddr::V4(_) => (32, NODE_V4.into()),
                IpAddr::V6(_) => (128, NODE_V6.into()),
            };
            self.add_route(index, *address, length, None, Some(source)).await?;
        }
        Ok(())
    }

    /// Takes the pair away again; that it is gone already is no error, the pod's end takes it along.
    pub(crate) async fn detach(&self, name: &str) {
        let Ok(index) = if_nametoindex(name) else { return };
        if let Err(error) = self.handle.link().del(index).execute().await {
            tracing::debug!(name, %error, "interface was gone already");
        }
    }

    /// Inside of a pod's network namespace: addresses and the way out.
    pub(crate) async fn set_up_pod(&self, addresses: &[IpAddr]) -> Result<(), LinkError> {
        self.bring_up("lo").await?;
        let index = self.bring_up(POD_INTERFACE).await?;
        for address in addresses {
            self.add_address(index, *address).await?;
            let (any, gateway): (IpAddr, IpAddr) = match address {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), GATEWAY_V4.into()),
                IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), GATEWAY_V6.into()),
            };
            self.add_route(index, any, 0, Some(gateway), None).await?;
        }
        Ok(())
    }

    async fn bring_up(&self, name: &str) -> Result<u32, LinkError> {
        let index = done(format!("finding interface {name}"), if_nametoindex(name).map_err(io::Error::from))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        done(format!("bringing {name} up"), self.handle.link().set(up).execute().await)?;
        Ok(index)
    }

    /// One address, usable at once.
    async fn add_address(&self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let length = match address {
            IpAddr::V4(_) => 32,
            // With the prefix of its link: a route to the neighbour, which asks from this address.
            IpAddr::V6(address) if address.is_unicast_link_local() => 64,
            IpAddr::V6(_) => 128,
        };
        let mut request = self.handle.address().add(index, address, length);
        if address.is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        done(format!("adding address {address}"), request.execute().await)
    }

    async fn add_route(
        &self,
        index: u32,
        to: IpAddr,
        length: u8,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Result<(), LinkError> {
        let doing = || format!("adding a route to {to}/{length}");
        let invalid = |error| LinkError { doing: doing(), source: io::Error::other(error) };
        let mut route = RouteMessageBuilder::<IpAddr>::new().output_interface(index);
        route = route.destination_prefix(to, length).map_err(invalid)?;
        route = match gateway {
            Some(gateway) => route.gateway(gateway).map_err(invalid)?.onlink(),
            None if to.is_ipv4() => route.scope(RouteScope::Link),
            None => route,
        };
        if let Some(source) = source {
            route = route.pref_source(source).map_err(invalid)?;
        }
        done(doing(), self.handle.route().add(route.build()).execute().await)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn done<T, E: Into<NetlinkFailure>>(doing: String, outcome: Result<T, E>) -> Result<T, LinkError> {
    outcome.map_err(|error| LinkError { doing, source: error.into().0 })
}

/// What the kernel said, as an I/O error.
struct NetlinkFailure(io::Error);

impl From<rtnetlink::Error> for NetlinkFailure {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self(message.to_io()),
            other => Self(io::Error::other(other)),
        }
    }
}

impl From<io::Error> for NetlinkFailure {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}
