//! backendRefs: from names in a manifest to endpoints that a table can name, or to the reason why their share
//! is answered 500.

use gamut_route::{
    BackendId, NamespacedName, RouteKind,
    table::{AppProtocol, BackendTarget},
};

use super::{
    protocol,
    report::{Problem, Reason},
    route::is_hostname,
    service::{Frontend, Service},
    world::Lookup,
};
use crate::gateway::{BackendRef, EXPERIMENTAL_GROUP, XBackend};

/// What a reference leads to.
#[derive(Clone, Debug)]
pub(super) enum Resolved<'w> {
    Service { service: &'w Service, port: u16 },
    XBackend(&'w XBackend),
}

impl Resolved<'_> {
    pub(super) fn id(&self) -> BackendId {
        match self {
            Self::Service { service, port } => BackendId::Service(service.service_port(*port)),
            Self::XBackend(backend) => BackendId::XBackend(backend.name.clone()),
        }
    }

    /// The host outside that it is.
    pub(super) fn external(&self) -> Option<&str> {
        match self {
            Self::Service { service: Service { frontend: Frontend::ExternalName(host), .. }, .. } => {
                Some(host)
            }
            Self::Service { .. } | Self::XBackend(_) => None,
        }
    }

    pub(super) fn target(&self) -> BackendTarget {
        let uid = match self {
            Self::Service { service, .. } => service.uid,
            Self::XBackend(backend) => backend.uid,
        };
        BackendTarget::Endpoints { id: self.id(), uid }
    }
}

/// Resolves a reference of a route of this kind and namespace. The problem doesn't name the field; the caller
/// knows it.
pub(super) fn resolve<'w, F>(
    lookup: &Lookup<'w>,
    kind: RouteKind,
    namespace: &str,
    reference: &BackendRef<F>,
) -> Result<Resolved<'w>, Problem> {
    let name =
        NamespacedName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    match (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Service")) {
        ("" | "core", "Service") => resolve_service(lookup, kind, namespace, &name, reference.port),
        (EXPERIMENTAL_GROUP, "XBackend") => resolve_xbackend(lookup, kind, namespace, &name, reference.port),
        (group, other) => {
            let group = if group.is_empty() { "core" } else { group };
            fault(
                Reason::InvalidKind,
                format!(
                    "{other} of group {group} can't be a backend; refer to a Service or an XBackend of group {EXPERIMENTAL_GROUP}"
                ),
            )
        }
    }
}

fn resolve_service<'w>(
    lookup: &Lookup<'w>,
    kind: RouteKind,
    namespace: &str,
    name: &NamespacedName,
    port: Option<i64>,
) -> Result<Resolved<'w>, Problem> {
    // Permission comes before existence: whether a Service exists in a namespace that one may not refer to is
    // nobody's business.
    if !lookup.may_refer(kind, namespace, name) {
        return fault(
            Reason::RefNotPermitted,
            format!(
                "Service {name} is in another namespace, and no ReferenceGrant in {} allows {} of {namespace} to refer to it; \
                 create one there",
                name.namespace,
                kind.as_str()
            ),
        );
    }
    let Some(service) = lookup.service(name) else {
        return fault(
            Reason::BackendNotFound,
            format!("Service {name} doesn't exist; create it or remove the reference"),
        );
    };
    if let Frontend::ExternalName(host) = &service.frontend {
        return resolve_external(kind, service, host, port);
    }
    let Some(port) = port else {
        return fault(
            Reason::BackendNotFound,
            format!("port is missing; name one of Service {name}: {}", ports(service)),
        );
    };
    let number = u16::try_from(port).unwrap_or_default();
    if service.other_ports.contains(&number) && service.port(number).is_none() {
        return fault(
            Reason::UnsupportedProtocol,
            format!("port {port} of Service {name} isn't TCP; refer to a TCP port"),
        );
    }
    let Some(port) = service.port(number) else {
        return fault(
            Reason::BackendNotFound,
            format!("Service {name} has no port {port}; it has {}", ports(service)),
        );
    };
    if !carries(kind, port.protocol, port.declared) {
        return unsupported_protocol(kind, name, number, port.protocol);
    }
    Ok(Resolved::Service { service, port: number })
}

/// A host outside. Its Service needn't have ports; a port that a reference names is then the host's.
///
/// GEP-1294 advises against such backends, because a gateway could be talked into reaching what its caller can't. Here the
/// caller's own sidecar resolves and connects, from the caller's pod: it reaches nothing that the caller doesn't.
fn resolve_external<'w>(
    kind: RouteKind,
    service: &'w Service,
    host: &str,
    port: Option<i64>,
) -> Result<Resolved<'w>, Problem> {
    let name = &service.name;
    if !is_hostname(host) || host.starts_with('*') {
        let message = format!("Service {name} has externalName {host:?}, which isn't a DNS name; correct it");
        return fault(Reason::InvalidKind, message);
    }
    let number = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let Some(number) = number else {
        return fault(Reason::BackendNotFound, format!("port is missing; name one of {host}, 1 to 65535"));
    };
    let declared = service.port(number);
    if declared.is_none() && !service.ports.is_empty() {
        let message = format!("Service {name} has no port {number}; it has {}", ports(service));
        return fault(Reason::BackendNotFound, message);
    }
    match declared {
        Some(port) if !carries(kind, port.protocol, port.declared) => {
            unsupported_protocol(kind, name, number, port.protocol)
        }
        _ => Ok(Resolved::Service { service, port: number }),
    }
}

fn unsupported_protocol<T>(
    kind: RouteKind,
    service: &NamespacedName,
    port: u16,
    protocol: AppProtocol,
) -> Result<T, Problem> {
    fault(
        Reason::UnsupportedProtocol,
        format!(
            "port {port} of Service {service} is declared as {}, to which requests of a {} can't be sent; \
             change its appProtocol, or use a TLSRoute or TCPRoute",
            protocol::name(protocol),
            kind.as_str()
        ),
    )
}

fn resolve_xbackend<'w>(
    lookup: &Lookup<'w>,
    kind: RouteKind,
    namespace: &str,
    name: &NamespacedName,
    port: Option<i64>,
) -> Result<Resolved<'w>, Problem> {
    // GEP-4894: an XBackend describes how its own namespace's routes reach something.
    if name.namespace != namespace {
        return fault(
            Reason::RefNotPermitted,
            format!(
                "XBackend {name} is in another namespace; an XBackend must be in the namespace of the route that refers to it"
            ),
        );
    }
    let Some(backend) = lookup.xbackend(name) else {
        return fault(
            Reason::BackendNotFound,
            format!("XBackend {name} doesn't exist; create it or remove the reference"),
        );
    };
    if port.is_some() {
        return fault(
            Reason::BackendNotFound,
            format!("port isn't allowed with XBackend {name}, which has a port of its own; remove it"),
        );
    }
    let protocol = xbackend_protocol(backend).map_err(|message| Problem {
        reason: Reason::InvalidKind,
        message: format!("XBackend {name}: {message}"),
    })?;
    if !carries(kind, protocol, true) {
        return fault(
            Reason::UnsupportedProtocol,
            format!(
                "XBackend {name} is declared as {}, to which requests of a {} can't be sent; change its protocol",
                protocol::name(protocol),
                kind.as_str()
            ),
        );
    }
    Ok(Resolved::XBackend(backend))
}

/// What an XBackend speaks, or why it can't be used.
pub(crate) fn xbackend_protocol(backend: &XBackend) -> Result<AppProtocol, String> {
    let spec =
        backend.spec.value.as_ref().map_err(|error| format!("{}; correct the field", error.below("spec")))?;
    if let Some(field) = backend.spec.unknown.first() {
        return Err(format!("spec.{field} isn't known to this mesh; remove it"));
    }
    match spec.kind.as_str() {
        "EndpointSelector" => {}
        "ExternalHostname" => {
            return Err("spec.type ExternalHostname isn't supported; use EndpointSelector".to_owned());
        }
        other => return Err(format!("spec.type {other:?} isn't known; use EndpointSelector")),
    }
    if spec.endpoint_selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty()) {
        return Err("spec.endpointSelector.matchLabels is empty; name the labels of the pods".to_owned());
    }
    if !(1..=65_535).contains(&spec.port.number) {
        return Err(format!("spec.port.number {} isn't a port; use 1 to 65535", spec.port.number));
    }
    if let Some(tls) = spec.tls.as_ref().filter(|tls| tls.mode != "None") {
        return Err(format!(
            "spec.tls.mode {:?} isn't supported; use None (meshed pods are reached over mTLS in any case)",
            tls.mode
        ));
    }
    match &spec.protocol {
        None => Ok(AppProtocol::Detect),
        Some(value) => {
            protocol::of_xbackend(value).ok_or_else(|| format!("spec.protocol {value:?} isn't known"))
        }
    }
}

/// Whether requests of a route kind can be sent to a port that speaks this. What is only assumed stands in
/// nobody's way.
fn carries(kind: RouteKind, protocol: AppProtocol, declared: bool) -> bool {
    match kind {
        RouteKind::Http | RouteKind::Grpc => {
            !declared || !matches!(protocol, AppProtocol::Tls | AppProtocol::Opaque)
        }
        RouteKind::Tls | RouteKind::Tcp => true,
    }
}

fn ports(service: &Service) -> String {
    match service.ports.as_slice() {
        [] => "no TCP ports".to_owned(),
        ports => ports.iter().map(|port| port.number.to_string()).collect::<Vec<_>>().join(", "),
    }
}

fn fault<T>(reason: Reason, message: String) -> Result<T, Problem> {
    Err(Problem { reason, message })
}
