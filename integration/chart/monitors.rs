//! What the monitors select is there: pods and Services as the chart renders and the injector patches them, with a port of that name on which
//! metrics are served, and which a NetworkPolicy lets through.

use gamut_injector::Config;
use serde_json::{Value, json};

use crate::{injected, objects, template};

const PARTS: [&str; 3] = ["gamut-ca", "gamut-controller", "gamut-injector"];

/// Whether labels are all that a selector of labels asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    assert!(!wanted.is_empty(), "it would select everything");
    wanted.iter().all(|(name, value)| labels[name] == *value)
}

/// The number of a pod's port of this name. Native sidecars are init containers, whose ports Prometheus discovers too.
fn port(pod: &Value, name: &str) -> Option<u64> {
    let containers = ["initContainers", "containers"].map(|field| pod["spec"][field].as_array());
    let mut ports =
        containers.into_iter().flatten().flatten().filter_map(|it| it["ports"].as_array()).flatten();
    ports.find(|port| port["name"] == name)?["containerPort"].as_u64()
}

/// The objects of a kind, with their names.
fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<(&'a str, &'a Value)> {
    let of_kind = all.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| (object["metadata"]["name"].as_str().unwrap(), object)).collect()
}

/// The parts whose pods a selector selects, and the template of the last of them.
fn selected<'a>(all: &'a [Value], selector: &Value) -> (Vec<&'a str>, &'a Value) {
    let mut deployments = of_kind(all, "Deployment");
    deployments.retain(|(_, it)| selects(selector, &it["spec"]["template"]["metadata"]["labels"]));
    let template = deployments.last().map_or(&Value::Null, |(_, it)| &it["spec"]["template"]);
    (deployments.into_iter().map(|(name, _)| name).collect(), template)
}

/// Whether a NetworkPolicy lets scrapers from anywhere through to a port of these pods.
fn is_let_through(all: &[Value], pod: &Value, port: u64) -> bool {
    let mut policies = of_kind(all, "NetworkPolicy").into_iter().map(|(_, policy)| &policy["spec"]);
    policies.any(|policy| {
        let mut rules = policy["ingress"].as_array().unwrap().iter();
        selects(&policy["podSelector"]["matchLabels"], &pod["metadata"]["labels"])
            && rules.any(|rule| rule.get("from").is_none() && rule["ports"][0]["port"] == port)
    })
}

#[test]
fn a_pod_monitor_selects_the_pods_of_one_part_and_a_port_that_serves_metrics() {
    let Some(rendered) = template(&["metrics.podMonitors=true"]) else { return };
    let all: Vec<Value> = objects(&rendered.unwrap()).collect();
    let mut seen = Vec::new();
    for (name, monitor) in of_kind(&all, "PodMonitor") {
        let (selector, endpoint) =
            (&monitor["spec"]["selector"]["matchLabels"], &monitor["spec"]["podMetricsEndpoints"][0]);
        let (wanted, sidecar) = (endpoint["port"].as_str().unwrap(), injected(&Config::default()));
        assert_eq!(endpoint["path"], "/metrics");
        let (parts, template) = selected(&all, selector);
        if name == "gamut-sidecars" {
            assert!(selects(selector, &sidecar["metadata"]["labels"]), "{sidecar:#}");
            assert_eq!((parts.len(), port(&sidecar, wanted)), (0, Some(15020)));
            assert_eq!(monitor["spec"]["namespaceSelector"], json!({"any": true}));
        } else {
            assert!(!selects(selector, &sidecar["metadata"]["labels"]));
            assert_eq!(parts, [name]);
            let port = port(template, wanted).unwrap_or_else(|| panic!("{name} has no port {wanted}"));
            assert!(is_let_through(&all, template, port), "{name}: {port}");
            let listens = format!("[::]:{port}");
            assert!(
                template["spec"].to_string().contains(&listens),
                "{name} listens elsewhere than on {listens}"
            );
        }
        seen.push(name);
    }
    seen.sort_unstable();
    assert_eq!(seen, [&PARTS[..], &["gamut-sidecars"]].concat());
}

#[test]
fn a_service_monitor_selects_the_service_of_one_part_and_a_port_of_the_pods_behind_it() {
    let Some(rendered) = template(&["metrics.serviceMonitors=true"]) else { return };
    let all: Vec<Value> = objects(&rendered.unwrap()).collect();
    let mut seen = Vec::new();
    for (name, monitor) in of_kind(&all, "ServiceMonitor") {
        let mut services = of_kind(&all, "Service");
        services.retain(|(_, it)| {
            selects(&monitor["spec"]["selector"]["matchLabels"], &it["metadata"]["labels"])
        });
        let [(service, object)] = services[..] else { panic!("{name} selects {services:?}") };
        let (parts, template) = selected(&all, &object["spec"]["selector"]);
        assert_eq!((service, &parts[..]), (name, &[name][..]));
        let endpoint = &monitor["spec"]["endpoints"][0];
        let wanted = endpoint["targetPort"].as_str().unwrap();
        let port = port(template, wanted).unwrap_or_else(|| panic!("{name} has no port {wanted}"));
        assert!(is_let_through(&all, template, port) && endpoint["path"] == "/metrics", "{name}: {port}");
        seen.push(name);
    }
    seen.sort_unstable();
    assert_eq!(seen, PARTS);
}
