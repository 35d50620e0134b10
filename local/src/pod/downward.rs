//! The downward API: what a pod may be told about itself.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;

use crate::net::addresses::{NODE_V4, NODE_V6};

/// A pod's field as text; `None` for one that can't be had this way. `addresses` are the pod's own, IPv4 first.
pub(crate) fn field(path: &str, pod: &Pod, addresses: &[IpAddr]) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let joined = |addresses: Vec<String>| addresses.join(",");
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(listing(metadata.labels.as_ref())),
        "metadata.annotations" => Some(listing(metadata.annotations.as_ref())),
        "spec.nodeName" => Some(spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default()),
        "spec.serviceAccountName" => Some(service_account(pod).to_owned()),
        "status.podIP" => addresses.first().map(IpAddr::to_string),
        "status.podIPs" => Some(joined(addresses.iter().map(IpAddr::to_string).collect())),
        "status.hostIP" => Some(NODE_V4.to_string()),
        "status.hostIPs" => {
            let families = addresses.iter().map(|address| match address {
                IpAddr::V4(_) => NODE_V4.to_string(),
                IpAddr::V6(_) => NODE_V6.to_string(),
            });
            Some(joined(families.collect()))
        }
        _ => {
            let (list, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match list {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => return None,
            };
            Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
        }
    }
}

/// A pod's service account.
pub(crate) fn service_account(pod: &Pod) -> &str {
    let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// One `key="value"` a line, as kubelet writes them.
fn listing(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_told_what_it_asks_for() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "demo", "uid": "u", "labels": {"app": "web", "tier": "a\"b"}},
            "spec": {"containers": []}
        }))
        .unwrap();
        let addresses = ["10.244.0.20".parse().unwrap(), "fd00:10:244::14".parse().unwrap()];
        let told = |path| field(path, &pod, &addresses);
        assert_eq!(told("metadata.labels['app']").as_deref(), Some("web"));
        assert_eq!(told("metadata.labels['none']").as_deref(), Some(""));
        assert_eq!(told("metadata.labels").as_deref(), Some("app=\"web\"\ntier=\"a\\\"b\""));
        assert_eq!(told("status.podIP").as_deref(), Some("10.244.0.20"));
        assert_eq!(told("status.podIPs").as_deref(), Some("10.244.0.20,fd00:10:244::14"));
        assert_eq!(told("spec.serviceAccountName").as_deref(), Some("default"));
        assert_eq!(told("spec.containers"), None);
        assert_eq!(told("metadata.labels['app"), None);
    }
}
