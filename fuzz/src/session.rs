//! Session tokens: what a client brings that claims to be one of ours.

use std::time::{Duration, SystemTime};

use gamut_route::{
    Uid,
    session::{
        Affinity,
        token::{Keyring, Placement, TOKEN_LENGTH},
    },
    table::{Carrier, Session},
};
use http::{HeaderMap, HeaderValue, header};

const SCOPE: &str = "route/0b8f6f3e/canary";
const COOKIE: &str = "stay";

/// A text that claims to be a token. The key is not in the seeds and differs from run to run, so that whatever
/// opens was honoured without having been sealed.
pub(crate) fn token(text: &[u8]) {
    let keyring = Keyring::new(SCOPE, &[(1, key()), (2, key())]).expect("two keys");
    let opened = keyring.open(text, now(), Some(Duration::from_secs(3600)));
    assert!(opened.is_err(), "honoured: {text:?} as {opened:?}");

    // One that is ours, changed by the input in one place: only the unchanged one may open.
    let sealed = keyring.seal(&placement(), now()).expect("there are keys");
    let mut changed = sealed.as_str().as_bytes().to_vec();
    if let [place, by, ..] = text {
        let place = usize::from(*place) % TOKEN_LENGTH;
        changed[place] ^= by;
        let opened = keyring.open(&changed, now(), None);
        assert_eq!(opened.is_ok(), *by == 0, "{place} ^ {by}: {opened:?}");
    }
}

/// The lines of `Cookie` headers. Each `$` becomes a token of ours: as many sessions are found as there are
/// whole cookies with one, and never more than are looked at.
pub(crate) fn request(input: &[u8]) {
    let key = key();
    let session = Session {
        scope: SCOPE.to_owned(),
        carrier: Carrier::Cookie { name: COOKIE.to_owned(), path: "/".to_owned(), permanent: false },
        absolute_timeout: None,
    };
    let affinity = Affinity::new(&session, &[(1, key)]).expect("the session is valid");
    let sealed = Keyring::new(SCOPE, &[(1, key)]).expect("a key").seal(&placement(), now()).expect("a key");

    let mut request = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b'$').collect();
        if let Ok(value) = HeaderValue::from_bytes(&parts.join(sealed.as_str().as_bytes())) {
            request.append(header::COOKIE, value);
        }
    }
    let brought = affinity.read(&request, now());
    let ours = input.iter().filter(|byte| **byte == b'$').count();
    assert!(brought.placements.len() <= ours.min(16), "{input:?}: {brought:?}");
    assert!(brought.placements.iter().all(|found| *found == placement()), "{brought:?}");
    let examined = affinity.examine(&request, now());
    assert_eq!(examined.iter().filter(|token| token.is_ok()).count(), brought.placements.len());
}

fn placement() -> Placement {
    Placement { backend: Uid([1; 16]), pod: Uid([2; 16]) }
}

/// As good as random: this process's own.
fn key() -> [u8; 32] {
    use std::hash::{BuildHasher, RandomState};
    let mut key = [0; 32];
    for part in key.chunks_mut(8) {
        part.copy_from_slice(&RandomState::new().hash_one("a key").to_ne_bytes());
    }
    key
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}
