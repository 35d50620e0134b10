//! Header modifiers: set, add and remove, with names and values parsed beforehand.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{FilterError, HeaderEdits};

/// Header edits in the order in which they are made.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    ops: Vec<(HeaderName, Op)>,
    host: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum Op {
    Set(HeaderValue),
    Add(HeaderValue),
    Remove,
}

/// Headers that say how a message is framed or where its hop ends (RFC 9110 §7.6.1, RFC 9112 §6). Edits would
/// let requests be smuggled.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl HeaderOps {
    /// Appends the edits of one filter.
    pub fn extend(&mut self, edits: &HeaderEdits) -> Result<(), FilterError> {
        let set = parsed(&edits.set, Op::Set)?;
        let add = parsed(&edits.add, Op::Add)?;
        let remove = edits.remove.iter().map(|name| Ok((parse_name(name)?, Op::Remove)));
        let remove = remove.collect::<Result<Vec<_>, FilterError>>()?;
        // "Only one action for a given header name is permitted" (HTTPHeaderFilter).
        let twice =
            |at: usize, ops: &[(HeaderName, Op)]| ops[..at].iter().any(|(name, _)| *name == ops[at].0);
        let ops: Vec<_> = set.into_iter().chain(add).chain(remove).collect();
        if let Some(at) = (0..ops.len()).find(|&at| twice(at, &ops)) {
            return Err(FilterError::EditedTwice { name: ops[at].0.to_string() });
        }
        if let Some((name, _)) = ops.iter().find(|(name, _)| OF_THE_CONNECTION.contains(name)) {
            return Err(FilterError::ConnectionHeader { name: name.to_string() });
        }
        for (name, op) in ops {
            match op {
                // A request has exactly one host, and HTTP/2 has it elsewhere: see `host`.
                Op::Set(value) if name == header::HOST => self.host = Some(value),
                Op::Add(_) | Op::Remove if name == header::HOST => {}
                op => self.ops.push((name, op)),
            }
        }
        Ok(())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.host.is_none()
    }

    /// What `host` is set to. It is not among the edits of [`HeaderOps::apply`]: HTTP/2 has it in
    /// `:authority`. Adding and removing a host does nothing.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Makes the edits.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, op) in &self.ops {
            match op {
                Op::Set(value) => {
                    headers.insert(name, value.clone());
                }
                Op::Add(value) => add(headers, name, value),
                Op::Remove => {
                    headers.remove(name);
                }
            }
        }
    }
}

/// Adds a value the way the specification's example shows it: behind the last value, in the same line and
/// separated by a comma, because many applications look at one line only. `Set-Cookie` can't be joined (RFC
/// 9110 §5.3); cookies are joined by `; `.
fn add(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if name != header::SET_COOKIE
        && let header::Entry::Occupied(mut entry) = headers.entry(name)
        && let Some(last) = entry.iter_mut().next_back()
    {
        let separator: &[u8] = if name == header::COOKIE { b"; " } else { b"," };
        if let Ok(joined) = HeaderValue::from_bytes(&[last.as_bytes(), separator, value.as_bytes()].concat())
        {
            *last = joined;
            return;
        }
    }
    headers.append(name, value.clone());
}

/// Names and values of one list. Where names repeat, only the first entry counts (`HTTPHeader.name`).
fn parsed(
    entries: &[(String, String)],
    op: impl Fn(HeaderValue) -> Op,
) -> Result<Vec<(HeaderName, Op)>, FilterError> {
    let mut ops: Vec<(HeaderName, Op)> = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let name = parse_name(name)?;
        let value =
            HeaderValue::from_str(value).map_err(|_| FilterError::HeaderValue { name: name.to_string() })?;
        if !ops.iter().any(|(before, _)| *before == name) {
            ops.push((name, op(value)));
        }
    }
    Ok(ops)
}

pub(super) fn parse_name(name: &str) -> Result<HeaderName, FilterError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| FilterError::HeaderName { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
        let remove = remove.iter().map(|name| (*name).to_owned()).collect();
        HeaderEdits { set: pairs(set), add: pairs(add), remove }
    }

    fn ops(edits: &HeaderEdits) -> Result<HeaderOps, FilterError> {
        let mut ops = HeaderOps::default();
        ops.extend(edits).map(|()| ops)
    }

    fn applied(edits: &HeaderEdits, before: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        ops(edits).unwrap().apply(&mut headers);
        let mut after: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        after.sort();
        after
    }

    #[test]
    fn set_replaces_every_value_and_makes_one_where_there_is_none() {
        let set = edits(&[("My-Header", "bar")], &[], &[]);
        assert_eq!(
            applied(&set, &[("my-header", "foo"), ("my-header", "baz")]),
            pairs(&[("my-header", "bar")])
        );
        assert_eq!(applied(&set, &[]), pairs(&[("my-header", "bar")]));
    }

    #[test]
    fn add_appends_in_the_same_line() {
        let add = edits(&[], &[("My-Header", "bar,baz")], &[]);
        assert_eq!(applied(&add, &[("my-header", "foo")]), pairs(&[("my-header", "foo,bar,baz")]));
        assert_eq!(
            applied(&add, &[("my-header", "a"), ("my-header", "b")]),
            pairs(&[("my-header", "a"), ("my-header", "b,bar,baz")])
        );
        assert_eq!(applied(&add, &[]), pairs(&[("my-header", "bar,baz")]));
    }

    #[test]
    fn cookies_are_joined_their_own_way() {
        let add = edits(&[], &[("Cookie", "b=2")], &[]);
        assert_eq!(applied(&add, &[("cookie", "a=1")]), pairs(&[("cookie", "a=1; b=2")]));
        let add = edits(&[], &[("Set-Cookie", "b=2")], &[]);
        assert_eq!(
            applied(&add, &[("set-cookie", "a=1")]),
            pairs(&[("set-cookie", "a=1"), ("set-cookie", "b=2")])
        );
    }

    #[test]
    fn remove_takes_every_value_whatever_the_case_of_the_name() {
        let remove = edits(&[], &[], &["my-header1", "MY-HEADER3"]);
        let before = [("My-Header1", "foo"), ("my-header2", "bar"), ("my-header3", "a"), ("my-header3", "b")];
        assert_eq!(applied(&remove, &before), pairs(&[("my-header2", "bar")]));
    }

    #[test]
    fn only_the_first_of_equal_names_in_a_list_counts() {
        let set = edits(&[("Foo", "1"), ("foo", "2")], &[], &[]);
        assert_eq!(applied(&set, &[]), pairs(&[("foo", "1")]));
    }

    #[test]
    fn one_header_has_one_action() {
        for twice in [
            edits(&[("a", "1")], &[("A", "2")], &[]),
            edits(&[("a", "1")], &[], &["A"]),
            edits(&[], &[], &["a", "a"]),
        ] {
            assert_eq!(ops(&twice).unwrap_err(), FilterError::EditedTwice { name: "a".to_owned() });
        }
    }

    #[test]
    fn the_host_is_kept_apart() {
        let host = ops(&edits(&[("Host", "other")], &[], &[])).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("web"));
        host.apply(&mut headers);
        assert_eq!(headers["host"], "web");
        assert_eq!(host.host().unwrap(), "other");
        assert!(!host.is_empty());
        assert!(ops(&edits(&[], &[("host", "x")], &[])).unwrap().is_empty());
    }

    #[test]
    fn edits_that_cannot_be_made_are_refused() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "keep-alive",
            "Proxy-Connection",
            "te",
            "trailer",
            "upgrade",
        ] {
            assert!(
                matches!(ops(&edits(&[], &[], &[name])), Err(FilterError::ConnectionHeader { .. })),
                "{name}"
            );
        }
        assert!(matches!(ops(&edits(&[(":path", "/")], &[], &[])), Err(FilterError::HeaderName { .. })));
        assert!(matches!(ops(&edits(&[("a b", "")], &[], &[])), Err(FilterError::HeaderName { .. })));
        assert!(matches!(
            ops(&edits(
                &[],
                &[(
                    "a", "b
c: d"
                )],
                &[]
            )),
            Err(FilterError::HeaderValue { .. })
        ));
    }
}
