//! Watches against a scripted API server: which requests come, and what is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::core;

/// An answer of the scripted server.
enum Answer {
    /// A document.
    Document(u16, Value),
    /// A stream of events, which then ends.
    Ends(Vec<Value>),
    /// A stream of events, after which nothing comes any more.
    Stays(Vec<Value>),
    /// No connection.
    Refused,
}

type Streamed = UnsyncBoxBody<bytes::Bytes, std::io::Error>;

/// Each request with a part of its path and query, and its answer.
type Script = Vec<(&'static str, Answer)>;

struct Scripted {
    watch: Watch,
    left: Arc<Mutex<VecDeque<(&'static str, Answer)>>>,
}

impl Scripted {
    fn new(script: Script) -> Self {
        Self::of(vec![core::SERVICE], script)
    }

    fn of(versions: Vec<Resource>, script: Script) -> Self {
        let left = Arc::new(Mutex::new(VecDeque::from(script)));
        let server = left.clone();
        let service = service_fn(move |request: Request<Body>| {
            let asked = request.uri().to_string();
            let (expected, answer) =
                server.lock().unwrap().pop_front().unwrap_or_else(|| panic!("unexpected: {asked}"));
            assert!(asked.contains(expected), "{asked} came; expected was {expected}");
            async move { respond(answer) }
        });
        let cluster = Cluster::over(kube::Client::new(service, "default"));
        Self { watch: Watch::of_versions(cluster, versions, Selection::default()), left }
    }

    /// What is told by so many calls, failures as their texts.
    async fn told(&mut self, calls: usize) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..calls {
            match self.watch.next().await {
                Ok(events) => told.extend(events.iter().map(described)),
                Err(error) => told.push(error.to_string()),
            }
        }
        told
    }

    fn is_over(&self) -> bool {
        self.left.lock().unwrap().is_empty()
    }
}

fn respond(answer: Answer) -> Result<Response<Streamed>, kube::Error> {
    let line = |event: Value| Ok::<_, std::io::Error>(format!("{event}\n").into_bytes());
    let lines = |events: Vec<Value>| stream::iter(events.into_iter().map(line).collect::<Vec<_>>());
    let (status, body) = match answer {
        Answer::Document(status, document) => (status, streamed(lines(vec![document]))),
        Answer::Ends(events) => (200, streamed(lines(events))),
        Answer::Stays(events) => (200, streamed(lines(events).chain(stream::pending()))),
        Answer::Refused => {
            return Err(kube::Error::ReadEvents(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        }
    };
    Ok(Response::builder().status(status).body(body).unwrap())
}

fn streamed(
    bytes: impl futures_util::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send + 'static,
) -> Streamed {
    let frames = bytes.map(|bytes| bytes.map(|bytes| http_body::Frame::data(bytes.into())));
    StreamBody::new(frames).boxed_unsync()
}

fn described(event: &Event) -> String {
    match event {
        Event::Applied(object) => {
            format!("{} at {}", object["metadata"]["name"], object["metadata"]["resourceVersion"])
        }
        Event::Deleted(key) => format!("{} gone", key.name),
        Event::Complete => "complete".to_owned(),
        Event::NotServed => "not served".to_owned(),
    }
    .replace('"', "")
}

fn object(name: &str, version: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}})
}

fn page(version: &str, next: &str, objects: &[(&str, &str)]) -> Answer {
    let items: Vec<Value> = objects.iter().map(|(name, version)| object(name, version)).collect();
    Answer::Document(200, json!({"metadata": {"resourceVersion": version, "continue": next}, "items": items}))
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn event(kind: &str, name: &str, version: &str) -> Value {
    json!({"type": kind, "object": object(name, version)})
}

fn bookmark(version: &str) -> Value {
    json!({"type": "BOOKMARK", "object": {"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": version}}})
}

#[tokio::test(start_paused = true)]
async fn pages_are_read_in_turn_and_followed_from_the_last_ones_version() {
    let mut server = Scripted::new(vec![
        ("limit=500", page("", "more", &[("a", "1"), ("b", "2")])),
        ("continue=more", page("7", "", &[("c", "3")])),
        ("watch=true", Answer::Stays(vec![event("MODIFIED", "a", "8"), event("DELETED", "b", "9")])),
    ]);
    assert_eq!(server.told(3).await, ["a at 1", "b at 2", "c at 3", "complete", "a at 8", "b gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_nothing_is_complete() {
    let nothing = json!({"metadata": {"resourceVersion": "7"}, "items": null});
    let mut server = Scripted::new(vec![("limit=500", Answer::Document(200, nothing))]);
    assert_eq!(server.told(1).await, ["complete"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_taken_up_where_the_bookmark_says_and_nothing_is_told_twice() {
    let mut server = Scripted::new(vec![
        ("limit=500", page("7", "", &[("a", "1")])),
        ("resourceVersion=7", Answer::Ends(vec![event("MODIFIED", "a", "8"), bookmark("40")])),
        ("resourceVersion=40", Answer::Stays(vec![event("MODIFIED", "a", "8"), event("ADDED", "b", "41")])),
    ]);
    assert_eq!(server.told(3).await, ["a at 1", "complete", "a at 8", "b at 41"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_has_expired_is_listed_anew_and_only_differences_are_told() {
    for expired in [
        Answer::Stays(vec![json!({"type": "ERROR", "object": failure(410, "Expired")})]),
        Answer::Document(410, failure(410, "Expired")),
    ] {
        let mut server = Scripted::new(vec![
            ("limit=500", page("7", "", &[("a", "1"), ("b", "2")])),
            ("resourceVersion=7", expired),
            ("limit=500", page("90", "", &[("a", "1"), ("c", "80")])),
            ("resourceVersion=90", Answer::Stays(vec![event("MODIFIED", "a", "91")])),
        ]);
        let told = server.told(4).await;
        assert_eq!(told[..3], ["a at 1", "b at 2", "complete"]);
        assert!(told[3].contains("isn't kept any more"), "{told:?}");
        assert_eq!(told[4..], ["c at 80", "b gone", "complete", "a at 91"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_takes_nothing_away() {
    let mut server = Scripted::new(vec![
        ("limit=500", page("7", "", &[("a", "1"), ("b", "2")])),
        ("resourceVersion=7", Answer::Document(410, failure(410, "Expired"))),
        // While it is listed anew, between two pages.
        ("limit=500", page("", "more", &[("a", "1")])),
        ("continue=more", Answer::Refused),
        ("limit=500", Answer::Document(503, failure(503, "ServiceUnavailable"))),
        ("limit=500", page("90", "", &[("a", "1"), ("b", "2")])),
    ]);
    let told = server.told(5).await;
    assert!(told.iter().all(|told| !told.contains("gone")), "{told:?}");
    assert_eq!(
        told.iter().filter(|told| *told == "b at 2").count(),
        1,
        "what was known is told again: {told:?}"
    );
    assert_eq!(told.last().unwrap(), "complete");
    assert!(server.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_for_too_long_is_opened_anew() {
    let mut server = Scripted::new(vec![
        ("limit=500", page("7", "", &[])),
        ("resourceVersion=7", Answer::Stays(vec![])),
        ("resourceVersion=7", Answer::Stays(vec![event("ADDED", "a", "8")])),
    ]);
    let start = Instant::now();
    assert_eq!(server.told(2).await, ["complete", "a at 8"]);
    assert!(start.elapsed() >= SILENCE);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_paused_between_longer_and_longer() {
    let mut server = Scripted::new((0..8).map(|_| ("limit=500", Answer::Refused)).collect());
    let start = Instant::now();
    server.told(8).await;
    // Half of 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 + 10 s at least.
    assert!(start.elapsed() > Duration::from_secs(11), "{:?}", start.elapsed());
}

fn route(version: &'static str) -> Resource {
    Resource::namespaced("gateway.networking.k8s.io", version, "TLSRoute", "tlsroutes")
}

fn not_found() -> Answer {
    Answer::Document(404, failure(404, "NotFound"))
}

#[tokio::test(start_paused = true)]
async fn the_first_version_that_is_served_is_watched_and_none_at_all_is_said() {
    let mut server = Scripted::of(
        vec![route("v1"), route("v1alpha2")],
        vec![
            ("/v1/", not_found()),
            ("/v1alpha2/", not_found()),
            // Some seconds later the definition is there, in an old version.
            ("/v1/", not_found()),
            ("/v1alpha2/", page("7", "", &[("a", "1")])),
            ("/v1alpha2/", Answer::Stays(vec![event("MODIFIED", "a", "8")])),
        ],
    );
    assert_eq!(server.told(3).await, ["not served", "a at 1", "complete", "a at 8"]);
    assert_eq!(server.watch.resource(), Some(route("v1alpha2")));
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_kind_that_is_suddenly_unknown_are_gone_only_when_that_lasts() {
    let mut script = vec![
        ("limit=500", page("7", "", &[("a", "1")])),
        ("resourceVersion=7", Answer::Document(404, failure(404, "NotFound"))),
    ];
    script.extend((0..20).map(|_| ("limit=500", not_found())));
    let mut server = Scripted::new(script);
    assert_eq!(server.told(1).await, ["a at 1", "complete"]);
    let start = Instant::now();
    while server.told(1).await.concat() != "a gonenot served" {
        assert!(start.elapsed() < 2 * MISLAID, "never said");
    }
    assert!(start.elapsed() >= MISLAID, "{:?}", start.elapsed());
}

#[test]
fn pauses_grow_up_to_a_limit_and_are_never_the_same() {
    for (failures, longest) in [(1, 200), (2, 400), (5, 3_200), (7, 10_000), (u32::MAX, 10_000)] {
        let pauses: Vec<Duration> = (0..50).map(|_| pause(failures)).collect();
        let longest = Duration::from_millis(longest);
        assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{failures}: {pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}

#[test]
fn items_of_lists_get_their_kind_and_lose_the_servers_bookkeeping() {
    let item = json!({"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "managedFields": [{}]}});
    let (key, version) = identified(&item).unwrap();
    assert_eq!((key.namespace.as_deref(), &*key.name, &*version), (Some("shop"), "web", "7"));
    let completed = completed(item, &core::SERVICE);
    assert_eq!(completed["kind"], "Service");
    assert_eq!(completed["apiVersion"], "v1");
    assert_eq!(completed["metadata"].get("managedFields"), None);
}
