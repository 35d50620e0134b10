//! What the bytes of a port are: `appProtocol`, and ports that everybody knows.

use gamut_route::table::AppProtocol;

/// Ports of protocols in which the server speaks first: waiting for the client's first bytes there would only
/// cost time. FTP, SSH, Telnet, SMTP, POP3, NNTP, IMAP, SMTP submission, MySQL, NATS, Galera's three, VNC.
/// Sidecars take a port of these for opaque by themselves; the list here must not be shorter than theirs, or
/// a route would be accepted that they don't look at.
const SERVER_SPEAKS_FIRST: [u16; 14] =
    [21, 22, 23, 25, 110, 119, 143, 587, 3306, 4222, 4444, 4567, 4568, 5900];

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

/// What a port is whose owner says nothing.
pub(crate) fn assumed(port: u16) -> AppProtocol {
    match SERVER_SPEAKS_FIRST.contains(&port) {
        true => AppProtocol::Opaque,
        false => AppProtocol::Detect,
    }
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
