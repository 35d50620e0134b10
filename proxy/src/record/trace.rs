//! W3C trace context: the span that a request came from, and the one that it is here.
//!
//! Which spans of an app belong together only the app knows: it has to pass `traceparent` on from what it was asked to what
//! it asks. A sidecar takes the header in, writes its own span into it, and begins a trace where there is none.

use http::{HeaderMap, HeaderName, HeaderValue};

/// <https://www.w3.org/TR/trace-context/>, version 00.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Which traces that begin here are exported: a share of 0 to 1. What the caller has decided is kept to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling(pub f64);

/// The span that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

/// A span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Its trace.
    pub trace_id: u128,
    /// Itself.
    pub span_id: u64,
    /// Who caused it.
    pub parent: Option<u64>,
    sampled: bool,
}

impl Parent {
    /// Reads a request's `traceparent`. One that can't be read is none, as the recommendation has it, and so are several.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let text = all.next()?.to_str().ok().filter(|_| all.next().is_none())?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            let is_hex = text.len() == length && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        // A later version may append parts; version 00 has none, and ff is no version.
        let version = hex(version, 2).filter(|version| *version != 0xff)?;
        if version == 0 && parts.next().is_some() {
            return None;
        }
        let trace_id = hex(trace, 32).filter(|id| *id != 0)?;
        let span_id = hex(span, 16).filter(|id| *id != 0)?;
        let sampled = hex(flags, 2)? & 1 == 1;
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, sampled })
    }

    /// The trace, in hexadecimal.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl Trace {
    /// Begins a span under the request's, or a trace, and writes it into the request.
    pub fn begin(headers: &mut HeaderMap, sampling: &Sampling) -> Self {
        let span_id = rand::random::<u64>().max(1);
        let span = match Parent::of(headers) {
            Some(parent) => Self {
                trace_id: parent.trace_id,
                span_id,
                parent: Some(parent.span_id),
                sampled: parent.sampled,
            },
            None => {
                // What others keep of a trace belongs to that one (W3C Trace Context, 3.3 and 4.2).
                headers.remove(TRACESTATE);
                Self {
                    trace_id: rand::random::<u128>().max(1),
                    span_id,
                    parent: None,
                    sampled: rand::random::<f64>() < sampling.0,
                }
            }
        };
        let text = format!("00-{:032x}-{span_id:016x}-{:02x}", span.trace_id, u8::from(span.sampled));
        // Hexadecimal digits and hyphens are always a header's value.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
        span
    }

    /// Whether it is exported.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The trace, in hexadecimal.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_span_continues_the_callers_trace_and_is_the_next_ones_parent() {
        let mut headers = headers(&[GOOD]);
        let first = Trace::begin(&mut headers, &Sampling(0.0));
        assert_eq!(first.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((first.parent, first.is_sampled()), (Some(0x00f0_67aa_0ba9_02b7), true));
        let second = Trace::begin(&mut headers, &Sampling(0.0));
        assert_eq!((second.trace_id, second.parent), (first.trace_id, Some(first.span_id)));
    }

    #[test]
    fn what_others_keep_of_a_trace_goes_on_with_it_and_ends_where_another_begins() {
        for (parent, kept) in [(GOOD, true), ("unreadable", false)] {
            let mut headers = headers(&[parent]);
            headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
            Trace::begin(&mut headers, &Sampling(1.0));
            assert_eq!(headers.contains_key(TRACESTATE), kept, "{parent}");
        }
    }

    #[test]
    fn a_caller_that_decided_against_sampling_is_heeded() {
        let mut headers = headers(&[&GOOD.replace("-01", "-00")]);
        assert!(!Trace::begin(&mut headers, &Sampling(1.0)).is_sampled());
        assert!(headers[TRACEPARENT].to_str().unwrap().ends_with("-00"));
    }

    #[test]
    fn without_a_trace_one_begins_and_sampling_says_whether_it_is_exported() {
        assert!(Trace::begin(&mut HeaderMap::new(), &Sampling(1.0)).is_sampled());
        let mut headers = HeaderMap::new();
        let trace = Trace::begin(&mut headers, &Sampling(0.0));
        assert_eq!((trace.parent, trace.is_sampled()), (None, false));
        assert_eq!(Parent::of(&headers).unwrap().trace_id, trace.trace_id);
    }

    #[test]
    fn what_is_no_trace_context_is_none() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(Parent::of(&headers(&[text])), None, "{text}");
        }
        assert_eq!(Parent::of(&headers(&[GOOD, GOOD])), None);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(Parent::of(&headers(&[later])).is_some());
    }
}
