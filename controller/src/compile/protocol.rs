//! What the bytes of a port are, as their owner declares it. What is assumed of the others:
//! [`AppProtocol::assumed`].

use gamut_route::{RouteKind, table::AppProtocol};

use super::service::Port;

/// What an `appProtocol` says: Kubernetes' own values (KEP-3726), and the field's habit. `None` for a value
/// that says nothing to us: the port is looked at like one without.
pub(crate) fn of_app_protocol(value: &str) -> Option<AppProtocol> {
    Some(match value.to_ascii_lowercase().as_str() {
        "http" | "http1" | "grpc-web" | "ws" | "kubernetes.io/ws" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "https" | "tls" | "wss" | "kubernetes.io/wss" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Opaque,
        _ => return None,
    })
}

/// What the `protocol` of an XBackend says (GEP-4894). MCP is HTTP.
pub(crate) fn of_xbackend(value: &str) -> Option<AppProtocol> {
    Some(match value {
        "TCP" => AppProtocol::Opaque,
        "HTTP" | "HTTP11" | "MCP" => AppProtocol::Http,
        "HTTP2" | "H2C" | "GRPC" => AppProtocol::Http2,
        "WSS" => AppProtocol::Tls,
        _ => return None,
    })
}

/// What the bytes of a port are under routes of a kind: what they say goes before what is declared, and that before
/// what is assumed.
pub(super) fn in_force(port: &Port, kind: Option<RouteKind>) -> AppProtocol {
    match kind {
        None => port.protocol,
        Some(RouteKind::Grpc) => AppProtocol::Http2,
        // Such a port has a route only if somebody named it (see `attach`), who knows better than our list.
        Some(RouteKind::Http) if !port.declared && port.protocol == AppProtocol::Opaque => AppProtocol::Http,
        Some(RouteKind::Http) => port.protocol,
        Some(RouteKind::Tls) => AppProtocol::Tls,
        Some(RouteKind::Tcp) => AppProtocol::Opaque,
    }
}

/// Whether the sidecar sees requests there.
pub(super) fn carries_requests(protocol: AppProtocol) -> bool {
    !matches!(protocol, AppProtocol::Tls | AppProtocol::Opaque)
}

/// The protocol's name in messages.
pub(crate) fn name(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Detect => "undeclared",
        AppProtocol::Http => "HTTP",
        AppProtocol::Http2 => "HTTP/2",
        AppProtocol::Tls => "the application's own TLS",
        AppProtocol::Opaque => "opaque TCP",
    }
}
