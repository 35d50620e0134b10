//! One controller's entries merged into a list that others write to as well.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::CONTROLLER;
use crate::compile::Condition;

/// An entry of ours: about which parent or ancestor, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `parentRef` or `ancestorRef`.
    pub reference: Value,
    /// The conditions, in their order.
    pub conditions: Vec<Condition>,
}

/// The CRDs allow no more entries.
const MAX_ENTRIES: usize = 32;

/// Puts our entries into a status; `None` if that changes nothing. `list` is `parents` or `ancestors`.
///
/// An entry of ours that was made for a newer generation stays as it is: another replica has seen more than we have.
pub fn merge(
    status: &Value,
    list: &str,
    entries: &[Entry],
    generation: i64,
    now: Timestamp,
) -> Option<Value> {
    let before = status.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let key = if list == "parents" { "parentRef" } else { "ancestorRef" };
    let mut left: Vec<&Entry> = entries.iter().collect();
    let mut after = Vec::new();
    for existing in &before {
        if existing.get("controllerName").and_then(Value::as_str) != Some(CONTROLLER) {
            after.push(existing.clone());
            continue;
        }
        let at = left.iter().position(|entry| is_about(existing.get(key), &entry.reference));
        match at.map(|at| left.remove(at)) {
            Some(_) if observed(existing) > generation => after.push(existing.clone()),
            Some(entry) => after.push(written(key, entry, Some(existing), generation, now)),
            // Ours, about a parent that the route no longer names; or a second one about the same.
            None => {}
        }
    }
    for entry in left {
        if after.len() >= MAX_ENTRIES {
            tracing::warn!(
                "a status has {MAX_ENTRIES} entries already; what is to be said about {} has no room",
                entry.reference
            );
            break;
        }
        after.push(written(key, entry, None, generation, now));
    }
    if after == before {
        return None;
    }
    let mut status = status.as_object().cloned().unwrap_or_default();
    status.insert(list.to_owned(), Value::Array(after));
    Some(Value::Object(status))
}

/// References are equal if their fields are, those that are left out and those that state the default included.
fn is_about(existing: Option<&Value>, reference: &Value) -> bool {
    let defaults = [("group", json!("gateway.networking.k8s.io")), ("kind", json!("Gateway"))];
    let field = |value: &Value, name: &str| {
        let default = defaults.iter().find(|(field, _)| *field == name).map(|(_, default)| default.clone());
        value.get(name).filter(|value| !value.is_null()).cloned().or(default)
    };
    let fields = ["group", "kind", "namespace", "name", "sectionName", "port"];
    existing.is_some_and(|existing| fields.iter().all(|name| field(existing, name) == field(reference, name)))
}

/// The newest generation that an entry's conditions were made for.
fn observed(entry: &Value) -> i64 {
    let conditions = entry.get("conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter_map(|condition| condition.get("observedGeneration")?.as_i64()).max().unwrap_or(0)
}

fn written(key: &str, entry: &Entry, existing: Option<&Value>, generation: i64, now: Timestamp) -> Value {
    let before = existing.and_then(|existing| existing.get("conditions")).and_then(Value::as_array);
    let conditions: Vec<Value> = entry
        .conditions
        .iter()
        .map(|condition| {
            let known =
                before.into_iter().flatten().find(|known| known.get("type") == Some(&json!(condition.kind)));
            written_condition(condition, known, generation, now)
        })
        .collect();
    let mut written = Map::new();
    written.insert(key.to_owned(), entry.reference.clone());
    written.insert("controllerName".to_owned(), CONTROLLER.into());
    written.insert("conditions".to_owned(), conditions.into());
    Value::Object(written)
}

fn written_condition(condition: &Condition, known: Option<&Value>, generation: i64, now: Timestamp) -> Value {
    let status = if condition.status { "True" } else { "False" };
    let same = known.filter(|known| known.get("status").and_then(Value::as_str) == Some(status));
    let since = same.and_then(|known| known.get("lastTransitionTime")).cloned();
    json!({
        "type": condition.kind,
        "status": status,
        "reason": condition.reason.as_str(),
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(|| whole_seconds(now).into()),
    })
}

/// `metav1.Time` has whole seconds.
pub(crate) fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
