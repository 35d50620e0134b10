//! Statuses: from conditions to what is written, and only when it differs.
//!
//! `status.parents` of a route (and `status.ancestors` of a policy) is one list that several controllers
//! write to. Only entries with our [`CONTROLLER`] are touched: changed in place, added at the end, taken away
//! with their parentRef. Everybody else's stay as they are, in their order. `lastTransitionTime` moves when a
//! condition's status does.

mod merge;
mod rotation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use gamut_manifest::ObjectId;
use gamut_route::{NamespacedName, RouteKind, RouteRef};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use merge::whole_seconds;
pub use merge::{Entry, merge};

use crate::{
    compile::{self, ParentConditions},
    gateway::{ParentRef, TargetRef},
    index::{Index, keys::SessionSecret},
    source::{Said, Write},
};

/// `controllerName` of the entries that are ours.
pub const CONTROLLER: &str = "gamut.mesh/controller";

/// Remembers what was written and says what is due: statuses that changed, and the session keys when they are to be made or
/// rotated.
#[derive(Debug, Default)]
pub struct Reporter {
    /// The last status of each object, where the source doesn't give it back.
    written: BTreeMap<ObjectId, Value>,
    /// Objects to look at again whatever the index says: a write of theirs failed.
    again: Vec<ObjectId>,
    created_keys: bool,
    /// The Secret of session keys that the newest rotation was made of: until it shows what became of that, there is no
    /// other.
    rotated: Option<Value>,
    /// Others write to the source as well, and it shows what became of that: only what it shows counts.
    shared: bool,
    /// Another replica writes statuses.
    follows: bool,
    /// All statuses are to be looked at, because that other replica wrote until now.
    took_over: bool,
}

impl Reporter {
    /// A reporter over a source that [is shared](crate::source::Source::is_shared), or isn't. Over a shared
    /// one it begins as a follower.
    pub fn new(shared: bool) -> Self {
        Self { shared, follows: shared, ..Self::default() }
    }

    /// This replica writes statuses from now on, or doesn't any more.
    pub fn lead(&mut self, leads: bool) {
        self.follows = !leads;
        self.took_over |= leads;
        self.again.clear();
    }

    /// What to write after a change of the index. Nothing before the index is synced: until then a Service
    /// that a route needs may only be late.
    pub fn due(&mut self, index: &mut Index) -> Vec<Write> {
        self.due_at(index, Timestamp::now())
    }

    /// Takes a failed write back: it is due again at the next call of [`Reporter::due`].
    pub fn failed(&mut self, write: &Write) {
        match write {
            Write::Status { id, .. } => {
                self.written.remove(id);
                self.again.push(id.clone());
            }
            Write::Create(_) => self.created_keys = false,
            Write::Replace(_) => self.rotated = None,
        }
    }

    fn due_at(&mut self, index: &mut Index, now: Timestamp) -> Vec<Write> {
        if !index.synced() {
            return Vec::new();
        }
        let mut writes = Vec::new();
        let mut stale = index.take_stale_statuses();
        if !self.follows {
            stale.extend(self.again.drain(..));
            if std::mem::take(&mut self.took_over) {
                stale.extend(subjects(index));
            }
            for id in stale {
                writes.extend(self.due_for(index, id, now));
            }
        }
        match self.keys_due(index, now) {
            Ok(write) => writes.extend(write),
            Err(error) => tracing::error!("session keys can't be made: {error}"),
        }
        writes
    }

    /// Session keys where there are none, by whichever replica; their rotation, by the one that leads. A Secret that can't
    /// be read is left alone.
    fn keys_due(
        &mut self,
        index: &Index,
        now: Timestamp,
    ) -> Result<Option<Write>, aws_lc_rs::error::Unspecified> {
        let secret = match index.session_secret() {
            SessionSecret::Missing => {
                if std::mem::replace(&mut self.created_keys, true) {
                    return Ok(None);
                }
                let made = rotation::first(&index.settings().system_namespace, now);
                self.created_keys = made.is_ok();
                return made.map(|secret| Some(Write::Create(secret)));
            }
            // What is made when somebody deletes it is another than the one before.
            SessionSecret::Unreadable => {
                self.created_keys = false;
                return Ok(None);
            }
            SessionSecret::Good(secret) => secret,
        };
        self.created_keys = false;
        if self.follows || self.rotated.as_ref() == Some(secret) {
            return Ok(None);
        }
        let next = rotation::next(secret, now)?;
        self.rotated = next.is_some().then(|| secret.clone());
        Ok(next.map(Write::Replace))
    }

    fn due_for(&mut self, index: &Index, id: ObjectId, now: Timestamp) -> Option<Write> {
        let Some(subject) = subject(index, &id) else {
            // Gone: so is what was written about it.
            self.written.remove(&id)?;
            return Some(Write::Status { id, status: None, said: None });
        };
        let before = self.written.get(&id).unwrap_or(subject.status);
        let after = merge(before, subject.list, &subject.entries, subject.generation, now)?;
        if !self.shared {
            self.written.insert(id.clone(), after.clone());
        }
        let said = Said { list: subject.list, entries: subject.entries, generation: subject.generation };
        Some(Write::Status { id, status: Some(after), said: Some(said) })
    }
}

/// All objects with a status that we write to.
fn subjects(index: &Index) -> impl Iterator<Item = ObjectId> {
    let id = |kind: &str, name: &NamespacedName| ObjectId {
        kind: kind.to_owned(),
        namespace: Some(name.namespace.clone()),
        name: name.name.clone(),
    };
    let route =
        move |route: &crate::compile::CompiledRoute| id(route.kind().as_str(), &route.route.reference.name);
    let routes = index.statuses().map(move |(compiled, _)| route(compiled));
    let policies = index.world().policies.keys().map(move |name| id("XBackendTrafficPolicy", name));
    let xbackends = index.world().xbackends.keys().map(move |name| id("XBackend", name));
    routes.chain(policies).chain(xbackends)
}

/// An object with a status that we write to.
struct Subject<'a> {
    /// The status as the source has it.
    status: &'a Value,
    generation: i64,
    /// `parents` or `ancestors`.
    list: &'static str,
    entries: Vec<Entry>,
}

fn subject<'a>(index: &'a Index, id: &ObjectId) -> Option<Subject<'a>> {
    let name = NamespacedName::new(id.namespace.clone().unwrap_or_default(), id.name.as_str());
    let kind = match id.kind.as_str() {
        "HTTPRoute" => RouteKind::Http,
        "GRPCRoute" => RouteKind::Grpc,
        "TLSRoute" => RouteKind::Tls,
        "TCPRoute" => RouteKind::Tcp,
        "XBackendTrafficPolicy" => return policy_subject(index, &name),
        "XBackend" => return xbackend_subject(index, &name),
        _ => return None,
    };
    let route = index.route(&RouteRef { kind, name })?;
    Some(Subject {
        status: &route.route.status,
        generation: route.route.generation,
        list: "parents",
        entries: index.conditions(route).into_iter().map(parent_entry).collect(),
    })
}

fn policy_subject<'a>(index: &'a Index, name: &NamespacedName) -> Option<Subject<'a>> {
    let policy = index.world().policies.get(name)?;
    let targets = policy.spec.ok().map(|spec| spec.target_refs.as_slice()).unwrap_or_default();
    let entries = targets.iter().map(|target: &TargetRef| Entry {
        reference: json!({"group": target.group, "kind": target.kind, "name": target.name}),
        conditions: vec![compile::policy_conditions(index.world(), policy, target)],
    });
    Some(Subject {
        status: &policy.status,
        generation: policy.generation,
        list: "ancestors",
        entries: entries.collect(),
    })
}

/// The most ancestors that a status may have.
const MOST_ANCESTORS: usize = 32;

/// An XBackend's ancestors are the Services whose routes refer to it (GEP-4894). Before the first does, one entry is
/// about itself, so that its owner needn't route anything to it to learn whether it can be used.
fn xbackend_subject<'a>(index: &'a Index, name: &NamespacedName) -> Option<Subject<'a>> {
    let backend = index.world().xbackends.get(name)?;
    let conditions = vec![compile::xbackend_condition(backend)];
    let of = |reference: Value| Entry { reference, conditions: conditions.clone() };
    let ancestors = index.ancestors(name).into_iter().take(MOST_ANCESTORS);
    let mut entries: Vec<Entry> = ancestors
        .map(|service| {
            of(json!({"group": "", "kind": "Service", "namespace": service.namespace, "name": service.name}))
        })
        .collect();
    if entries.is_empty() {
        entries.push(of(
            json!({"group": crate::gateway::EXPERIMENTAL_GROUP, "kind": "XBackend", "name": name.name}),
        ));
    }
    Some(Subject { status: &backend.status, generation: backend.generation, list: "ancestors", entries })
}

fn parent_entry(parent: ParentConditions) -> Entry {
    Entry { reference: reference(&parent.parent), conditions: parent.conditions }
}

/// A parentRef as a status repeats it: what the route has, and nothing that it leaves out.
fn reference(parent: &ParentRef) -> Value {
    let mut reference = serde_json::Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        reference.extend(value.map(|value| (name.to_owned(), value)));
    };
    set("group", parent.group.clone().map(Value::from));
    set("kind", parent.kind.clone().map(Value::from));
    set("namespace", parent.namespace.clone().map(Value::from));
    set("name", Some(parent.name.clone().into()));
    set("sectionName", parent.section_name.clone().map(Value::from));
    set("port", parent.port.map(Value::from));
    Value::Object(reference)
}
