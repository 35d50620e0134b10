//! What one request costs: matching in tables of growing size, drawing a backend, sealing and opening a
//! session token, editing headers. Allocations are counted beside the times.

#![expect(clippy::expect_used, reason = "a benchmark whose setting can't be made has failed")]

use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box};
use gamut_route::{
    Uid,
    filter::{Compiled, Filter, HeaderEdits},
    matcher::{Matcher, RequestView},
    path,
    session::{
        Affinity,
        token::{Keyring, Placement},
    },
    split::WeightedSplit,
    table::{
        Backend, BackendTarget, Carrier, HttpRules, Match, NamedMatch, PathMatch, RankedMatch, Rule, Session,
        Split, ValueMatch,
    },
};
use http::{HeaderMap, HeaderValue, header};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

const SIZES: [usize; 3] = [10, 100, 1000];

fn main() {
    divan::main();
}

/// Exact paths, prefixes and prefixes with a header match, in order of precedence, and the rule for all that
/// is left.
fn rules(size: usize) -> HttpRules {
    let third = size / 3;
    let exact = (0..third)
        .map(|n| Match { path: PathMatch::Exact(format!("/api/v1/exact-{n}")), ..Match::default() });
    let canary = (0..third).map(|n| Match {
        path: PathMatch::Prefix(format!("/api/v1/service-{n}")),
        headers: vec![NamedMatch {
            name: "x-canary".to_owned(),
            value: ValueMatch::Exact("always".to_owned()),
        }],
        ..Match::default()
    });
    let plain = (0..third)
        .map(|n| Match { path: PathMatch::Prefix(format!("/api/v1/service-{n}")), ..Match::default() });
    let matches: Vec<Match> = exact.chain(canary).chain(plain).chain([Match::default()]).collect();
    ranked(matches)
}

/// Regular expressions, each with its own beginning.
fn regex_rules(size: usize) -> HttpRules {
    let regex =
        |n| Match { path: PathMatch::Regex(format!("/api/v1/service-{n}/items/[0-9]+")), ..Match::default() };
    ranked((0..size).map(regex).collect())
}

fn ranked(matches: Vec<Match>) -> HttpRules {
    let rule = || Rule::forward(Split::default());
    HttpRules {
        rules: matches.iter().map(|_| rule()).collect(),
        matches: matches.into_iter().enumerate().map(|(rule, when)| RankedMatch { when, rule }).collect(),
    }
}

/// The headers of an everyday request.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::ACCEPT, "application/json"),
        (header::ACCEPT_ENCODING, "gzip, br"),
        (header::USER_AGENT, "client/1.0"),
        (header::AUTHORIZATION, "Bearer abcdefghijklmnopqrstuvwxyz"),
        (header::COOKIE, "theme=dark; lang=en"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn bench_match(bencher: Bencher<'_, '_>, rules: &HttpRules, path: &str, hit: bool) {
    let matcher = Matcher::new(rules).expect("the table is valid");
    let headers = headers();
    let request = RequestView {
        method: "GET",
        path,
        query: Some("page=2&sort=name"),
        authority: Some("web.shop"),
        headers: &headers,
        received: None,
    };
    assert_eq!(matcher.find(&request).is_some(), hit);
    bencher.bench_local(|| matcher.find(black_box(&request)));
}

#[divan::bench(args = SIZES)]
fn match_exact(bencher: Bencher<'_, '_>, size: usize) {
    bench_match(bencher, &rules(size), "/api/v1/exact-1", true);
}

#[divan::bench(args = SIZES)]
fn match_prefix_past_a_header(bencher: Bencher<'_, '_>, size: usize) {
    bench_match(bencher, &rules(size), "/api/v1/service-2/items/42", true);
}

#[divan::bench(args = SIZES)]
fn match_default(bencher: Bencher<'_, '_>, size: usize) {
    bench_match(bencher, &rules(size), "/somewhere/else/entirely", true);
}

#[divan::bench(args = SIZES)]
fn match_regex(bencher: Bencher<'_, '_>, size: usize) {
    bench_match(bencher, &regex_rules(size), "/api/v1/service-7/items/42", true);
}

#[divan::bench(args = SIZES)]
fn match_nothing(bencher: Bencher<'_, '_>, size: usize) {
    bench_match(bencher, &regex_rules(size), "/api/v1/service-7/items/none", false);
}

#[divan::bench(args = SIZES)]
fn build_a_table(bencher: Bencher<'_, '_>, size: usize) {
    let rules = rules(size);
    bencher.bench_local(|| Matcher::new(black_box(&rules)));
}

#[divan::bench(args = ["/api/v1/service-2/items/42", "/api/../v1/%7euser"])]
fn canonical_path(bencher: Bencher<'_, '_>, path: &str) {
    bencher.bench_local(|| path::canonical(black_box(path)));
}

#[divan::bench(args = [2, 16])]
fn draw(bencher: Bencher<'_, '_>, backends: u32) {
    let backend = |n| Backend {
        target: BackendTarget::Invalid(String::new()),
        weight: 1 + n,
        filters: Vec::new(),
        session: None,
    };
    let split = WeightedSplit::new(&Split { backends: (0..backends).map(backend).collect() });
    let mut random = 0_u64;
    bencher.bench_local(|| {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split.draw(black_box(random))
    });
}

#[divan::bench]
fn edit_headers(bencher: Bencher<'_, '_>) {
    let edits = HeaderEdits {
        set: vec![("x-team".to_owned(), "shop".to_owned())],
        add: vec![("x-trace".to_owned(), "1".to_owned())],
        remove: vec!["cookie".to_owned()],
    };
    let compiled = Compiled::new(&[Filter::RequestHeaders(edits)]).expect("the filter is valid");
    bencher.with_inputs(headers).bench_local_refs(|headers| compiled.request_headers.apply(headers));
}

fn placement() -> Placement {
    Placement { backend: Uid([1; 16]), pod: Uid([2; 16]) }
}

fn keyring() -> Keyring {
    Keyring::new("route/bench", &[(1, [7; 32])]).expect("the key is valid")
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let keyring = keyring();
    bencher.bench_local(|| keyring.seal(black_box(&placement()), now()));
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let keyring = keyring();
    let token = keyring.seal(&placement(), now()).expect("the key is valid");
    bencher.bench_local(|| keyring.open(black_box(token.as_str().as_bytes()), now(), None));
}

fn session() -> Affinity {
    let carrier = Carrier::Cookie { name: "stay".to_owned(), path: "/".to_owned(), permanent: false };
    let session = Session { scope: "route/bench".to_owned(), carrier, absolute_timeout: None };
    Affinity::new(&session, &[(1, [7; 32])]).expect("the session is valid")
}

/// An everyday request of a user whose session began earlier.
fn returning() -> HeaderMap {
    let token = keyring().seal(&placement(), now()).expect("the key is valid");
    let mut request = headers();
    let cookie = format!("theme=dark; stay={}; lang=en", token.as_str());
    request.insert(header::COOKIE, HeaderValue::from_str(&cookie).expect("the cookie is printable"));
    request
}

/// What a session adds to a request that brings one and keeps it: the common case.
#[divan::bench]
fn session_kept(bencher: Bencher<'_, '_>) {
    let (affinity, request) = (session(), returning());
    bencher.bench_local(|| {
        let brought = affinity.read(black_box(&request), now());
        assert_eq!(brought.placements.len(), 1);
        brought
    });
}

/// What a session adds to the first request of a user.
#[divan::bench]
fn session_started(bencher: Bencher<'_, '_>) {
    let (affinity, request) = (session(), headers());
    bencher.with_inputs(HeaderMap::new).bench_local_refs(|response| {
        assert!(affinity.read(black_box(&request), now()).placements.is_empty());
        affinity.write(&placement(), now(), false, response)
    });
}

/// The most that a session adds: a token found among others and opened, and a new one written.
#[divan::bench]
fn session_moved(bencher: Bencher<'_, '_>) {
    let (affinity, request) = (session(), returning());
    bencher.with_inputs(HeaderMap::new).bench_local_refs(|response| {
        let brought = affinity.read(black_box(&request), now());
        assert_eq!(brought.placements.len(), 1);
        affinity.write(&placement(), now(), false, response)
    });
}

/// What somebody can make a sidecar compute with one request: sixteen forgeries of the right length.
#[divan::bench]
fn session_forged_sixteen_times(bencher: Bencher<'_, '_>) {
    let affinity = session();
    let mut request = headers();
    let forged = format!("stay=AQ{}; ", "E".repeat(86)).repeat(16);
    request.insert(header::COOKIE, HeaderValue::from_str(&forged).expect("the cookie is printable"));
    bencher.bench_local(|| affinity.read(black_box(&request), now()));
}
