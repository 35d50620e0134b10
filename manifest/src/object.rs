//! One object: what every kind has in common as fields, all the rest as JSON.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    error::{ManifestError, Problem},
    kinds::{self, Scope},
};

/// A Kubernetes object as a file, or the API server, has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`; `None` only for kinds that live outside of namespaces.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, or derived from kind, namespace and name.
    pub uid: String,
    /// `metadata.creationTimestamp`, or when the object was first read.
    pub created: Timestamp,
    /// `metadata.generation`, or how many contents the object has had since it was first read.
    pub generation: i64,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The whole object, with the metadata above filled in.
    pub raw: Value,
    /// Where it was read.
    pub origin: Origin,
}

/// What makes two definitions the same object, printed `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

/// Where an object was read, printed `file:line`; for the API server's objects the path alone, their line being 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Which document of the file, from 0.
    pub document: usize,
    /// The document's first line, from 1.
    pub line: u64,
}

/// An object's namespace where a manifest names none.
const DEFAULT_NAMESPACE: &str = "default";

/// What [`Object::read`] fills in where an object doesn't state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// The creation time.
    pub(crate) created: Timestamp,
    /// The generation.
    pub(crate) generation: i64,
}

impl Object {
    /// Its identity.
    pub fn id(&self) -> ObjectId {
        ObjectId { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The group part of `apiVersion`; empty for the core group.
    pub fn group(&self) -> &str {
        group_and_version(&self.api_version).0
    }

    /// Reads an object that is complete already, as the API server gives them: nothing is assigned except
    /// what is missing.
    ///
    /// # Errors
    /// As for a manifest: no kind, no name, metadata of the wrong types.
    pub fn from_value(value: Value, origin: &Origin) -> Result<Self, Box<ManifestError>> {
        Self::read(value, origin, Defaults { created: Timestamp::UNIX_EPOCH, generation: 1 })
    }

    /// Makes an object of a document and fills in what its metadata lack. The error names the object as far
    /// as possible.
    pub(crate) fn read(
        value: Value,
        origin: &Origin,
        defaults: Defaults,
    ) -> Result<Self, Box<ManifestError>> {
        let mut id = None;
        Self::read_noting(value, origin, defaults, &mut id).map_err(|problem| {
            let file = origin.file.to_path_buf();
            Box::new(ManifestError { file, at: Some((origin.line, None)), object: id, problem })
        })
    }

    /// Reads, and notes the object's identity as soon as it is known.
    fn read_noting(
        mut value: Value,
        origin: &Origin,
        defaults: Defaults,
        noted: &mut Option<ObjectId>,
    ) -> Result<Self, Problem> {
        let Value::Object(object) = &mut value else { return Err(Problem::NotAnObject(type_name(&value))) };
        let api_version = required_text(object, "apiVersion")?;
        let kind = required_text(object, "kind")?;
        let (group, version) = group_and_version(&api_version);
        let Some((scope, versions)) = kinds::known(group, &kind) else {
            let similar = kinds::similar(&kind);
            return Err(Problem::UnknownKind { api_version, kind, similar });
        };
        // As the API server, which knows no such resource: what another version of it means, nobody knows.
        if let Some(newest) = versions.first()
            && !versions.contains(&version)
        {
            let known = if group.is_empty() { (*newest).to_owned() } else { format!("{group}/{newest}") };
            return Err(Problem::UnknownVersion { api_version, kind, known });
        }
        let metadata = match object.entry("metadata").or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(metadata) => metadata,
            other => return Err(wrong_type("metadata", "a mapping", other)),
        };
        let id = identity(group, kind, scope, metadata, noted)?;

        let labels = text_map(metadata, "labels")?;
        let annotations = text_map(metadata, "annotations")?;
        let uid = optional_text(metadata, "uid")?.unwrap_or_else(|| derived_uid(&id));
        let created = match optional_text(metadata, "creationTimestamp")? {
            None => defaults.created,
            Some(text) => text.parse().map_err(|_| Problem::WrongType {
                field: "metadata.creationTimestamp".to_owned(),
                expected: "a time like 2026-01-31T12:00:00Z",
                found: format!("{text:?}"),
            })?,
        };
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(defaults.generation);

        match &id.namespace {
            Some(namespace) => metadata.insert("namespace".to_owned(), namespace.clone().into()),
            None => metadata.shift_remove("namespace"),
        };
        metadata.insert("uid".to_owned(), uid.clone().into());
        metadata.insert("creationTimestamp".to_owned(), created.to_string().into());
        metadata.insert("generation".to_owned(), generation.into());

        let ObjectId { kind, namespace, name } = id;
        let origin = origin.clone();
        let raw = value;
        Ok(Self {
            api_version,
            kind,
            namespace,
            name,
            uid,
            created,
            generation,
            labels,
            annotations,
            raw,
            origin,
        })
    }
}

/// An object's identity, checked. What is known of it is noted even where something is wrong with it.
fn identity(
    group: &str,
    kind: String,
    scope: Scope,
    metadata: &Map<String, Value>,
    noted: &mut Option<ObjectId>,
) -> Result<ObjectId, Problem> {
    let Some(name) = optional_text(metadata, "name")? else { return Err(Problem::Nameless { kind }) };
    let namespace = match scope {
        Scope::Namespaced => {
            Some(optional_text(metadata, "namespace")?.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()))
        }
        Scope::Cluster => None,
    };
    let id = noted.insert(ObjectId { kind, namespace, name });
    check_name("metadata.name", &id.name, 253, kinds::has_dns_name(group))?;
    if let Some(namespace) = &id.namespace {
        check_name("metadata.namespace", namespace, 63, true)?;
    }
    Ok(id.clone())
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// The parts of an `apiVersion`; the core group's name is empty.
fn group_and_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// A UID that is the same wherever and whenever the same manifest is read: UUID version 8 (RFC 9562, section 5.8).
fn derived_uid(id: &ObjectId) -> String {
    let hash = digest::digest(&digest::SHA256, id.to_string().as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// DNS subdomain and label rules (RFC 1123), which keep names out of trouble as host names and as file names.
fn check_name(field: &'static str, value: &str, limit: usize, dns: bool) -> Result<(), Problem> {
    let inner = |c: char| match dns {
        true => c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (c == '.' && limit > 63),
        false => !c.is_control() && c != '/' && c != '%',
    };
    let edge = |c: char| !dns || c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = value.len() <= limit
        && value.chars().all(inner)
        && value.starts_with(edge)
        && value.ends_with(edge)
        && !value.contains("..");
    good.then_some(()).ok_or_else(|| Problem::InvalidName { field, value: value.to_owned(), limit })
}

fn required_text(object: &Map<String, Value>, field: &'static str) -> Result<String, Problem> {
    match object.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None | Some(Value::Null | Value::String(_)) => Err(Problem::Missing(field)),
        Some(other) => Err(wrong_type(field, "a string", other)),
    }
}

fn optional_text(metadata: &Map<String, Value>, key: &str) -> Result<Option<String>, Problem> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong_type(&format!("metadata.{key}"), "a string", other)),
    }
}

fn text_map(metadata: &Map<String, Value>, key: &str) -> Result<BTreeMap<String, String>, Problem> {
    let field = |name: &str| format!("metadata.{key}[{name:?}]");
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                other => Err(wrong_type(&field(name), "a string (put it in quotes)", other)),
            })
            .collect(),
        Some(other) => Err(wrong_type(&format!("metadata.{key}"), "a mapping", other)),
    }
}

fn wrong_type(field: &str, expected: &'static str, found: &Value) -> Problem {
    let found = match found {
        Value::Bool(_) | Value::Number(_) => format!("{} {found}", type_name(found)),
        _ => type_name(found).to_owned(),
    };
    Problem::WrongType { field: field.to_owned(), expected, found }
}

/// A value's type in the words of YAML.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
