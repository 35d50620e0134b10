//! Manifests in, resources and conditions out.
//!
//! Every file `golden/<topic>/<what it shows>.yaml` is read together with `golden/base.yaml`. The comment at
//! its top says what it shows and, in lines `# show: ...`, which resources to look at:
//!
//! ```text
//! # show: table shop/web:80 for shop        the route table for clients of a namespace
//! # show: endpoints service/shop/web:80     an endpoint set
//! # show: address 10.96.0.1:80              what an address is
//! # show: policy shop/web-1                 how a pod takes traffic in
//! # show: trust                             how many roots there are
//! # show: session-keys for shop             the scopes of the shown tables, and whether a namespace has their keys
//! # set: requireReferenceGrant              a setting
//! ```
//!
//! The conditions of the file's own routes, policies and XBackends, and objects that can't be read, are
//! always shown. Expected output stands beside the file. `INSTA_UPDATE=always cargo test -p gamut-controller
//! --test golden` writes it; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use gamut_controller::{
    compile::{self, Condition},
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_controller_api::{Body, Key};
use gamut_manifest::{Object, load};
use gamut_route::{NamespacedName, Uid};
use serde_json::{Map, Value, json};

#[test]
fn manifests_become_what_the_golden_files_say() {
    insta::glob!("golden", "*/*.yaml", |path| {
        let text = fs::read_to_string(path).unwrap();
        let directives: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let story: Vec<&str> = directives.iter().map(|line| line.trim_start_matches(['#', ' '])).collect();
        let description = story.iter().filter(|line| !line.starts_with("show:") && !line.starts_with("set:"));
        let shown = rendered(path, &story);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().unwrap());
        settings.set_prepend_module_to_snapshot(false);
        settings.remove_snapshot_suffix();
        settings.remove_input_file();
        settings.set_omit_expression(true);
        settings.set_description(description.copied().collect::<Vec<_>>().join(" "));
        settings.bind(|| insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), shown));
    });
}

fn rendered(path: &Path, story: &[&str]) -> String {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/base.yaml");
    let (own, errors) = load(&[path.to_path_buf()]);
    assert!(errors.is_empty(), "{errors:?}");
    let (all, errors) = load(&[base, path.to_path_buf()]);
    assert!(errors.is_empty(), "{errors:?}");

    let require_reference_grant = story.contains(&"set: requireReferenceGrant");
    let mut index = Index::new(Settings { require_reference_grant, ..Settings::default() });
    let mut events: Vec<SourceEvent> =
        all.iter().map(|object| SourceEvent::Applied(Box::new(object.clone()))).collect();
    events.push(SourceEvent::Synced);
    index.apply(events);

    let mut shown = Map::new();
    shown.insert("conditions".to_owned(), conditions(&index, &own));
    let broken: Map<String, Value> =
        index.broken().iter().map(|(id, why)| (id.to_string(), why.clone().into())).collect();
    if !broken.is_empty() {
        shown.insert("broken".to_owned(), broken.into());
    }
    let mut scopes = Vec::new();
    for what in story.iter().filter_map(|line| line.strip_prefix("show: ")) {
        let value = match what.strip_prefix("session-keys for ") {
            Some(namespace) => session_keys(&index, namespace, &scopes),
            None => resource(&index, &all, what, &mut scopes),
        };
        shown.insert(what.to_owned(), value);
    }
    serde_json::to_string_pretty(&shown).unwrap()
}

/// The conditions of the file's own objects, as one line each: what a reader of a status sees.
fn conditions(index: &Index, own: &[Object]) -> Value {
    let mut shown = Map::new();
    for (route, parents) in index.statuses() {
        let reference = &route.route.reference;
        let is_own = own.iter().any(|object| {
            object.kind == reference.kind.as_str()
                && object.name == reference.name.name
                && object.namespace.as_deref() == Some(reference.name.namespace.as_str())
        });
        if is_own {
            let parents = parents.iter().map(|parent| {
                let name = format!("{} of {}", place(parent), parent.parent.target(route.namespace()));
                (name, lines(&parent.conditions))
            });
            shown.insert(reference.to_string(), parents.collect());
        }
    }
    for policy in index.world().policies.values() {
        let targets = policy.spec.ok().map(|spec| spec.target_refs.clone()).unwrap_or_default();
        let of_target = targets.iter().map(|target| {
            (
                format!("{} {}", target.kind, target.name),
                lines(&[compile::policy_conditions(index.world(), policy, target)]),
            )
        });
        shown.insert(format!("xbackendtrafficpolicy/{}", policy.name), of_target.collect());
    }
    for backend in index.world().xbackends.values() {
        shown.insert(format!("xbackend/{}", backend.name), lines(&[compile::xbackend_condition(backend)]));
    }
    shown.into()
}

/// What of a Service a parentRef means.
fn place(parent: &compile::ParentConditions) -> String {
    match (&parent.parent.port, &parent.parent.section_name) {
        (Some(port), Some(name)) => format!("port {port} named {name}"),
        (Some(port), None) => format!("port {port}"),
        (None, Some(name)) => format!("port named {name}"),
        (None, None) => "all ports".to_owned(),
    }
}

fn lines(conditions: &[Condition]) -> Value {
    let line = |condition: &Condition| {
        let status = if condition.status { "True" } else { "False" };
        format!("{}={status} {}: {}", condition.kind, condition.reason.as_str(), condition.message)
    };
    conditions.iter().map(line).collect::<Vec<_>>().into()
}

fn resource(index: &Index, all: &[Object], what: &str, scopes: &mut Vec<String>) -> Value {
    let body = index.body(&key(all, what));
    match body {
        Body::RouteTable(table) => {
            scopes.extend(table.scopes().into_iter().map(str::to_owned));
            serde_json::to_value(&*table).unwrap()
        }
        Body::EndpointSet(set) => serde_json::to_value(&*set).unwrap(),
        Body::Address(answer) => serde_json::to_value(answer).unwrap(),
        Body::InboundPolicy(policy) => serde_json::to_value(&*policy).unwrap(),
        Body::TrustBundle(bundle) => json!({"roots": bundle.roots.len()}),
        Body::SessionKeys(keys) => json!({"ids": keys.keys.iter().map(|(id, _)| *id).collect::<Vec<_>>()}),
    }
}

fn key(all: &[Object], what: &str) -> Key {
    let words: Vec<&str> = what.split(' ').collect();
    match words.as_slice() {
        ["table", service, "for", namespace] => {
            Key::RouteTable { client_namespace: (*namespace).to_owned(), service: service.parse().unwrap() }
        }
        ["endpoints", id] => Key::EndpointSet(id.parse().unwrap()),
        ["address", address] => Key::Address(address.parse().unwrap()),
        ["policy", pod] => {
            let name: NamespacedName = pod.parse().unwrap();
            let is_pod = |object: &&Object| {
                object.kind == "Pod"
                    && object.name == name.name
                    && object.namespace.as_ref() == Some(&name.namespace)
            };
            let uid = all.iter().find(is_pod).map_or(Uid::default(), |object| Uid::of(&object.uid));
            Key::InboundPolicy(uid)
        }
        ["trust"] => Key::TrustBundle,
        other => panic!("unknown directive {other:?}"),
    }
}

/// Which of the scopes a namespace gets keys for, by the keys' ids. The one that seals comes first.
fn session_keys(index: &Index, namespace: &str, scopes: &[String]) -> Value {
    let of_scope = |scope: &String| {
        let key = Key::SessionKeys { client_namespace: namespace.to_owned(), scope: scope.clone() };
        let Body::SessionKeys(keys) = index.body(&key) else { panic!("another body than the key's") };
        (scope.clone(), json!(keys.keys.iter().map(|(id, _)| *id).collect::<Vec<_>>()))
    };
    scopes.iter().map(of_scope).collect::<Map<_, _>>().into()
}
