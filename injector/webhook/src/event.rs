//! The Events that the injector writes: what `kubectl describe` shows below an object (but below a Namespace, whose
//! are in `kubectl get events`).

use jiff::Timestamp;
use serde_json::{Value, json};

/// The longest part of an object's name that an Event's name begins with: that may have 253 characters.
const LONGEST_PREFIX: usize = 200;

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) api_version: String,
    pub(crate) kind: &'static str,
    /// The Event's own. One about a Namespace is in that namespace, where its people look.
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
}

/// What an Event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    /// For programs, as `NoSidecar`.
    pub(crate) reason: &'static str,
    /// A sentence, with what to do.
    pub(crate) message: &'a str,
    /// What tells it from other Events about the same object: the end of its name.
    pub(crate) suffix: &'a str,
}

/// An Event of type `Warning`. Its name is made from the object's UID, so that there is one, whichever replica writes it.
pub(crate) fn event(about: &About, words: Words<'_>, replica: &str, now: Timestamp) -> Value {
    let About { api_version, kind, namespace, name, uid } = about;
    let prefix = name.get(..LONGEST_PREFIX).unwrap_or(name).trim_end_matches(['.', '-']);
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": format!("{prefix}.{uid}.{}", words.suffix)},
        "involvedObject": {
            "apiVersion": api_version, "kind": kind, "namespace": namespace, "name": name, "uid": uid,
        },
        "type": "Warning",
        "reason": words.reason,
        "message": words.message,
        "source": {"component": "gamut-injector"},
        "reportingComponent": "gamut.mesh/injector",
        "reportingInstance": replica,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_event_for_an_object_whoever_writes_it_and_however_long_its_name_is() {
        let about = About {
            api_version: "v1".to_owned(),
            kind: "Pod",
            namespace: "shop".into(),
            name: format!("{}-{}", "a".repeat(199), "b".repeat(53)).into(),
            uid: "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10".into(),
        };
        let words = Words { reason: "NoSidecar", message: "", suffix: "no-sidecar" };
        let one = event(&about, words, "gamut-injector-a", "2026-01-01T00:00:00.5Z".parse().unwrap());
        let other = event(&about, words, "gamut-injector-b", "2026-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(one["metadata"], other["metadata"]);
        let name = one["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 253 && name.contains("aa.0b8f6f3e"), "{name}");
        assert_eq!(one["firstTimestamp"], "2026-01-01T00:00:00Z");
    }
}
