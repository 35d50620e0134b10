//! What pods read of the cluster's other objects: ConfigMaps and Secrets (in environment variables and volumes), and the
//! UIDs of service accounts (in tokens).

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    ConfigMap,
    Secret,
}

/// The contents of all ConfigMaps and Secrets, by kind, namespace and name, and the service accounts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Data {
    sets: BTreeMap<(Source, String, String), BTreeMap<String, Vec<u8>>>,
    service_accounts: BTreeMap<(String, String), String>,
}

impl Source {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

impl Data {
    /// Takes in a ConfigMap, Secret or ServiceAccount; other objects are none of its business.
    pub(crate) fn add(&mut self, object: &Value) {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let source = match object.get("kind").and_then(Value::as_str) {
            Some("ConfigMap") => Source::ConfigMap,
            Some("Secret") => Source::Secret,
            Some("ServiceAccount") => {
                let name = (text("/metadata/namespace"), text("/metadata/name"));
                self.service_accounts.insert(name, text("/metadata/uid"));
                return;
            }
            _ => return,
        };
        let (encoded, plain) = match source {
            Source::ConfigMap => ("binaryData", "data"),
            Source::Secret => ("data", "stringData"),
        };
        let fields = |name| object.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter);
        let mut set = BTreeMap::new();
        for (key, value) in fields(encoded) {
            let decoded = value.as_str().and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
            set.extend(decoded.map(|bytes| (key.clone(), bytes)));
        }
        for (key, value) in fields(plain) {
            set.extend(value.as_str().map(|text| (key.clone(), text.as_bytes().to_vec())));
        }
        self.sets.insert((source, text("/metadata/namespace"), text("/metadata/name")), set);
    }

    /// All keys of one ConfigMap or Secret.
    pub(crate) fn set(
        &self,
        source: Source,
        namespace: &str,
        name: &str,
    ) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.sets.get(&(source, namespace.to_owned(), name.to_owned()))
    }

    /// A service account's UID.
    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> Option<&str> {
        self.service_accounts.get(&(namespace.to_owned(), name.to_owned())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_decoded_and_plain_values_win() {
        let mut data = Data::default();
        data.add(&json!({
            "kind": "Secret", "metadata": {"namespace": "demo", "name": "s"},
            "data": {"a": "aGVsbG8=", "b": "b2xk"}, "stringData": {"b": "new"}
        }));
        let set = data.set(Source::Secret, "demo", "s").unwrap();
        assert_eq!((set["a"].as_slice(), set["b"].as_slice()), (&b"hello"[..], &b"new"[..]));
        assert_eq!(data.set(Source::ConfigMap, "demo", "s"), None);
    }
}
