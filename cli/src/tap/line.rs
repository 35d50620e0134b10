//! A request as a line: what was asked, what was answered, and who decided.

use gamut_proxy::{record::Record, telemetry::Direction};

use super::Seen;
use crate::output::{self, Cell, Format, Page, Tone};

/// How requests are printed.
pub(super) struct Lines {
    format: Option<Format>,
    colour: bool,
    /// How wide the column of pods has grown, so that lines stay aligned as far as they can.
    width: usize,
}

impl Lines {
    pub(super) fn new(format: Option<Format>, colour: bool) -> Self {
        Self { format, colour, width: 0 }
    }

    /// A request's line, or its document.
    ///
    /// # Errors
    /// It can't be written in this format.
    pub(super) fn of(&mut self, seen: &Seen) -> anyhow::Result<String> {
        Ok(match self.format {
            Some(Format::Json) => output::json_line(seen)?,
            Some(Format::Yaml) => format!("---\n{}", serde_saphyr::to_string(seen)?),
            None | Some(Format::Wide) => {
                self.width = self.width.max(seen.sidecar.len());
                let mut page = Page::default();
                page.line(cells(seen, self.width, self.format == Some(Format::Wide)));
                page.render(self.colour)
            }
        })
    }
}

fn cells(Seen { sidecar, record }: &Seen, width: usize, wide: bool) -> Vec<Cell> {
    let time = record.time.strftime("%H:%M:%S%.3f");
    let arrow = match record.direction {
        Direction::Outbound => "->",
        Direction::Inbound => "<-",
    };
    let milliseconds = format!("{:.1}ms", record.duration_ms);
    let mut cells = vec![
        Cell::new(format!("{time} "), Tone::Faint),
        Cell::from(format!("{sidecar:width$} {arrow} ")),
        Cell::new(record.status, tone(record)),
        Cell::from(format!(" {milliseconds:>8} {} {}{}", record.method, record.host, record.path)),
    ];
    cells.extend(decided(record).map(|text| Cell::new(format!("  {text}"), Tone::Faint)));
    if wide {
        cells.extend(more(record).map(|text| Cell::new(format!("  {text}"), Tone::Faint)));
    }
    cells.extend(own(record).map(|text| Cell::new(format!("  {text}"), Tone::Bad)));
    cells
}

fn tone(record: &Record) -> Tone {
    match record.status {
        _ if record.is_error() => Tone::Bad,
        400..500 => Tone::Doubtful,
        _ => Tone::Good,
    }
}

/// Who decided where a request goes, and where it went; of one that was received, where it came from.
fn decided(record: &Record) -> impl Iterator<Item = String> {
    let grpc = record.grpc_status.map(|code| format!("grpc-status {code}"));
    let to = match (record.backend.as_str(), record.pod.as_str()) {
        ("", _) => None,
        (backend, "") => Some(format!("to {backend}")),
        (backend, pod) => Some(format!("to {backend} ({pod})")),
    };
    let by = (!record.route.is_empty()).then(|| format!("by {}, rule {}", record.route, record.rule));
    let session = record.session.map(|outcome| format!("session {}", outcome.as_str()));
    let from = (record.direction == Direction::Inbound).then(|| match record.peer.as_str() {
        "" => "from outside the mesh".to_owned(),
        peer => format!("from {}", account(peer)),
    });
    [grpc, to, by, session, from].into_iter().flatten()
}

/// What `-o wide` adds.
fn more(record: &Record) -> impl Iterator<Item = String> {
    let bytes = Some(format!("{} bytes", record.bytes));
    let peer = (!record.peer.is_empty()).then(|| format!("peer {}", record.peer));
    let endpoint = record.endpoint.map(|endpoint| format!("at {endpoint}"));
    let trace = (!record.trace_id.is_empty()).then(|| format!("trace {}", record.trace_id));
    [bytes, endpoint, peer, trace].into_iter().flatten()
}

/// Why the sidecar answered in the app's place.
fn own(record: &Record) -> Option<String> {
    match (record.reason.as_str(), record.why.as_str()) {
        ("", _) => None,
        (reason, "") => Some(reason.to_owned()),
        (_, why) => Some(why.to_owned()),
    }
}

/// `shop/client` for `spiffe://cluster.local/ns/shop/sa/client`; anything else as it is.
pub(super) fn account(peer: &str) -> String {
    let parts = peer.split_once("/ns/").and_then(|(_, rest)| rest.split_once("/sa/"));
    parts.map_or_else(|| peer.to_owned(), |(namespace, account)| format!("{namespace}/{account}"))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::tap) fn sent() -> Record {
        serde_json::from_value(json!({
            "time": "2026-01-31T12:00:00.123456Z", "direction": "outbound", "method": "GET", "host": "web", "path": "/cart",
            "status": 200, "durationMs": 1.25, "bytes": 52, "parent": "shop/web:80", "route": "httproute/shop/web", "rule": "split",
            "backend": "service/shop/web-v1:80", "endpoint": "10.244.0.7:8080", "pod": "shop/web-1",
            "peer": "spiffe://cluster.local/ns/shop/sa/web", "session": "kept", "traceId": "0af7651916cd43dd8448eb211c80319c",
        }))
        .unwrap()
    }

    pub(in crate::tap) fn received() -> Record {
        serde_json::from_value(json!({
            "time": "2026-01-31T12:00:00.123456Z", "direction": "inbound", "method": "GET", "host": "web", "path": "/cart",
            "status": 200, "durationMs": 0.75, "bytes": 52, "peer": "spiffe://cluster.local/ns/shop/sa/client",
        }))
        .unwrap()
    }

    fn lines(format: Option<Format>, records: [Record; 3]) -> String {
        let mut lines = Lines::new(format, false);
        let seen = |record| Seen { sidecar: "shop/client-1".to_owned(), record };
        records.into_iter().map(|record| lines.of(&seen(record)).unwrap()).collect()
    }

    fn refused() -> Record {
        let (route, rule, backend) = (String::new(), String::new(), String::new());
        let (reason, why) = ("no-route".to_owned(), "gamut: no-route: no rule matches\u{1b}[2J".to_owned());
        Record { status: 404, route, rule, backend, pod: String::new(), session: None, reason, why, ..sent() }
    }

    #[test]
    fn a_line_says_what_was_asked_what_was_answered_and_who_decided() {
        insta::assert_snapshot!(lines(None, [sent(), received(), refused()]), @r"
        12:00:00.123 shop/client-1 -> 200    1.2ms GET web/cart  to service/shop/web-v1:80 (shop/web-1)  by httproute/shop/web, rule split  session kept
        12:00:00.123 shop/client-1 <- 200    0.8ms GET web/cart  from shop/client
        12:00:00.123 shop/client-1 -> 404    1.2ms GET web/cart  gamut: no-route: no rule matches\u{1b}[2J
        ");
    }

    #[test]
    fn wide_lines_have_bytes_addresses_identities_and_traces() {
        let wide = lines(Some(Format::Wide), [sent(), received(), refused()]);
        for part in
            ["52 bytes", "at 10.244.0.7:8080", "peer spiffe://cluster.local/ns/shop/sa/web", "trace 0af7"]
        {
            assert!(wide.contains(part), "{part} in {wide}");
        }
    }

    #[test]
    fn json_is_an_object_on_each_line_with_the_sidecar_that_told_it() {
        let text = lines(Some(Format::Json), [sent(), received(), sent()]);
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((objects.len(), &objects[0]["sidecar"]), (3, &json!("shop/client-1")));
        assert_eq!((&objects[0]["pod"], &objects[1]["direction"]), (&json!("shop/web-1"), &json!("inbound")));
    }
}
