//! What the CA remembers of the roots that are published: a Secret that nobody else reads or writes.
//!
//! The ConfigMap that everybody reads is no memory: somebody may delete it or write into it while a root is being replaced, and the
//! old root, which leaves still lead to, would be forgotten, or a stranger's be taken for one. There is nothing secret in it: it is a
//! Secret because fewer people may write Secrets, and because clearing away ConfigMaps spares it.

use std::collections::BTreeMap;

use gamut_identity::SYSTEM_NAMESPACE;
use gamut_kubernetes::{ApiError, Cluster, Created, MANAGED_BY, Replaced, core};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{bundle::TRUST_BUNDLE_KEY, rotation::Published};

/// The Secret's name.
pub(super) const RECORD: &str = "gamut-ca-roots";
/// The entry beside the roots that holds their times.
const TIMES: &str = "times.json";

/// What a Secret remembers; `None` if there is no root in it.
pub(super) fn read(record: &Value) -> Option<Published> {
    let data = Secret::deserialize(record).ok()?.data?;
    let text = |entry: &str| data.get(entry).and_then(|ByteString(bytes)| str::from_utf8(bytes).ok());
    let published = Published::read(text(TRUST_BUNDLE_KEY)?, text(TIMES).unwrap_or_default());
    (!published.is_empty()).then_some(published)
}

/// Remembers. False if somebody else wrote in between.
pub(super) async fn write(
    cluster: &Cluster,
    before: Option<Value>,
    published: &Published,
) -> Result<bool, ApiError> {
    Ok(match before {
        Some(record) => {
            matches!(cluster.replace(&core::SECRET, &with(record, published)).await?, Replaced::Done(_))
        }
        None => matches!(cluster.create(&core::SECRET, &with(empty(), published)).await?, Created::New(_)),
    })
}

/// The Secret before anything is in it.
fn empty() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": RECORD, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "type": "Opaque",
    })
}

fn with(mut record: Value, published: &Published) -> Value {
    let entry = |text: String| ByteString(text.into_bytes());
    record["data"] = json!(BTreeMap::from([
        (TRUST_BUNDLE_KEY, entry(published.pem())),
        (TIMES, entry(published.times())),
    ]));
    record
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use gamut_identity::Roots;
    use jiff::Timestamp;

    use super::*;
    use crate::authority::{Authority, LEAF_LIFETIME};

    #[test]
    fn what_is_remembered_is_read_back_and_a_secret_without_a_root_is_no_memory() {
        let root = || {
            let stored = Authority::make("cluster.local", SystemTime::now()).unwrap();
            Roots::from_pem(stored.chain.as_bytes()).unwrap()
        };
        let published = Published::default().with(&root(), LEAF_LIFETIME, Timestamp::UNIX_EPOCH);
        let published = published.with(&root(), LEAF_LIFETIME, Timestamp::UNIX_EPOCH);
        assert_eq!(read(&with(empty(), &published)), Some(published.clone()));
        for spoiled in
            [empty(), with(empty(), &Published::default()), json!({"data": {"root.pem": "bm9uc2Vuc2U="}})]
        {
            assert_eq!(read(&spoiled), None);
        }
    }
}
