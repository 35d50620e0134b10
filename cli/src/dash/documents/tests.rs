//! Answers in, documents out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::{
    dash::history::{Answer, Splits},
    routes::{self, Backend, Condition, Own, Parent, Route, Rule},
    status,
    world::Place,
};

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\u{202e}</script>";

fn backend(name: &str, weight: u64) -> Backend {
    let (id, share) = (format!("service/shop/{name}:80"), weight as f64);
    Backend { id, weight, share, answered: None, requests: 0, got: None, failed: 0 }
}

fn web(backends: Vec<Backend>) -> Route {
    let accepted = Condition { kind: "Accepted".into(), status: "True".into(), ..Condition::default() };
    let split = Rule {
        name: "split".into(),
        named: true,
        dropped: None,
        own: Own::default(),
        matches: vec![HOSTILE.into()],
        settings: vec![],
        sessions: vec![],
        backends,
    };
    Route {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: "web".into(),
        parents: vec![Parent {
            reference: "Service shop/web, port 80".into(),
            role: "producer",
            conditions: vec![accepted],
        }],
        missed: vec![],
        silent: vec![],
        bare: vec![],
        unmatched: 0,
        rules: vec![split],
    }
}

fn answers(routes: Vec<Route>, services: &[&str]) -> Answers {
    let world = Place::Machine;
    Answers {
        time: Timestamp::UNIX_EPOCH,
        routes: routes::Report { world: world.clone(), routes, extensions: vec![], notes: vec![] },
        status: status::Report {
            world,
            components: vec![],
            pods: vec![],
            sessions: vec![],
            problems: vec![HOSTILE.to_owned()],
            warnings: vec![],
            waiting_for: vec![],
        },
        pods: vec![],
        services: services.iter().map(ToString::to_string).collect(),
    }
}

/// A client's sidecar, asked every two seconds, and the split as it is set each time.
struct Story {
    state: State,
    start: Instant,
    rounds: u32,
    counted: [u64; 2],
    /// What the sidecar answered itself.
    own: u64,
}

impl Story {
    fn begin() -> Self {
        let mut story =
            Self { state: State::default(), start: Instant::now(), rounds: 0, counted: [1000, 1000], own: 5 };
        story.round([0, 0], [90, 10]);
        story
    }

    /// Requests to each of two backends, and the weights at the end of the round.
    fn round(&mut self, requests: [u64; 2], weights: [u64; 2]) {
        let at = self.start + Duration::from_secs(2) * self.rounds;
        let time = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(2 * i64::from(self.rounds));
        self.rounds += 1;
        let names = ["web-v1", "web-v2"];
        let mut counted = Vec::new();
        for ((name, sum), more) in names.into_iter().zip(&mut self.counted).zip(requests) {
            *sum += more;
            let key = Key {
                route: "httproute/shop/web".into(),
                rule: "split".into(),
                parent: "shop/web:80".into(),
                backend: format!("service/shop/{name}:80"),
            };
            counted.push((key, Count { requests: *sum, failed: 0, durations: vec![*sum] }));
        }
        let of_rule = Key {
            route: "httproute/shop/web".into(),
            rule: "split".into(),
            parent: "shop/web:80".into(),
            backend: String::new(),
        };
        counted.push((of_rule, Count { requests: self.own, failed: self.own, durations: vec![self.own] }));
        let backends: Vec<Backend> =
            names.into_iter().zip(weights).map(|(name, weight)| backend(name, weight)).collect();
        let shares = backends.iter().map(|backend| (backend.id.clone(), backend.share)).collect();
        let set = Splits::from([(("httproute/shop/web".into(), "split".into()), shares)]);
        let client = Answer { uid: "1".into(), pod: "shop/client".into(), counted: Some(counted) };
        self.state.history.observe(at, time, vec![client], set);
        self.state.newest = Some(answers(vec![web(backends)], &["shop/idle", "shop/web"]));
    }

    fn page(&self, path: &[&str]) -> Value {
        document_of(&self.state, path)["page"].take()
    }
}

fn document_of(state: &State, path: &[&str]) -> Value {
    serde_json::from_slice(&document(state, path).unwrap().expect("a document")).unwrap()
}

#[test]
fn a_splits_points_have_what_was_set_then_and_what_was_got_lately() {
    let mut story = Story::begin();
    for _ in 0..5 {
        story.round([88, 12], [90, 10]);
    }
    for _ in 0..5 {
        story.round([50, 50], [50, 50]);
    }
    let page = story.page(&["routes", "HTTPRoute", "shop", "web"]);
    let points = page["rules"][0]["points"].as_array().unwrap();
    assert_eq!(
        points[0],
        json!({"time": 0, "set": [90.0, 10.0], "got": null}),
        "nothing to compare with yet"
    );
    assert_eq!(points[5], json!({"time": 10_000, "set": [90.0, 10.0], "got": [88.0, 12.0, 0.0]}));
    let got = points[7]["got"][0].as_f64().unwrap();
    assert_eq!(points[7]["set"], json!([50.0, 50.0]), "set at once");
    assert!((50.0..88.0).contains(&got), "got over ten seconds: {got}");
    assert_eq!(points[10]["got"], json!([50.0, 50.0, 0.0]));
    assert_eq!(page["rules"][0]["figures"][1]["rate"], (5 * 12 + 5 * 50) as f64 / 20.0);
    assert_eq!(page["parents"][0]["service"], "shop/web");
    assert_eq!(page["parents"][0]["conditions"][0]["tone"], "good");
}

#[test]
fn what_sidecars_answer_themselves_has_a_share_of_the_split_and_figures() {
    let mut story = Story::begin();
    story.own += 10;
    story.round([90, 0], [90, 10]);
    let page = story.page(&["routes", "HTTPRoute", "shop", "web"]);
    assert_eq!(page["rules"][0]["points"][1]["got"], json!([90.0, 0.0, 10.0]));
    let own = &page["rules"][0]["own_figures"];
    assert_eq!((&own["rate"], &own["success"]), (&json!(5.0), &json!(0.0)));
    let mut route = web(vec![]);
    (route.parents, route.missed, route.unmatched) = (vec![], vec!["write group".to_owned()], 30);
    story.state.newest = Some(answers(vec![route], &[]));
    let page = story.page(&["routes", "HTTPRoute", "shop", "web"]);
    assert_eq!((&page["missed"], &page["unmatched"]), (&json!(["write group"]), &json!(30)));
}

#[test]
fn services_have_the_figures_of_what_was_sent_to_them_and_idle_ones_none() {
    let mut story = Story::begin();
    story.round([30, 10], [90, 10]);
    let rows = story.page(&["services"]);
    assert_eq!((&rows[0]["name"], &rows[0]["figures"]["rate"]), (&json!("shop/idle"), &json!(0.0)));
    assert_eq!(rows[1]["figures"]["rate"], 20.0);
    let received = story.page(&["services", "shop", "web"])["received"]["rate"].take();
    assert_eq!(received, 0.0, "all of it was sent to the backends");
    assert_eq!((&rows[1]["trend"], &rows[1]["routes"]), (&json!([0.0, 20.0]), &json!(1)));
    let web = story.page(&["services", "shop", "web"]);
    let backends: Vec<_> = web["sent"].as_array().unwrap().iter().map(|sent| &sent["backend"]).collect();
    assert_eq!(backends, ["service/shop/web-v1:80", "service/shop/web-v2:80"]);
    assert_eq!(web["callers"][0]["pod"], "shop/client");
    assert_eq!(web["points"].as_array().unwrap().len(), 2);
}

#[test]
fn texts_from_elsewhere_arrive_as_they_are() {
    let story = Story::begin();
    let document = document_of(&story.state, &["routes", "HTTPRoute", "shop", "web"]);
    assert_eq!(document["page"]["rules"][0]["matches"][0], HOSTILE);
    assert_eq!(document["problems"][0], HOSTILE);
}

#[test]
fn what_is_not_there_is_no_page_and_what_was_never_asked_has_a_reason() {
    let mut story = Story::begin();
    for path in
        [&["services", "shop", "gone"][..], &["routes", "HTTPRoute", "shop", "x"], &["pods", "shop", "x"]]
    {
        assert_eq!(story.page(path), Value::Null, "{path:?}");
    }
    assert!(document(&story.state, &["secrets"]).unwrap().is_none());
    let unreachable = State { problem: Some("no answer".into()), ..State::default() };
    let document = document_of(&unreachable, &["services"]);
    assert_eq!((&document["problem"], &document["page"]), (&json!("no answer"), &Value::Null));
    story.state.problem = unreachable.problem;
    let document = document_of(&story.state, &["services"]);
    assert_eq!(document["page"].as_array().unwrap().len(), 2, "what was known stays");
}
