//! Calls into `route`, as a request makes them. `route/benches` has more of the same, to look at closely.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use gamut_route::{
    Uid,
    filter::{Compiled, Filter, HeaderEdits},
    matcher::{Matcher, RequestView},
    path,
    session::token::{Keyring, Placement},
    split::WeightedSplit,
    table::{
        Backend, BackendTarget, HttpRules, Match, NamedMatch, PathMatch, RankedMatch, Rule, Split, ValueMatch,
    },
};
use http::{HeaderMap, HeaderValue, header};

use crate::Part;

const TIMES: u32 = 2_000;

pub(crate) fn parts() -> anyhow::Result<Vec<Part>> {
    Ok(vec![
        matching("match_10_rules", 10)?,
        matching("match_1000_rules", 1_000)?,
        Part::new("canonical_path", TIMES, || path::canonical("/api/v1/service-2/items/42").is_ok()),
        drawing(),
        editing()?,
        sealing()?,
        opening()?,
    ])
}

/// A prefix, behind the same prefix with a header that the request lacks: among exact paths and prefixes, in order of
/// precedence.
fn matching(name: &'static str, size: usize) -> anyhow::Result<Part> {
    let third = size / 3;
    let exact = (0..third)
        .map(|n| Match { path: PathMatch::Exact(format!("/api/v1/exact-{n}")), ..Match::default() });
    let prefix = |n| PathMatch::Prefix(format!("/api/v1/service-{n}"));
    let always = || NamedMatch { name: "x-canary".to_owned(), value: ValueMatch::Exact("always".to_owned()) };
    let canary = (0..third).map(|n| Match { path: prefix(n), headers: vec![always()], ..Match::default() });
    let plain = (0..third).map(|n| Match { path: prefix(n), ..Match::default() });
    let matches: Vec<Match> = exact.chain(canary).chain(plain).chain([Match::default()]).collect();
    let rule = || Rule::forward(Split::default());
    let rules = HttpRules {
        rules: matches.iter().map(|_| rule()).collect(),
        matches: matches.into_iter().enumerate().map(|(rule, when)| RankedMatch { when, rule }).collect(),
    };
    let matcher = Matcher::new(&rules)?;
    let headers = headers();
    Ok(Part::new(name, TIMES, move || {
        let request = RequestView {
            method: "GET",
            path: "/api/v1/service-2/items/42",
            query: Some("page=2&sort=name"),
            authority: Some("web.shop"),
            headers: &headers,
            received: None,
        };
        matcher.find(&request).is_some()
    }))
}

fn drawing() -> Part {
    let backend = |weight| Backend {
        target: BackendTarget::Invalid(String::new()),
        weight,
        filters: Vec::new(),
        session: None,
    };
    let split = WeightedSplit::new(&Split { backends: vec![backend(90), backend(10)] });
    let mut random = 0_u64;
    Part::new("split", TIMES, move || {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split.draw(random)
    })
}

fn editing() -> anyhow::Result<Part> {
    let edits = HeaderEdits {
        set: vec![("x-team".to_owned(), "shop".to_owned())],
        add: vec![("x-trace".to_owned(), "1".to_owned())],
        remove: vec!["cookie".to_owned()],
    };
    let compiled = Compiled::new(&[Filter::RequestHeaders(edits)])?;
    Ok(Part::new("edit_headers", TIMES, move || {
        let mut headers = headers();
        compiled.request_headers.apply(&mut headers);
        headers
    }))
}

fn sealing() -> anyhow::Result<Part> {
    let keyring = keyring()?;
    Ok(Part::new("seal_session", TIMES, move || keyring.seal(&placement(), now()).is_ok()))
}

fn opening() -> anyhow::Result<Part> {
    let keyring = keyring()?;
    let token = keyring.seal(&placement(), now()).ok().context("a token")?.as_str().to_owned();
    Ok(Part::new("open_session", TIMES, move || keyring.open(token.as_bytes(), now(), None).is_ok()))
}

fn keyring() -> anyhow::Result<Keyring> {
    Keyring::new("route/bench", &[(1, [7; 32])]).ok().context("a keyring")
}

fn placement() -> Placement {
    Placement { backend: Uid([1; 16]), pod: Uid([2; 16]) }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The headers of an everyday request.
fn headers() -> HeaderMap {
    let all = [
        (header::ACCEPT, "application/json"),
        (header::ACCEPT_ENCODING, "gzip, br"),
        (header::USER_AGENT, "client/1.0"),
        (header::AUTHORIZATION, "Bearer abcdefghijklmnopqrstuvwxyz"),
        (header::COOKIE, "theme=dark; lang=en"),
    ];
    all.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}
