//! Session keys: made when there are none, and rotated without a lost session.
//!
//! ```text
//! made ──10 min──► seals ──30 days──► opens ──400 days──► gone
//! ```
//!
//! A key opens tokens from the moment that it is in the Secret, and seals them only when every sidecar has had the
//! time to get it: no sidecar ever meets a token of a key that it doesn't have. What was sealed with it is good for 400
//! days more, which is how long browsers keep a cookie at most (RFC 6265bis, section 5.5, "Max-Age"). A session
//! whose token is older than that begins anew, as one does whose pod is gone.
//!
//! When each key was made stands in an annotation of the Secret, so that restarts and other replicas keep to it. Whoever
//! edits the Secret by hand (a new key after a leak, say) is followed: an unknown key counts as made when it is first seen.

use std::collections::BTreeMap;

use aws_lc_rs::error::Unspecified;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::index::keys::{CURRENT_KEY, KEY_LENGTH, KEY_PREFIX, SESSION_KEYS};

/// When each key was made: JSON, times by id.
const TIMES_ANNOTATION: &str = "gamut.mesh/session-key-times";

/// From a key's making to the first token sealed with it.
const ANNOUNCED: SignedDuration = SignedDuration::from_mins(10);

/// From a key's making to its successor's.
const SEALS_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// From its successor's making to its end.
const OPENS_FOR: SignedDuration = SignedDuration::from_hours(400 * 24);

/// A Secret with one new key.
///
/// # Errors
/// The machine has no randomness.
pub(super) fn first(namespace: &str, now: Timestamp) -> Result<Value, Unspecified> {
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": SESSION_KEYS},
        "type": "Opaque",
        "data": {CURRENT_KEY: STANDARD.encode("1"), entry(1): new_key()?},
    });
    write_times(&mut secret, &BTreeMap::from([(1, now)]));
    Ok(secret)
}

/// The Secret as it should be now; `None` where it is so already.
///
/// # Errors
/// The machine has no randomness.
pub(super) fn next(secret: &Value, now: Timestamp) -> Result<Option<Value>, Unspecified> {
    let Some(data) = secret.get("data").and_then(Value::as_object) else { return Ok(None) };
    let ids: Vec<u8> = data.keys().filter_map(|name| name.strip_prefix(KEY_PREFIX)?.parse().ok()).collect();
    let known = read_times(secret);
    let mut times: BTreeMap<u8, Timestamp> =
        ids.iter().map(|id| (*id, known.get(id).copied().unwrap_or(now))).collect();
    let Some((newest, made)) =
        times.iter().map(|(id, made)| (*id, *made)).max_by_key(|(id, made)| (*made, *id))
    else {
        return Ok(None);
    };
    let mut after = secret.clone();
    let Some(data) = after.get_mut("data").and_then(Value::as_object_mut) else { return Ok(None) };

    if now.duration_since(made) >= ANNOUNCED && current(data) != Some(newest) {
        data.insert(CURRENT_KEY.to_owned(), STANDARD.encode(newest.to_string()).into());
    }
    if now.duration_since(made) >= SEALS_FOR
        && let Some(id) =
            (1..=u8::MAX).map(|step| newest.wrapping_add(step)).find(|id| !times.contains_key(id))
    {
        data.insert(entry(id), new_key()?.into());
        times.insert(id, now);
    }
    let seals = current(data);
    let over: Vec<u8> = times
        .iter()
        .filter(|(id, made)| now.duration_since(**made) >= SEALS_FOR + OPENS_FOR && Some(**id) != seals)
        .map(|(id, _)| *id)
        .collect();
    for id in over {
        times.remove(&id);
        data.shift_remove(&entry(id));
    }
    if known != times {
        write_times(&mut after, &times);
    }
    Ok((after != *secret).then_some(after))
}

fn entry(id: u8) -> String {
    format!("{KEY_PREFIX}{id}")
}

fn new_key() -> Result<String, Unspecified> {
    let mut key = [0; KEY_LENGTH];
    aws_lc_rs::rand::fill(&mut key)?;
    Ok(STANDARD.encode(key))
}

fn current(data: &serde_json::Map<String, Value>) -> Option<u8> {
    let text = STANDARD.decode(data.get(CURRENT_KEY)?.as_str()?).ok()?;
    std::str::from_utf8(&text).ok()?.trim().parse().ok()
}

fn read_times(secret: &Value) -> BTreeMap<u8, Timestamp> {
    let annotations = secret.pointer("/metadata/annotations");
    let text = annotations.and_then(|annotations| annotations.get(TIMES_ANNOTATION)?.as_str());
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn write_times(secret: &mut Value, times: &BTreeMap<u8, Timestamp>) {
    let Some(metadata) = secret.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        let times: serde_json::Map<String, Value> =
            times.iter().map(|(id, made)| (id.to_string(), made.to_string().into())).collect();
        annotations.insert(TIMES_ANNOTATION.to_owned(), Value::Object(times).to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: i64) -> Timestamp {
        minute(days * 24 * 60)
    }

    fn minute(minutes: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    /// The keys' ids, and which one seals.
    fn keys(secret: &Value) -> (Vec<u8>, u8) {
        let data = secret["data"].as_object().unwrap();
        let mut ids: Vec<u8> =
            data.keys().filter_map(|name| name.strip_prefix(KEY_PREFIX)?.parse().ok()).collect();
        ids.sort_unstable();
        (ids, current(data).unwrap())
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_when_everybody_has_it() {
        let first = first("gamut-system", day(0)).unwrap();
        assert_eq!(keys(&first), (vec![1], 1));
        assert_eq!(next(&first, day(29)).unwrap(), None);

        let announced = next(&first, day(30)).unwrap().unwrap();
        assert_eq!(keys(&announced), (vec![1, 2], 1), "sealing waits");
        assert_eq!(announced["data"]["key-1"], first["data"]["key-1"]);
        assert_ne!(announced["data"]["key-2"], first["data"]["key-1"]);
        assert_eq!(next(&announced, minute(30 * 24 * 60 + 9)).unwrap(), None);

        let sealing = next(&announced, minute(30 * 24 * 60 + 10)).unwrap().unwrap();
        assert_eq!(keys(&sealing), (vec![1, 2], 2));
        assert_eq!(next(&sealing, day(59)).unwrap(), None);
    }

    #[test]
    fn over_the_years_there_are_never_more_keys_than_sessions_may_be_old() {
        let mut secret = first("gamut-system", day(0)).unwrap();
        // Ids wrap around after 256 rotations, twenty-one years.
        for hour in 0..24 * 365 * 25 {
            let now = minute(hour * 60);
            if let Some(after) = next(&secret, now).unwrap() {
                secret = after;
            }
            let (ids, seals) = keys(&secret);
            assert!(ids.len() <= 16 && ids.contains(&seals), "{ids:?}, {seals}");
        }
        assert_eq!(read_times(&secret).len(), keys(&secret).0.len());
    }

    #[test]
    fn a_key_that_somebody_made_by_hand_is_taken_up_and_a_leaked_one_that_was_removed_stays_away() {
        let mut secret = first("gamut-system", day(0)).unwrap();
        secret["data"]["key-7"] = STANDARD.encode([7; KEY_LENGTH]).into();
        let seen = next(&secret, day(3)).unwrap().unwrap();
        assert_eq!(keys(&seen), (vec![1, 7], 1));
        let sealing = next(&seen, day(4)).unwrap().unwrap();
        assert_eq!(keys(&sealing), (vec![1, 7], 7));

        let mut cleaned = sealing.clone();
        cleaned["data"].as_object_mut().unwrap().shift_remove("key-1");
        let after = next(&cleaned, day(5)).unwrap().unwrap();
        assert_eq!(keys(&after), (vec![7], 7));
        assert_eq!(read_times(&after).len(), 1);
    }

    #[test]
    fn a_secret_of_before_there_were_times_gets_them_and_keeps_its_keys() {
        let old = json!({
            "metadata": {"namespace": "gamut-system", "name": "gamut-session-keys"},
            "data": {"current": STANDARD.encode("1"), "key-1": STANDARD.encode([1; KEY_LENGTH])},
        });
        let after = next(&old, day(0)).unwrap().unwrap();
        assert_eq!(after["data"], old["data"]);
        assert_eq!(next(&after, day(1)).unwrap(), None);
        assert_eq!(next(&json!({"data": {}}), day(0)).unwrap(), None);
    }
}
