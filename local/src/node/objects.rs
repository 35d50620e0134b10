//! The cluster's objects: "the API server" of one machine.
//!
//! They are kept in memory and, for the controller to read, one file each: `<Kind>/<namespace>.<name>.json`, replaced whole.
//! `resourceVersion` counts changes, as an API server's does.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use gamut_manifest::ObjectId;
use serde_json::Value;

use crate::pod::files::replace;

/// All objects that the node owns.
#[derive(Debug)]
pub(crate) struct Objects {
    directory: PathBuf,
    objects: BTreeMap<ObjectId, Value>,
    version: u64,
}

impl Objects {
    /// No objects yet, to be kept below a directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), objects: BTreeMap::new(), version: 0 }
    }

    /// Creates or replaces an object; whether that has changed anything.
    ///
    /// # Errors
    /// Its file can't be written; it counts as unchanged then and will be written the next time.
    pub(crate) fn put(&mut self, mut object: Value) -> io::Result<bool> {
        let id = id_of(&object);
        let known = self.objects.get(&id);
        let version = known.and_then(|known| known.pointer("/metadata/resourceVersion")).cloned();
        set_version(&mut object, version);
        if known == Some(&object) {
            return Ok(false);
        }
        self.version += 1;
        set_version(&mut object, Some(self.version.to_string().into()));
        replace(&self.file(&id), format!("{object:#}\n").as_bytes(), 0o644)?;
        self.objects.insert(id, object);
        Ok(true)
    }

    /// Removes an object; whether there was one.
    ///
    /// # Errors
    /// Its file can't be removed.
    pub(crate) fn remove(&mut self, id: &ObjectId) -> io::Result<bool> {
        if self.objects.remove(id).is_none() {
            return Ok(false);
        }
        self.version += 1;
        fs::remove_file(self.file(id)).map(|()| true)
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Value> {
        self.objects.get(id)
    }

    /// All objects of a kind, by namespace and name.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a ObjectId, &'a Value)> {
        self.objects.iter().filter(move |(id, _)| id.kind == kind)
    }

    /// How often anything has changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn file(&self, id: &ObjectId) -> PathBuf {
        self.directory.join(file_name(id))
    }
}

/// An object's file below a directory of kinds.
pub(crate) fn file_name(id: &ObjectId) -> PathBuf {
    let name = match &id.namespace {
        Some(namespace) => format!("{namespace}.{}.json", id.name),
        None => format!("{}.json", id.name),
    };
    Path::new(&id.kind).join(name)
}

/// An object's identity.
pub(crate) fn id_of(object: &Value) -> ObjectId {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    ObjectId {
        kind: text("/kind").unwrap_or_default(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    }
}

/// The identity of a namespaced object.
pub(crate) fn id(kind: &str, namespace: &str, name: &str) -> ObjectId {
    ObjectId { kind: kind.to_owned(), namespace: Some(namespace.to_owned()), name: name.to_owned() }
}

fn set_version(object: &mut Value, version: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match version {
        Some(version) => metadata.insert("resourceVersion".to_owned(), version),
        None => metadata.shift_remove("resourceVersion"),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(name: &str, value: &str) -> Value {
        let metadata = json!({"namespace": "demo", "name": name});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": value}})
    }

    #[test]
    fn an_object_is_written_when_it_changes_and_only_then() {
        let directory = tempfile::tempdir().unwrap();
        let mut objects = Objects::new(directory.path());
        let file = directory.path().join("ConfigMap/demo.a.json");
        let read = || serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap();

        assert!(objects.put(map("a", "1")).unwrap());
        assert_eq!(read()["metadata"]["resourceVersion"], "1");
        assert!(!objects.put(map("a", "1")).unwrap());
        assert!(objects.put(map("a", "2")).unwrap());
        assert_eq!(
            (&read()["data"]["k"], &read()["metadata"]["resourceVersion"]),
            (&json!("2"), &json!("2"))
        );
        assert!(objects.remove(&id("ConfigMap", "demo", "a")).unwrap());
        assert!(!objects.remove(&id("ConfigMap", "demo", "a")).unwrap());
        assert!(!file.exists());
    }
}
