//! Who reaches the control plane's pods: each Deployment has one NetworkPolicy, which is about its pods and about the ports that these
//! really have. What Services and webhooks lead to is open to everybody, what is measured to whoever the values name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{objects, template};

/// The pods that a Deployment makes, as a network knows them.
struct Pods<'a> {
    name: &'a str,
    namespace: &'a str,
    labels: &'a Value,
    /// By name, as probes and Services have them.
    ports: BTreeMap<&'a str, u64>,
    /// What the environment of their process says about where it is administrated.
    admin: u64,
}

impl<'a> Pods<'a> {
    fn of(deployment: &'a Value) -> Self {
        let pod = &deployment["spec"]["template"];
        let [container] = list(&pod["spec"]["containers"]) else { panic!("one container each") };
        let port = |port: &'a Value| (text(&port["name"]), port["containerPort"].as_u64().unwrap());
        let mut variables = list(&container["env"]).iter();
        let admin = variables.find(|variable| text(&variable["name"]).ends_with("_ADMIN")).unwrap();
        let (_, admin) = text(&admin["value"]).rsplit_once(':').unwrap();
        Self {
            name: text(&deployment["metadata"]["name"]),
            namespace: text(&deployment["metadata"]["namespace"]),
            labels: &pod["metadata"]["labels"],
            ports: list(&container["ports"]).iter().map(port).collect(),
            admin: admin.parse().unwrap(),
        }
    }

    /// Whether an object's selector of labels chooses them.
    fn are_chosen_by(&self, object: &Value, selector: &Value) -> bool {
        let labels = selector.as_object().expect("a selector");
        text(&object["metadata"]["namespace"]) == self.namespace
            && labels.iter().all(|(label, value)| self.labels.get(label) == Some(value))
    }

    /// The port that a Service or a probe names.
    fn port(&self, named: &Value) -> u64 {
        named.as_u64().or_else(|| self.ports.get(text(named)).copied()).expect("a port that they have")
    }
}

#[test]
fn every_port_of_the_control_plane_is_open_to_who_needs_it_and_no_policy_is_about_anything_else() {
    for (values, scrapers) in
        [(&[][..], false), (&["metrics.from[0].podSelector.matchLabels.app=prometheus"], true)]
    {
        let Some(rendered) = template(values) else { return };
        let objects: Vec<Value> = objects(&rendered.unwrap()).collect();
        let of_kind =
            |kind: &str| -> Vec<&Value> { objects.iter().filter(|it| it["kind"] == kind).collect() };
        let policies = of_kind("NetworkPolicy");
        let deployments = of_kind("Deployment");
        assert_eq!((policies.len(), deployments.len()), (3, 3));
        for deployment in deployments {
            let pods = Pods::of(deployment);
            let name = pods.name;
            let chosen =
                |policy: &&&Value| pods.are_chosen_by(policy, &policy["spec"]["podSelector"]["matchLabels"]);
            let about: Vec<&&Value> = policies.iter().filter(chosen).collect();
            let [policy] = about.as_slice() else { panic!("{} policies are about {name}", about.len()) };
            assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]), "{name}");

            let mut called = BTreeSet::new();
            for service in of_kind("Service") {
                if pods.are_chosen_by(service, &service["spec"]["selector"]) {
                    called.extend(
                        list(&service["spec"]["ports"]).iter().map(|it| pods.port(&it["targetPort"])),
                    );
                }
            }
            let measured = BTreeSet::from([pods.admin]);
            assert_eq!(pods.ports.get("admin"), Some(&pods.admin), "{name}");
            let all: BTreeSet<u64> = pods.ports.values().copied().collect();
            assert_eq!(&called | &measured, all, "{name}");
            let (everybody, some) = (opened(policy, false), opened(policy, true));
            match scrapers {
                true => assert_eq!((everybody, some), (called, measured), "{name}"),
                false => assert_eq!((everybody, some), (all, BTreeSet::new()), "{name}"),
            }
        }
    }
}

/// The ports that a policy opens: to everybody, or to some.
fn opened(policy: &Value, to_some: bool) -> BTreeSet<u64> {
    let rules = list(&policy["spec"]["ingress"]).iter();
    let rules = rules.filter(|rule| rule.get("from").is_some() == to_some);
    let ports = rules.flat_map(|rule| list(&rule["ports"]));
    ports
        .map(|port| {
            assert_eq!(port["protocol"], "TCP");
            port["port"].as_u64().expect("a number")
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
