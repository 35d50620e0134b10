//! Durations under the names of OpenTelemetry's semantic conventions for HTTP metrics, as Prometheus writes them.
//!
//! The conventions' attributes come first; of ours only those that a person would ask for follow. `server_address` is the
//! Service that the app addressed, as it would name it.

use gamut_metrics::{Kind, Page};

use super::{
    Telemetry,
    render::{CallerText, Ports, RouteText, Routes, histogram, service_host},
    requests::{RouteKey, Series},
};

impl Telemetry {
    /// Writes the durations of what our app sent and of what it was sent.
    pub(super) fn semantic(&self, page: &mut Page, routes: &[(RouteKey, Routes)], ports: &[(u16, Ports)]) {
        const CLIENT: &str = "http_client_request_duration_seconds";
        page.family(
            CLIENT,
            Kind::Histogram,
            "Requests that the app sent, from the head to the end of the answer.",
        );
        for (key, counters) in routes {
            let host = service_host(&key.parent.service);
            let (port, route) = (key.parent.port.to_string(), RouteText::of(key));
            counters.each_series(|to, series| {
                let mut labels = vec![("server_address", &*host), ("server_port", &*port)];
                labels.extend(route.labels());
                // The conventions count a client's request that was answered 4xx as failed, and a server's not.
                durations(page, CLIENT, &labels, series, to.own, 400);
            });
        }
        const SERVER: &str = "http_server_request_duration_seconds";
        page.family(
            SERVER,
            Kind::Histogram,
            "Requests that came to the app, from the head to the end of the answer.",
        );
        for (port, counters) in ports {
            let port = port.to_string();
            counters.each_series(|from, series| {
                let caller = CallerText::of(from);
                // The conventions require the scheme of servers. TLS of an app's own is bytes to us, and no requests.
                let labels = [
                    ("server_port", &*port),
                    ("url_scheme", "http"),
                    ("source_principal", &*caller.principal),
                ];
                durations(page, SERVER, &labels, series, from.own, 500);
            });
        }
    }
}

/// Writes a series by method and status. Statuses from `failed` on are errors.
fn durations(
    page: &mut Page,
    name: &str,
    common: &[(&str, &str)],
    series: &Series,
    own: Option<&'static str>,
    failed: u16,
) {
    series.each_duration(|method, status, duration| {
        let status_text = if status == 0 { String::new() } else { status.to_string() };
        let error = match own {
            Some(reason) if reason != crate::http::Reason::Rule.as_str() => reason,
            _ if status >= failed => &status_text,
            _ => "",
        };
        let mut labels = vec![
            ("http_request_method", method.as_str()),
            ("http_response_status_code", &*status_text),
            ("error_type", error),
        ];
        labels.extend(common);
        histogram(page, name, &labels, duration, 1000.0);
    });
}
