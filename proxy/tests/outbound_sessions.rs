//! Sessions: a client stays where it was while weights move, and moves when its pod is gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use caller::{App, Caller, KEY, breaking, endpoint, get, header, read, rule, split};
use gamut_controller_api::Endpoint;
use gamut_proxy::{
    balance::Settings,
    http::{Body, HttpVersion},
    telemetry::SessionOutcome,
};
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

/// The cookie of a user of pod v2-a whose session began so many seconds ago.
fn token_of(scope: &str, key: (u8, [u8; 32]), age: u64) -> String {
    let placement = Placement { backend: Uid::of(V2), pod: Uid::of("v2-a") };
    let mut answer = http::HeaderMap::new();
    let issued = SystemTime::now() - Duration::from_secs(age);
    let affinity = Affinity::new(&session(scope, cookie()), &[key]).unwrap();
    affinity.write(&placement, issued, false, &mut answer).unwrap();
    answer["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
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
async fn a_user_of_an_ejected_pod_moves_within_the_canary_and_gets_a_new_token() {
    let versions = Versions::new().await;
    let (broken, _) = breaking().await;
    let v2 = vec![endpoint("v2-a", broken), versions.0[3].endpoint("v2-b")];
    let settings = Settings { eject_after: NonZeroU32::new(1), ..Settings::default() };
    let rules = vec![weighted(100, 0, cookie())];
    let caller = Caller::with_settings(settings, rules, &[(V1, versions.v1()), (V2, v2)]).await;
    let token = token_of("route/1/all", KEY, 60);
    let mut request = get("/");
    request.headers_mut().insert("cookie", HeaderValue::try_from(&token).unwrap());
    assert_eq!(caller.send(request).await.status(), 502, "its pod, which fails");

    let mut user = Jar(Some(token));
    assert_eq!(user.call(&caller).await, ("v2-b".to_owned(), true));
    assert_eq!(user.call(&caller).await, ("v2-b".to_owned(), false));
    assert_eq!(outcome(&caller, SessionOutcome::Moved), 1);
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
    let nobody = mesh::nobody();
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
async fn a_user_whose_pod_is_not_ready_is_moved_and_stays_when_it_is_again() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&caller).await;
    let mut sick = versions.v2();
    for endpoint in &mut sick {
        if endpoint.pod.as_ref().unwrap().name == pod {
            (endpoint.ready, endpoint.serving) = (false, false);
        }
    }
    caller.update(V2, &sick);
    let (moved, fresh) = user.call(&caller).await;
    assert!(moved.starts_with("v2") && moved != pod && fresh);
    caller.update(V2, &versions.v2());
    for _ in 0..20 {
        assert_eq!(user.call(&caller).await, (moved.clone(), false), "nobody is moved twice");
    }
    assert_eq!(outcome(&caller, SessionOutcome::Moved), 1);
}

#[tokio::test]
async fn a_backend_that_leaves_the_rule_and_comes_back_has_lost_its_users() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    assert!(user.call(&caller).await.0.starts_with("v2"));
    caller.replace(vec![Rule { session: Some(session("route/1/all", cookie())), ..rule(&[(V1, 1)]) }]);
    let (moved, fresh) = user.call(&caller).await;
    assert!(moved.starts_with("v1") && fresh, "a session leads to the rule's backends and nowhere else");
    caller.replace(vec![weighted(0, 100, cookie())]);
    assert_eq!(user.call(&caller).await, (moved, false));
}

#[tokio::test]
async fn a_rule_that_goes_and_comes_back_finds_its_users_where_they_were() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&caller).await;
    caller.replace(vec![rule(&[(V1, 1), (V2, 1)])]);
    let (_, fresh) = user.call(&caller).await;
    assert!(!fresh, "without a session nobody gets a token");
    caller.replace(vec![weighted(100, 0, cookie())]);
    assert_eq!(user.call(&caller).await, (pod, false));
}

#[tokio::test]
async fn a_renamed_rule_begins_new_sessions() {
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(0, 100, cookie())).await;
    let mut user = Jar::default();
    user.call(&caller).await;
    // The same settings, backends and keys: only the name is another.
    let renamed = Rule { session: Some(session("route/1/other", cookie())), ..weighted(0, 100, cookie()) };
    let caller = versions.caller(renamed).await;
    assert!(user.call(&caller).await.1);
    assert_eq!(outcome(&caller, SessionOutcome::Foreign), 1);
}

#[tokio::test]
async fn another_sidecar_with_the_same_keys_honours_a_session_and_one_without_them_does_not() {
    let versions = Versions::new().await;
    let mut user = Jar::default();
    let (pod, _) = user.call(&versions.caller(weighted(0, 100, cookie())).await).await;
    // A sidecar that was restarted, or another client's: it knows nothing but its tables and keys.
    let restarted = versions.caller(weighted(100, 0, cookie())).await;
    for _ in 0..20 {
        assert_eq!(user.call(&restarted).await, (pod.clone(), false));
    }
    restarted.rotate("route/1/all", &[(2, [9; 32]), KEY], vec![weighted(100, 0, cookie())]);
    assert_eq!(user.call(&restarted).await, (pod.clone(), false), "the old key still opens");
    restarted.rotate("route/1/all", &[(2, [9; 32])], vec![weighted(100, 0, cookie())]);
    let (moved, fresh) = user.call(&restarted).await;
    assert!(moved.starts_with("v1") && fresh, "its key is retired");
    assert_eq!(outcome(&restarted, SessionOutcome::Foreign), 1);
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_no_session_gets_a_fresh_one_and_is_counted() {
    let versions = Versions::new().await;
    let other_scope = Jar(Some(token_of("route/1/other", KEY, 0)));
    let other_key = Jar(Some(token_of("route/1/all", (1, [8; 32]), 0)));
    let good = token_of("route/1/all", KEY, 0);
    let changed = good.replace("canary=A", "canary=B");
    let one_off = format!("{}{}", &good[..good.len() - 2], if good.ends_with("AA") { "BA" } else { "AA" });
    use SessionOutcome::{Foreign, Kept, Malformed};
    for (what, jar, expected) in [
        ("forged", Jar(Some("canary=forged".to_owned())), Malformed),
        ("empty", Jar(Some("canary=".to_owned())), Malformed),
        ("truncated", Jar(Some(good[..good.len() - 1].to_owned())), Malformed),
        ("another version", Jar(Some(changed)), Malformed),
        ("changed", Jar(Some(one_off)), Foreign),
        ("of another rule", other_scope, Foreign),
        ("of another installation", other_key, Foreign),
        ("8 KB", Jar(Some(format!("canary={}", "A".repeat(8192)))), Malformed),
        ("ten forged ones", Jar(Some(["canary=forged"; 10].join("; "))), Malformed),
        ("ten, one of them good", Jar(Some(format!("{}; {good}", ["canary=x"; 9].join("; ")))), Kept),
        (
            "good behind sixteen others",
            Jar(Some(format!("{}; {good}", ["canary=x"; 16].join("; ")))),
            Malformed,
        ),
    ] {
        let caller = versions.caller(weighted(100, 0, cookie())).await;
        let mut jar = jar;
        let (pod, fresh) = jar.call(&caller).await;
        assert_eq!(outcome(&caller, expected), 1, "{what}");
        assert_eq!((pod.starts_with("v2"), fresh), (expected == Kept, expected != Kept), "{what}");
        if expected != Kept {
            assert!(!jar.call(&caller).await.1, "{what}: what it got instead is good");
        }
    }
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
    let token = |age| Jar(Some(token_of("route/1/all", KEY, age)));
    let (mut young, mut old) = (token(3500), token(3700));
    let caller = versions.caller(short).await;
    assert_eq!(young.call(&caller).await, ("v2-a".to_owned(), false));
    let (pod, fresh) = old.call(&caller).await;
    assert!(pod.starts_with("v1") && fresh);
    assert_eq!(outcome(&caller, SessionOutcome::Expired), 1);
}

#[tokio::test]
async fn the_token_goes_on_to_the_app_beside_the_other_cookies() {
    let app = App::start(|request: http::Request<Body>| async move {
        let cookies = request.headers()["cookie"].to_str().unwrap().to_owned();
        Response::new(Body::from(cookies))
    })
    .await;
    let caller = Caller::new(vec![weighted(0, 100, cookie())], &[(V2, vec![app.endpoint("v2-a")])]).await;
    let token = token_of("route/1/all", KEY, 0);
    let (heard, fresh) = Jar(Some(token.clone())).call(&caller).await;
    assert_eq!((heard, fresh), (format!("other=1; {token}"), false));
}

#[tokio::test]
async fn requests_of_one_http_2_connection_have_their_own_sessions() {
    let app = |name: &'static str| {
        App::speaking(HttpVersion::H2, move |_| async move { Response::new(Body::from(name.to_owned())) })
    };
    let apps = [app("v1-a").await, app("v1-b").await, app("v2-a").await, app("v2-b").await];
    let [a, b, c, d] = ["v1-a", "v1-b", "v2-a", "v2-b"];
    let v1 = vec![apps[0].endpoint(a), apps[1].endpoint(b)];
    let v2 = vec![apps[2].endpoint(c), apps[3].endpoint(d)];
    let split = weighted(50, 50, Carrier::Header { name: "x-session".to_owned() });
    let caller = Caller::new(vec![split], &[(V1, v1), (V2, v2)]).await;
    let connection = caller.h2().await;
    let ask = async |token: Option<HeaderValue>| {
        let mut request = http::Request::get("http://web/").body(Body::Empty).unwrap();
        request.headers_mut().extend(token.map(|token| (http::HeaderName::from_static("x-session"), token)));
        let (response, pod) = read(connection.clone().send_request(request).await.unwrap()).await;
        (response.headers().get("x-session").cloned(), pod)
    };
    let mut users = Vec::new();
    for _ in 0..8 {
        let (token, pod) = ask(None).await;
        users.push((token.unwrap(), pod));
    }
    for _ in 0..10 {
        for (token, pod) in &users {
            assert_eq!(ask(Some(token.clone())).await, (None, pod.clone()));
        }
    }
}

#[tokio::test]
async fn however_many_users_the_sidecar_has_one_set_of_counters() {
    // All that is registered is one set of counters for the scope, however many sessions there are.
    let versions = Versions::new().await;
    let caller = versions.caller(weighted(50, 50, cookie())).await;
    for _ in 0..50 {
        assert!(Jar::default().call(&caller).await.1);
    }
    let sessions = caller.telemetry.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(outcome(&caller, SessionOutcome::Started), 50);
}

/// An app that sets a cookie, or a header, of the session's own name.
async fn app_that_sets(name: &'static str, value: &'static str) -> App {
    App::start(move |_| async move {
        Response::builder().header(name, value).body(Body::from("v2-a".to_owned())).unwrap()
    })
    .await
}

/// As docs/tasks/sessions.md has it: clients keep the last cookie of a name.
#[tokio::test]
async fn of_two_cookies_of_one_name_the_sessions_comes_last_and_where_none_is_due_the_apps_ends_the_session()
{
    let app = app_that_sets("set-cookie", "canary=of-the-app; Path=/").await;
    let caller = Caller::new(vec![weighted(0, 100, cookie())], &[(V2, vec![app.endpoint("v2-a")])]).await;
    let set_by = async |cookie: Option<&str>| {
        let mut request = get("/");
        if let Some(cookie) = cookie {
            request.headers_mut().insert("cookie", HeaderValue::try_from(cookie).unwrap());
        }
        let (response, _) = read(caller.send(request).await).await;
        let set = response.headers().get_all("set-cookie").iter();
        set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let begun = set_by(None).await;
    assert_eq!((begun.len(), begun[0].as_str()), (2, "canary=of-the-app"));
    assert_eq!(set_by(Some(&begun[1])).await, ["canary=of-the-app"], "kept: nothing to tell");
    // The client has the app's now.
    assert_eq!(set_by(Some("canary=of-the-app")).await.len(), 2);
    let outcomes = [SessionOutcome::Started, SessionOutcome::Kept, SessionOutcome::Malformed];
    assert_eq!(outcomes.map(|one| outcome(&caller, one)), [1, 1, 1]);
}

#[tokio::test]
async fn an_apps_own_header_of_the_same_name_is_replaced_where_a_token_is_due() {
    let app = app_that_sets("x-session", "of-the-app").await;
    let rule = weighted(0, 100, Carrier::Header { name: "x-session".to_owned() });
    let caller = Caller::new(vec![rule], &[(V2, vec![app.endpoint("v2-a")])]).await;
    let (response, _) = caller.get("/").await;
    let tokens: Vec<&HeaderValue> = response.headers().get_all("x-session").iter().collect();
    assert_eq!((tokens.len(), tokens[0].len()), (1, 88));
    let mut request = get("/");
    request.headers_mut().insert("x-session", tokens[0].clone());
    let (kept, _): (Response<()>, String) = read(caller.send(request).await).await;
    assert_eq!(header(&kept, "x-session"), Some("of-the-app"));
}
