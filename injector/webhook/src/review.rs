//! AdmissionReviews (admission.k8s.io/v1): bytes in, what is asked out; a verdict in, the answer out. Nothing is decided here.
//!
//! A review that can't be read, or that asks about anything but the creation of a pod, is answered with an error and not with
//! "allowed": whoever sent it has another idea of us than we have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_injector::{Injected, Skipped};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// The only version that is spoken.
const VERSION: &str = "admission.k8s.io/v1";
/// The most that is repeated of a stranger's words, in characters.
const LONGEST: usize = 300;
/// The longest message to who creates a pod, in characters. Events have at most 1024 bytes.
const LONGEST_MESSAGE: usize = 800;

/// A pod that is about to be created.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// The review's own, to be repeated in the answer.
    pub(crate) uid: String,
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// Nothing will come of it.
    pub(crate) dry_run: bool,
    /// The pod, whose own `metadata.namespace` may be missing, and whose name may have to be made from `generateName` yet.
    pub(crate) pod: Value,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It gets its sidecar.
    Injected {
        /// How.
        injected: Box<Injected>,
        /// A line each, for who creates it.
        warnings: Vec<String>,
    },
    /// It is created as it is.
    Skipped {
        /// Why.
        reason: Skipped,
        /// A line each, for who creates it.
        warnings: Vec<String>,
    },
    /// It isn't created. For who creates it: which pod, what, and what to do.
    Refused(String),
}

/// What isn't a review that we answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Garbled {
    #[error("the body isn't an AdmissionReview: {0}")]
    Unreadable(String),
    #[error("the body is {kind} of {version}; expected is AdmissionReview of {VERSION}")]
    Kind { version: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
    #[error("asked is about {0}; only the creation of pods is answered: look at the webhook's rules")]
    NotOurs(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Asked>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

/// Reads a review.
pub(crate) fn read(body: &[u8]) -> Result<Request, Garbled> {
    // serde_json goes 128 levels deep and no deeper, so that nesting costs no stack.
    let review: Review =
        serde_json::from_slice(body).map_err(|error| Garbled::Unreadable(one_line(&error.to_string())))?;
    if (review.api_version.as_str(), review.kind.as_str()) != (VERSION, "AdmissionReview") {
        let (version, kind) = (or_nothing(&review.api_version), or_nothing(&review.kind));
        return Err(Garbled::Kind { version, kind });
    }
    let asked = review.request.ok_or(Garbled::NoRequest)?;
    if asked.uid.is_empty() {
        return Err(Garbled::NoUid);
    }
    let Kind { group, version, kind } = &asked.kind;
    let sub_resource = asked.sub_resource.filter(|name| !name.is_empty());
    let is_pod = (group.as_str(), version.as_str(), kind.as_str()) == ("", "v1", "Pod");
    if !is_pod || sub_resource.is_some() || asked.operation != "CREATE" || asked.namespace.is_empty() {
        let part = sub_resource.map(|name| format!("/{name}")).unwrap_or_default();
        let what = format!("{} of {kind}{part} ({group}/{version})", or_nothing(&asked.operation));
        return Err(Garbled::NotOurs(one_line(&what)));
    }
    Ok(Request {
        uid: asked.uid,
        namespace: asked.namespace,
        dry_run: asked.dry_run.unwrap_or(false),
        pod: asked.object,
    })
}

/// The answer to a review.
pub(crate) fn answer(uid: &str, verdict: &Verdict) -> Value {
    let mut response = json!({"uid": uid, "allowed": !matches!(verdict, Verdict::Refused(_))});
    let warnings = match verdict {
        Verdict::Injected { warnings, .. } | Verdict::Skipped { warnings, .. } => warnings.as_slice(),
        Verdict::Refused(_) => &[],
    };
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
    match verdict {
        Verdict::Injected { injected, .. } if !injected.patch.is_empty() => {
            let patch = json!(injected.patch).to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch).into();
        }
        Verdict::Refused(message) => {
            response["status"] =
                json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": message});
        }
        _ => {}
    }
    json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
}

impl Request {
    /// The pod for people: its name, or what its name will begin with.
    pub(crate) fn name(&self) -> String {
        let text = |field| {
            let text = self.pod.get("metadata").and_then(|metadata| metadata.get(field));
            text.and_then(Value::as_str).filter(|text| !text.is_empty())
        };
        let name = match (text("name"), text("generateName")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(prefix)) => format!("{prefix}…"),
            (None, None) => "without a name".to_owned(),
        };
        one_line(&format!("{}/{name}", self.namespace))
    }
}

/// Words of a stranger's, for a log: on one line, and short.
pub(crate) fn one_line(text: &str) -> String {
    bounded(text, LONGEST)
}

/// A message for people, into which a stranger's words have gone: on one line, and no longer than people read.
pub(crate) fn message(text: &str) -> String {
    bounded(text, LONGEST_MESSAGE)
}

fn bounded(text: &str, longest: usize) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = characters.by_ref().take(longest).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { one_line(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review() -> Value {
        json!({
            "apiVersion": VERSION,
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": "CREATE",
                "object": {"metadata": {"generateName": "web-5d4f-"}, "spec": {"containers": []}},
                "dryRun": true,
                "options": {"kind": "CreateOptions"},
            },
        })
    }

    fn read_spoiled(spoil: impl FnOnce(&mut Value)) -> Result<Request, Garbled> {
        let mut review = review();
        spoil(&mut review);
        read(review.to_string().as_bytes())
    }

    #[test]
    fn a_pods_creation_is_read() {
        let request = read_spoiled(|_| {}).unwrap();
        assert_eq!((request.uid.as_str(), request.name().as_str()), ("705ab4f5", "shop/web-5d4f-…"));
        assert!(request.dry_run);
        assert_eq!(request.pod["spec"], json!({"containers": []}));
    }

    #[test]
    fn what_asks_about_something_else_is_told_what_is_answered() {
        type Spoil = fn(&mut Value);
        let spoils: [(Spoil, &str); 9] = [
            (
                |review| review["apiVersion"] = "admission.k8s.io/v1beta1".into(),
                "of admission.k8s.io/v1beta1",
            ),
            (|review| review["kind"] = "Pod".into(), "the body is Pod of"),
            (|review| *review = json!({}), "the body is nothing of nothing"),
            (|review| review["request"] = Value::Null, "has no request"),
            (|review| review["request"]["uid"] = "".into(), "has no uid"),
            (|review| review["request"]["kind"]["kind"] = "Deployment".into(), "CREATE of Deployment (/v1)"),
            (
                |review| review["request"]["subResource"] = "ephemeralcontainers".into(),
                "Pod/ephemeralcontainers",
            ),
            (|review| review["request"]["operation"] = "UPDATE".into(), "UPDATE of Pod"),
            (|review| review["request"]["namespace"] = "".into(), "only the creation of pods"),
        ];
        for (spoil, expected) in spoils {
            let garbled = read_spoiled(spoil).unwrap_err().to_string();
            assert!(garbled.contains(expected), "{garbled}");
        }
    }

    #[test]
    fn what_is_no_review_at_all_is_one_short_line_wherever_it_breaks_off() {
        let whole = review().to_string();
        for end in 0..whole.len() {
            let garbled = read(&whole.as_bytes()[..end]).unwrap_err().to_string();
            assert!(!garbled.contains('\n') && garbled.len() < 500, "{garbled}");
        }
        let nested = "[".repeat(3_000_000);
        let long = format!("{{\"kind\": \"{}\\n\"}}", "x".repeat(100_000));
        for hostile in ["null", "[]", "\"\\u0000\n\"", "{\"request\": []}", &nested, &long, "\u{feff}{}"] {
            let garbled = read(hostile.as_bytes()).unwrap_err().to_string();
            assert!(garbled.len() < 1000 && !garbled.contains('\n'), "{garbled}");
        }
        assert!(read(&[0xff; 64]).is_err());
        let nested_pod = format!("{}{}", "{\"a\":".repeat(200), "1");
        let nested_pod =
            whole.replacen("{\"containers\":[]}", &format!("{nested_pod}{}", "}".repeat(200)), 1);
        assert!(matches!(read(nested_pod.as_bytes()), Err(Garbled::Unreadable(_))));
    }

    #[test]
    fn a_refusal_says_why_where_kubectl_shows_it() {
        let answer = answer("705ab4f5", &Verdict::Refused("pod shop/web: no".to_owned()));
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["message"], "pod shop/web: no");
        assert_eq!(answer["response"].get("patch"), None);
    }
}
