//! Sessions from a request's headers to a response's: what is honoured, what is not, and what a client gets.

#![expect(clippy::unwrap_used, reason = "a test whose setting can't be made has failed")]

use std::time::{Duration, SystemTime};

use aws_lc_rs::hkdf;
use gamut_route::{
    Uid,
    session::{
        Affinity, Brought, SessionError,
        token::{Keyring, Placement, TOKEN_LENGTH, Unusable, derive},
    },
    table::{Carrier, Session},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use proptest::prelude::*;

const SCOPE: &str = "route/0b8f6f3e/canary";
const KEY: [u8; 32] = [7; 32];
const OTHER_KEY: [u8; 32] = [8; 32];

fn placement() -> Placement {
    Placement { backend: Uid::of("service web-v2"), pod: Uid::of("pod web-v2-1") }
}

fn elsewhere() -> Placement {
    Placement { backend: Uid::of("service web-v1"), pod: Uid::of("pod web-v1-1") }
}

/// 2026-11-21 12:00:00 UTC, a Saturday, and some seconds.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400 + seconds)
}

fn keyring() -> Keyring {
    Keyring::new(SCOPE, &[(1, KEY)]).unwrap()
}

fn sealed(placement: &Placement) -> String {
    keyring().seal(placement, at(0)).unwrap().as_str().to_owned()
}

fn cookie_session(permanent: bool, absolute_timeout: Option<Duration>) -> Affinity {
    let carrier = Carrier::Cookie { name: "stay".to_owned(), path: "/shop".to_owned(), permanent };
    Affinity::new(&Session { scope: SCOPE.to_owned(), carrier, absolute_timeout }, &[(1, KEY)]).unwrap()
}

fn header_session() -> Affinity {
    let carrier = Carrier::Header { name: "x-session".to_owned() };
    Affinity::new(&Session { scope: SCOPE.to_owned(), carrier, absolute_timeout: None }, &[(1, KEY)]).unwrap()
}

fn cookies(lines: &[String]) -> HeaderMap {
    lines.iter().map(|line| (header::COOKIE, HeaderValue::from_str(line).unwrap())).collect()
}

#[test]
fn a_token_says_who_answered_and_when() {
    let opened = keyring().open(sealed(&placement()).as_bytes(), at(60), None).unwrap();
    assert_eq!((opened.placement, opened.issued, opened.key), (placement(), at(0), 1));
}

#[test]
fn a_token_is_short_and_never_the_same_twice() {
    let (one, two) = (sealed(&placement()), sealed(&placement()));
    assert_eq!((one.len(), TOKEN_LENGTH), (88, 88));
    assert!(one.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
    assert_ne!(one, two);
}

#[test]
fn tokens_and_keys_are_not_shown_in_logs() {
    let token = keyring().seal(&placement(), at(0)).unwrap();
    assert_eq!(format!("{token:?}"), "Token(..)");
    assert_eq!(format!("{:?}", keyring()), "Keyring { scope: \"route/0b8f6f3e/canary\", key_ids: [1], .. }");
}

#[test]
fn keys_are_rotated_without_a_lost_session() {
    let old = Keyring::new(SCOPE, &[(1, KEY)]).unwrap();
    let both = Keyring::new(SCOPE, &[(2, OTHER_KEY), (1, KEY)]).unwrap();
    let new = Keyring::new(SCOPE, &[(2, OTHER_KEY)]).unwrap();
    let from_old = old.seal(&placement(), at(0)).unwrap();
    let from_both = both.seal(&placement(), at(0)).unwrap();
    assert!(both.open(from_old.as_str().as_bytes(), at(1), None).is_ok());
    assert_eq!(both.open(from_both.as_str().as_bytes(), at(1), None).unwrap().key, 2);
    assert!(new.open(from_both.as_str().as_bytes(), at(1), None).is_ok());
    assert_eq!(new.open(from_old.as_str().as_bytes(), at(1), None), Err(Unusable::Foreign));
}

#[test]
fn two_keys_with_one_id_are_both_tried() {
    let wrapped = Keyring::new(SCOPE, &[(1, OTHER_KEY), (1, KEY)]).unwrap();
    assert!(wrapped.open(sealed(&placement()).as_bytes(), at(1), None).is_ok());
}

#[test]
fn a_token_of_another_scope_or_key_is_foreign() {
    let token = sealed(&placement());
    for other in [Keyring::new("route/0b8f6f3e/other", &[(1, KEY)]), Keyring::new(SCOPE, &[(1, OTHER_KEY)])] {
        assert_eq!(other.unwrap().open(token.as_bytes(), at(1), None), Err(Unusable::Foreign));
    }
}

#[test]
fn a_token_expires_at_the_absolute_timeout_and_not_before() {
    let token = sealed(&placement());
    let open = |now| {
        keyring().open(token.as_bytes(), now, Some(Duration::from_secs(60))).map(|opened| opened.placement)
    };
    assert_eq!(open(at(59)), Ok(placement()));
    assert_eq!(open(at(60)), Err(Unusable::Expired));
    // Issued by a clock that is ahead of ours.
    assert_eq!(open(at(0) - Duration::from_secs(300)), Ok(placement()));
    assert!(keyring().open(token.as_bytes(), at(10_000_000_000), None).is_ok());
}

#[test]
fn a_scope_without_keys_seals_nothing() {
    assert_eq!(Keyring::new(SCOPE, &[]).unwrap_err(), SessionError::NoKeys { scope: SCOPE.to_owned() });
}

#[test]
fn derived_keys_are_hkdf_and_differ_by_scope_and_master() {
    let master = b"an installation's secret";
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gamut session key v1").extract(master);
    let info = [SCOPE.as_bytes()];
    let mut expected = [0; 32];
    extracted.expand(&info, hkdf::HKDF_SHA256).unwrap().fill(&mut expected).unwrap();
    assert_eq!(derive(master, SCOPE), expected);
    assert_ne!(derive(master, SCOPE), derive(master, "route/other"));
    assert_ne!(derive(master, SCOPE), derive(b"another secret", SCOPE));
}

#[test]
fn ten_cookies_of_one_name_yield_those_that_open() {
    let (mine, other) = (sealed(&placement()), sealed(&elsewhere()));
    let expired = Keyring::new(SCOPE, &[(1, KEY)])
        .unwrap()
        .seal(&placement(), at(0) - Duration::from_secs(3600))
        .unwrap();
    let foreign = Keyring::new("other", &[(1, KEY)]).unwrap().seal(&placement(), at(0)).unwrap();
    let request = cookies(&[
        format!("stay=junk; stay=; a=b; stay={}", expired.as_str()),
        format!("stay={}; stay=\"{mine}\"; stay={mine}x; stay={}", foreign.as_str(), &mine[1..]),
        format!("stay={other}; stay={}; stay={}", "A".repeat(TOKEN_LENGTH), "A".repeat(8192)),
    ]);
    let brought = cookie_session(false, Some(Duration::from_secs(3600))).read(&request, at(1));
    let expected = Brought {
        placements: [placement(), elsewhere()].as_slice().into(),
        malformed: 6,
        foreign: 1,
        expired: 1,
    };
    assert_eq!(brought, expected);
}

#[test]
fn not_more_than_sixteen_tokens_of_a_request_are_opened() {
    let lines: Vec<String> = (0..20).map(|_| format!("stay={}", sealed(&placement()))).collect();
    assert_eq!(cookie_session(false, None).read(&cookies(&lines), at(1)).placements.len(), 16);
}

#[test]
fn a_header_session_is_read_from_every_line_and_every_element() {
    let (mine, other) = (sealed(&placement()), sealed(&elsewhere()));
    let mut request = HeaderMap::new();
    request.append("x-session", HeaderValue::from_str(&format!("junk, {mine}")).unwrap());
    request.append("x-session", HeaderValue::from_str(&other).unwrap());
    let brought = header_session().read(&request, at(1));
    assert_eq!(brought.placements.as_slice(), [placement(), elsewhere()]);
    assert_eq!(brought.malformed, 1);
}

#[test]
fn a_request_without_a_session_brought_nothing() {
    assert_eq!(cookie_session(false, None).read(&HeaderMap::new(), at(1)), Brought::default());
    assert_eq!(header_session().read(&HeaderMap::new(), at(1)), Brought::default());
}

/// The one `Set-Cookie` of an answer, its token replaced by a word.
fn set_cookie(affinity: &Affinity, secure: bool) -> String {
    let mut response = HeaderMap::new();
    response.append(header::SET_COOKIE, HeaderValue::from_static("of-the-app=1"));
    affinity.write(&placement(), at(0), secure, &mut response).unwrap();
    let lines: Vec<&str> =
        response.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
    let [of_the_app, ours] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(of_the_app, "of-the-app=1");
    let token = ours.strip_prefix("stay=").unwrap().split(';').next().unwrap();
    assert_eq!(keyring().open(token.as_bytes(), at(1), None).unwrap().placement, placement());
    ours.replace(token, "TOKEN")
}

#[test]
fn a_cookie_ends_with_the_client_unless_it_is_permanent() {
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(
        set_cookie(&cookie_session(false, hour), false),
        "stay=TOKEN; Path=/shop; HttpOnly; SameSite=Strict"
    );
    assert_eq!(
        set_cookie(&cookie_session(false, None), true),
        "stay=TOKEN; Path=/shop; HttpOnly; SameSite=Strict; Secure"
    );
    assert_eq!(
        set_cookie(&cookie_session(true, hour), true),
        "stay=TOKEN; Path=/shop; HttpOnly; SameSite=Strict; Secure; Max-Age=3600; Expires=Sat, 21 Nov 2026 13:00:00 GMT"
    );
}

#[test]
fn a_lifetime_beyond_the_calendar_has_no_date() {
    let cookie = set_cookie(&cookie_session(true, Some(Duration::MAX)), false);
    assert!(cookie.ends_with(&format!("Max-Age={}", u64::MAX)), "{cookie}");
}

#[test]
fn a_header_session_answers_in_its_header() {
    let mut response = HeaderMap::new();
    header_session().write(&placement(), at(0), true, &mut response).unwrap();
    assert_eq!(header_session().read(&response, at(1)).placements.as_slice(), [placement()]);
    assert_eq!(response.len(), 1);
}

#[test]
fn a_header_that_is_none_is_refused() {
    let carrier = Carrier::Header { name: "a b".to_owned() };
    let session = Session { scope: SCOPE.to_owned(), carrier, absolute_timeout: None };
    assert!(matches!(Affinity::new(&session, &[(1, KEY)]), Err(SessionError::HeaderName { .. })));
}

#[test]
fn every_token_of_a_request_can_be_examined() {
    let request = cookies(&[format!("stay=junk; stay={}", sealed(&placement()))]);
    let examined = cookie_session(false, None).examine(&request, at(5));
    assert_eq!(examined[0], Err(Unusable::Malformed));
    let opened = examined[1].unwrap();
    assert_eq!((opened.placement, opened.issued, opened.key), (placement(), at(0), 1));
    assert_eq!(examined.len(), 2);
    // As metrics and `gamut explain` call them (docs/reference/sessions-token.md).
    let names = [Unusable::Malformed, Unusable::Foreign, Unusable::Expired].map(Unusable::as_str);
    assert_eq!(names, ["malformed", "foreign", "expired"]);
}

proptest! {
    #[test]
    fn what_was_sealed_opens(backend in any::<[u8; 16]>(), pod in any::<[u8; 16]>(), seconds in 0_u32..) {
        let placement = Placement { backend: Uid(backend), pod: Uid(pod) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        let token = keyring().seal(&placement, now).unwrap();
        let opened = keyring().open(token.as_str().as_bytes(), now, None).unwrap();
        prop_assert_eq!((opened.placement, opened.issued), (placement, now));
    }

    #[test]
    fn no_other_bytes_are_ever_honoured(text in prop_oneof![
        any::<Vec<u8>>(),
        "[A-Za-z0-9_-]{88}".prop_map(String::into_bytes),
        // Version and key id as they should be.
        "AQE[A-Za-z0-9_-]{85}".prop_map(String::into_bytes),
    ]) {
        prop_assert!(keyring().open(&text, at(0), None).is_err());
    }

    #[test]
    fn whatever_a_request_brings_only_what_was_sealed_is_honoured(
        junk in prop::collection::vec("[ -:<-~]{0,120}", 0..12),
        at_place in 0_usize..12,
        header in any::<bool>(),
    ) {
        let affinity = if header { header_session() } else { cookie_session(false, None) };
        let line = |tokens: &[String]| {
            let mut request = HeaderMap::new();
            for token in tokens {
                let (name, text) = match header {
                    true => (HeaderName::from_static("x-session"), token.clone()),
                    false => (header::COOKIE, format!("stay={token}")),
                };
                request.append(name, HeaderValue::from_str(&text).unwrap());
            }
            affinity.read(&request, at(1))
        };
        prop_assert!(line(&junk).placements.is_empty());
        // Commas make many of one header line; behind sixteen nobody looks.
        let mut junk = junk;
        junk.iter_mut().for_each(|text| *text = text.replace(',', "_"));
        junk.insert(at_place.min(junk.len()), sealed(&placement()));
        let brought = line(&junk);
        prop_assert_eq!(brought.placements.as_slice(), [placement()]);
    }

    #[test]
    fn a_token_with_any_other_character_in_it_is_not_honoured(at_byte in 0..TOKEN_LENGTH, byte in any::<u8>()) {
        let mut token = sealed(&placement()).into_bytes();
        prop_assume!(token[at_byte] != byte);
        token[at_byte] = byte;
        prop_assert!(keyring().open(&token, at(0), None).is_err());
    }

    #[test]
    fn a_token_cut_off_or_drawn_out_is_not_honoured(length in 0..2 * TOKEN_LENGTH, filler in any::<u8>()) {
        prop_assume!(length != TOKEN_LENGTH);
        let mut token = sealed(&placement()).into_bytes();
        token.resize(length, filler);
        prop_assert_eq!(keyring().open(&token, at(0), None), Err(Unusable::Malformed));
    }
}
