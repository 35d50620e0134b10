//! Knobs: what a request may ask of its answer, as `?name=value` or as header `x-echo-name: value`.

#[cfg(test)]
#[path = "../../../docs/generated.rs"]
mod generated;

use std::time::Duration;

use http::{HeaderName, HeaderValue, request::Parts};

/// Every knob: its name, a value of it, and what that asks for.
#[cfg(test)]
const KNOBS: &[(&str, &str, &str)] = &[
    ("status", "503", "the answer's status; of a gRPC call its gRPC status (`14`)"),
    ("delay", "250ms", "a wait before the answer's head"),
    ("size", "100000", "a body of so many bytes in place of the report"),
    ("chunks", "10", "the body so many times over, of unknown length"),
    ("every", "100ms", "a wait before each chunk"),
    ("header", "name:value", "a header of the answer; may be given several times"),
    ("trailer", "name:value", "a trailer behind the body; may be given several times"),
    ("body", "echo", "the request's own body streams back, trailers included"),
    ("close", "head", "the connection breaks before the answer; with `body` in the middle of it"),
    ("fail", "2", "so many requests with this `key` are answered 503 before one succeeds"),
    ("slow", "2", "only so many requests with this `key` wait for `delay`"),
    ("key", "a", "what `fail` and `slow` count by"),
    (
        "early",
        "close",
        "the answer before the request's body is read, and then the end of the connection; with `read` the body is read behind it",
    ),
    ("id", "a", "a line in the server's `--journal`"),
];

/// What a request asks for. The default is a plain 200 with the report.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Knobs {
    /// `status=503`: the answer's status. For gRPC: `status=14`, the gRPC status.
    pub(super) status: Option<u16>,
    /// `delay=250ms`: a wait before the answer's head.
    pub(super) delay: Option<Duration>,
    /// `size=100000`: a body of this many bytes in place of the report.
    pub(super) size: Option<usize>,
    /// `chunks=10`: the body this many times over, of unknown length.
    pub(super) chunks: Option<u32>,
    /// `every=100ms`: a wait before each chunk.
    pub(super) every: Option<Duration>,
    /// `header=name:value`: a header of the answer; may be given several times.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `trailer=name:value`: a trailer behind the body; may be given several times.
    pub(super) trailers: Vec<(HeaderName, HeaderValue)>,
    /// `body=echo`: the request's body streams back, trailers included.
    pub(super) echo_body: bool,
    /// `close=head` or `close=body`: the connection breaks before the answer, or in the middle of its body.
    pub(super) close: Option<Close>,
    /// `fail=2`: so many requests with this `key` are answered 503 before one succeeds.
    pub(super) fail: Option<u32>,
    /// `slow=2`: only so many requests with this `key` wait for `delay`.
    pub(super) slow: Option<u32>,
    /// `key=...`: what `fail` and `slow` count by.
    pub(super) key: String,
    /// `early=close` or `early=read`: the answer before the request's body is read.
    pub(super) early: Option<Early>,
    /// `id=...`: by what name the request is written down in the server's journal.
    pub(super) id: Option<String>,
}

/// What becomes of a body behind the answer that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// Nobody reads it: the connection ends.
    Close,
    /// It is read to its end.
    Read,
}

/// Where the server breaks the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// Instead of an answer.
    Head,
    /// After the head and a part of the body.
    Body,
}

impl Knobs {
    /// Reads a request's knobs; other parameters and headers are the request's own business.
    ///
    /// # Errors
    /// A knob whose value makes no sense, in one line for a 400.
    pub(super) fn of(request: &Parts) -> Result<Self, String> {
        let mut knobs = Self::default();
        for pair in request.uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            knobs.set(name, value)?;
        }
        for (name, value) in &request.headers {
            if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("x-echo-"), value.to_str()) {
                knobs.set(name, value)?;
            }
        }
        Ok(knobs)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "status" => self.status = Some(number(name, value)?),
            "delay" => self.delay = Some(crate::duration(value)?),
            "size" => self.size = Some(number(name, value)?),
            "chunks" => self.chunks = Some(number(name, value)?),
            "every" => self.every = Some(crate::duration(value)?),
            "header" => self.headers.push(crate::header(value)?),
            "trailer" => self.trailers.push(crate::header(value)?),
            "body" => self.echo_body = value == "echo",
            "close" if value == "head" => self.close = Some(Close::Head),
            "close" if value == "body" => self.close = Some(Close::Body),
            "fail" => self.fail = Some(number(name, value)?),
            "slow" => self.slow = Some(number(name, value)?),
            "key" => self.key = value.to_owned(),
            "early" if value == "close" => self.early = Some(Early::Close),
            "early" if value == "read" => self.early = Some(Early::Read),
            "id" => self.id = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{name}={value} is not a number of the right size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, header: Option<(&str, &str)>) -> Result<Knobs, String> {
        let mut request = http::Request::builder().uri(uri);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        Knobs::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn knobs_come_from_the_query_and_from_headers() {
        let knobs = read("/?status=503&version=two&close=head", Some(("x-echo-delay", "5ms"))).unwrap();
        let expected = Knobs {
            status: Some(503),
            delay: Some(Duration::from_millis(5)),
            close: Some(Close::Head),
            ..Knobs::default()
        };
        assert_eq!(knobs, expected);
    }

    #[test]
    fn the_reference_has_every_knob_and_each_of_them_turns() {
        let mut page = "| knob | for example | asks for |\n|---|---|---|\n".to_owned();
        for (name, value, asks_for) in KNOBS {
            let turned = read(&format!("/?{name}={value}"), None).unwrap();
            assert_ne!(turned, Knobs::default(), "{name}");
            page += &format!("| `{name}` | `{name}={value}` | {asks_for} |\n");
        }
        generated::holds("docs/reference/echo.md", "knobs", &page);
    }

    #[test]
    fn a_knob_that_makes_no_sense_is_named() {
        assert_eq!(read("/?size=big", None).unwrap_err(), "size=big is not a number of the right size");
    }
}
