//! Sessions: a client stays where it was while weights move, and moves when its pod is gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::time::{Duration, SystemTime};

use caller::{App, Caller, KEY, get, header, read, rule, split};
use gamut_controller_api::Endpoint;
use gamut_proxy::telemetry::SessionOutcome;
use gamut_route::{
    Uid,
    session::{Affinity, token::Placement},
    table::{Carrier, Outcome, Rule, Session},
};
use http::{HeaderValue, Response};

const V1: &str = "shop/web-v1:80";
const V2: &str = "shop/web-v2:80";

fn cookie() -> Carrier {
    Carrier::Cookie { name: "canary".to_owned(), path: "/".to_owned(), permanent: false }
}

fn session(scope: &str, carrier: Carrier) -> Session {
    Session { scope: scope.to_owned(), carrier, absolute_timeout: None }
}

fn weighted(v1: u32, v2: u32, carrier: Carrier) -> Rule {
    Rule { session: Some(session("route/1/all", carrier)), ..rule(&[(V1, v1), (V2, v2)]) }
}

/// Two versions with two pods each, which answer with their names.
struct Versions([App; 4]);

impl Versions {
    async fn new() -> Self {
        Self([
            App::named("v1-a").await,
            App::named("v1-b").await,
            App::named("v2-a").await,
            App::named("v2-b").await,
        ])
    }

    fn v1(&self) -> Vec<Endpoint> {
        vec![self.0[0].endpoint("v1-a"), self.0[1].endpoint("v1-b")]
    }

    fn v2(&self) -> Vec<Endpoint> {
        vec![self.0[2].endpoint("v2-a"), self.0[3].endpoint("v2-b")]
    }

    async fn caller(&self, rule: Rule) -> Caller {
        Caller::new(vec![rule], &[(V1, self.v1()), (V2, self.v2())]).await
    }
}

/// A client with a cookie jar: who answered, and whether it was given a new token.
#[derive(Default)]
struct Jar(Option<String>);

impl Jar {
    async fn call(&mut self, caller: &Caller) -> (String, bool) {
        let mut request = get("/");
        if let Some(token) = &self.0 {
            request
                .headers_mut()
                .insert("cookie", HeaderValue::try_from(format!("other=1; {token}")).unwrap());
        }
        let (response, pod) = read(caller.send(request).await).await;
        assert_eq!(response.status(), 200);
        let set = header(&response, "set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned());
        let fresh = set.is_some();
        self.0 = set.or(self.0.take());
        (pod, fresh)
    }
}

fn outcome(caller: &Caller, outcome: SessionOutcome) -> u64 {
    let sessions = caller.telemetry.sessions();
    sessions
        .iter()
        .flat_map(|(_, counters)| counters.counts())
        .filter(|(o, _)| *o == outcome)
        .map(|(_, n)| n)
        .sum()
}

#[tokio::test]
async fn a_canarys_user_stays_on_its_pod_while_weights_go_to_zero_and_back() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, fresh) = user.call(&caller).await;
    assert!(pod.starts_with("v2") && fresh);
    for (v1, v2) in [(90, 10), (100, 0), (0, 100), (50, 50)] {
        caller.replace(vec![weighted(v1, v2, cookie())]);
        for _ in 0..50 {
            assert_eq!(user.call(&caller).await, (pod.clone(), false));
        }
    }
    assert_eq!(outcome(&caller, SessionOutcome::Kept), 200);
    assert_eq!(outcome(&caller, SessionOutcome::Started), 1);

    caller.replace(vec![weighted(100, 0, cookie())]);
    assert!(Jar::default().call(&caller).await.0.starts_with("v1"), "who is new follows the weights");
}

#[tokio::test]
async fn a_user_whose_pod_is_gone_stays_on_its_version_with_a_new_token() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&caller).await;
    caller.replace(vec![weighted(100, 0, cookie())]);
    let left: Vec<Endpoint> =
        versions.v2().into_iter().filter(|endpoint| endpoint.pod.as_ref().unwrap().name != pod).collect();
    caller.update(V2, &left);
    let (moved, fresh) = user.call(&caller).await;
    assert!(moved.starts_with("v2") && moved != pod && fresh);
    assert_eq!(user.call(&caller).await, (moved, false));

    caller.update(V2, &[]);
    let (fallen, fresh) = user.call(&caller).await;
    assert!(fallen.starts_with("v1") && fresh, "nothing of its version is left: the weights decide");
    assert_eq!(outcome(&caller, SessionOutcome::Moved), 2);
}

#[tokio::test]
async fn a_pod_that_terminates_keeps_its_users_while_it_serves() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&caller).await;
    let mut endpoints = versions.v2();
    for endpoint in &mut endpoints {
        if endpoint.pod.as_ref().unwrap().name == pod {
            (endpoint.ready, endpoint.terminating) = (false, true);
        }
    }
    caller.update(V2, &endpoints);
    assert_eq!(user.call(&caller).await, (pod, false));
}

#[tokio::test]
async fn a_user_whose_pod_refuses_connections_is_moved_and_told_so() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&caller).await;
    let nobody = mesh::nobody().await;
    let mut endpoints = versions.v2();
    for endpoint in &mut endpoints {
        if endpoint.pod.as_ref().unwrap().name == pod {
            endpoint.address = nobody;
        }
    }
    caller.update(V2, &endpoints);
    let (moved, fresh) = user.call(&caller).await;
    assert!(moved != pod && fresh);
    assert_eq!(user.call(&caller).await, (moved, false));
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_no_session_and_gets_a_fresh_one() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(50, 50, cookie())).await;
    let mut user = Jar(Some("canary=forged".to_owned()));
    assert!(user.call(&caller).await.1);
    assert!(!user.call(&caller).await.1);
    assert_eq!(outcome(&caller, SessionOutcome::Invalid), 1);

    // Another rule's token, with the same keys.
    let other = Rule { session: Some(session("route/1/other", cookie())), ..rule(&[(V1, 1), (V2, 1)]) };
    let stranger = versions.caller(other).await;
    assert!(user.call(&stranger).await.1);
}

#[tokio::test]
async fn a_header_carries_a_session_as_well() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(50, 50, Carrier::Header { name: "x-session".to_owned() })).await;
    let (response, pod) = caller.get("/").await;
    let token = header(&response, "x-session").unwrap().to_owned();
    for _ in 0..20 {
        let mut request = get("/");
        request.headers_mut().insert("x-session", HeaderValue::try_from(&token).unwrap());
        let (response, again): (Response<()>, String) = read(caller.send(request).await).await;
        assert_eq!((again.as_str(), header(&response, "x-session")), (pod.as_str(), None));
    }
}

#[tokio::test]
async fn a_backends_session_pins_the_pod_and_leaves_the_split_alone() {
    let versions = Versions::new().await;
    let mut split = split(&[(V1, 50), (V2, 50)]);
    for (backend, name) in split.backends.iter_mut().zip(["v1", "v2"]) {
        let carrier = Carrier::Header { name: format!("x-{name}") };
        backend.session = Some(session(&format!("backend/{name}"), carrier));
    }
    let caller = versions.caller(Rule { outcome: Outcome::Forward(split), ..rule(&[]) }).await;
    let (mut tokens, mut pods) = ([None, None], [None, None]);
    let mut counts = [0, 0];
    for _ in 0..100 {
        let mut request = get("/");
        for (name, token) in ["x-v1", "x-v2"].into_iter().zip(&tokens) {
            if let Some(token) = token {
                request.headers_mut().insert(name, HeaderValue::try_from(token).unwrap());
            }
        }
        let (response, pod) = read(caller.send(request).await).await;
        let version = usize::from(pod.starts_with("v2"));
        counts[version] += 1;
        if let Some(token) = header(&response, ["x-v1", "x-v2"][version]) {
            tokens[version] = Some(token.to_owned());
        }
        assert_eq!(pods[version].get_or_insert(pod.clone()), &pod);
    }
    assert!(counts.iter().all(|&count| count > 25), "{counts:?}");
}

#[tokio::test]
async fn inside_a_rules_session_the_backends_session_is_issued_too() {
    let versions = Versions::new().await;
    let mut with_both = weighted(0, 100, cookie());
    if let Outcome::Forward(split) = &mut with_both.outcome {
        let carrier = Carrier::Header { name: "x-v2".to_owned() };
        split.backends[1].session = Some(session("backend/v2", carrier));
    }
    let caller = versions.caller(with_both).await;
    let (response, _) = caller.get("/").await;
    assert!(header(&response, "set-cookie").is_some_and(|cookie| cookie.starts_with("canary=")));
    assert!(header(&response, "x-v2").is_some());
}

#[tokio::test]
async fn a_session_that_is_too_old_is_none() {
    let versions = Versions::new().await;
    let mut short = weighted(100, 0, cookie());
    let session = short.session.as_mut().unwrap();
    session.absolute_timeout = Some(Duration::from_secs(3600));
    let placement = Placement { backend: Uid::of(V2), pod: Uid::of("v2-a") };
    let token = |age| {
        let mut answer = http::HeaderMap::new();
        let issued = SystemTime::now() - Duration::from_secs(age);
        Affinity::new(session, &[KEY]).unwrap().write(&placement, issued, false, &mut answer).unwrap();
        Jar(Some(answer["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()))
    };
    let (mut young, mut old) = (token(3500), token(3700));
    let caller = versions.caller(short).await;
    assert_eq!(young.call(&caller).await, ("v2-a".to_owned(), false));
    let (pod, fresh) = old.call(&caller).await;
    assert!(pod.starts_with("v1") && fresh);
    assert_eq!(outcome(&caller, SessionOutcome::Expired), 1);
}
