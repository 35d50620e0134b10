//! Readings of manifests compared: what has changed, for people, and whether two are the same, for who waits.

use std::collections::{BTreeMap, BTreeSet};

use gamut_manifest::{Object, ObjectId, Problem, Reading};
use serde_json::{Value, json};

use super::names;

/// The changes from one reading to the next: `added Service demo/web`. What was refused has changed nothing, and what wasn't among
/// those that were `held` before wasn't there.
pub(crate) fn changes(
    before: &Reading,
    held: &BTreeSet<ObjectId>,
    after: &Reading,
    refused: &BTreeSet<ObjectId>,
) -> Vec<String> {
    let contents = |reading: &Reading| -> BTreeMap<ObjectId, Value> {
        reading.objects.iter().map(|object| (object.id(), content(object))).collect()
    };
    let (mut before, after) = (contents(before), contents(after));
    before.retain(|id, _| held.contains(id));
    let ids: BTreeSet<&ObjectId> = before.keys().chain(after.keys()).collect();
    let taken = ids.into_iter().filter(|id| !refused.contains(*id));
    let lines = taken.filter_map(|id| match (before.get(id), after.get(id)) {
        (None, Some(_)) => Some(format!("added {id}")),
        (Some(_), None) => Some(format!("removed {id}")),
        (Some(old), Some(new)) if old != new => Some(format!("changed {id}")),
        _ => None,
    });
    lines.collect()
}

/// The same for readings that say the same. A reader that has seen more keeps what broken files held before; what they
/// hold doesn't count.
pub(crate) fn fingerprint(reading: &Reading) -> String {
    let errors = || reading.errors.iter().filter(|error| error.problem != Problem::KeptLastGood);
    let broken: BTreeSet<_> = errors().map(|error| error.file.as_path()).collect();
    let good = reading.objects.iter().filter(|object| !broken.contains(object.origin.file.as_path()));
    let objects: BTreeMap<String, Value> =
        good.map(|object| (object.id().to_string(), content(object))).collect();
    let errors: Vec<String> = errors().map(ToString::to_string).collect();
    names::hash(&json!([objects, errors]))
}

/// An object without what reading it fills in.
fn content(object: &Object) -> Value {
    let mut content = object.raw.clone();
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        for filled_in in ["creationTimestamp", "generation"] {
            metadata.shift_remove(filled_in);
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gamut_manifest::{Reader, load};

    use super::*;

    fn map(name: &str, value: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n---\n")
    }

    #[test]
    fn changes_are_told_by_object() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let read = |text: String| {
            fs::write(&file, text).unwrap();
            let (objects, errors) = load(std::slice::from_ref(&file));
            Reading { objects, errors }
        };
        let before = read(map("a", "1") + &map("b", "1"));
        let after = read(map("b", "2") + &map("c", "1"));
        let expected =
            ["removed ConfigMap default/a", "changed ConfigMap default/b", "added ConfigMap default/c"];
        let all = |reading: &Reading| reading.objects.iter().map(Object::id).collect::<BTreeSet<_>>();
        let none = BTreeSet::new();
        assert_eq!(changes(&before, &all(&before), &after, &none), expected);
        assert_eq!(changes(&after, &all(&after), &after, &none), [""; 0]);
        assert_eq!(changes(&before, &all(&before), &after, &all(&after)), ["removed ConfigMap default/a"]);
        let never_taken = ["added ConfigMap default/b", "added ConfigMap default/c"];
        assert_eq!(changes(&before, &none, &after, &none), never_taken);
    }

    #[test]
    fn a_fresh_reading_is_the_same_as_one_that_remembers() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let paths = [file.clone()];
        let mut reader = Reader::new(&paths);
        let fresh = || {
            let (objects, errors) = load(&paths);
            fingerprint(&Reading { objects, errors })
        };
        fs::write(&file, map("a", "1")).unwrap();
        let first = fingerprint(&reader.read());
        assert_eq!(first, fresh());
        fs::write(&file, map("a", "2")).unwrap();
        assert_ne!(first, fresh());
        assert_eq!(fingerprint(&reader.read()), fresh());
        fs::write(&file, "{broken").unwrap();
        assert_eq!(fingerprint(&reader.read()), fresh());
    }
}
