//! What the chart allows to whom: as the reference says, no Secret to who isn't its owner, and nothing that isn't used.
//!
//! What was used, the API server of the test cluster knows: `GAMUT_AUDIT_LOG` names its audit log (`audit.log` in the cluster's state directory), after the tests
//! and the official suite have run there.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
};

use serde_json::Value;

use crate::{objects, template};

/// Group, resource (with its subresource), name (or `*`) and verb.
type Permission = [String; 4];

/// What no run of the tests is long enough for, by account; and the code that takes it.
const SELDOM: &[(&str, [&str; 4], &str)] = &[
    (
        "gamut-controller",
        ["", "secrets", "gamut-session-keys", "update"],
        "session keys are replaced after days: controller/src/status/rotation.rs",
    ),
    (
        "gamut-injector",
        ["", "namespaces", "*", "get"],
        "a namespace is read when the watch is behind the API server that asks: injector/webhook/src/admit.rs",
    ),
];

#[test]
fn roles_allow_what_the_reference_says_and_no_more() {
    let Some(rendered) = template(&[]) else { return };
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/kubernetes.md"));
    let page = page.unwrap();
    let (_, documented) = page.split_once("```yaml\n").expect("the page lists the roles");
    let (documented, _) = documented.split_once("```").expect("the list ends");
    assert_eq!(permissions(&rendered.unwrap()), permissions(documented));
}

#[test]
fn nobody_but_the_ca_may_read_its_key() {
    let Some(rendered) = template(&[]) else { return };
    let mut readers = Vec::new();
    for (role, allowed) in permissions(&rendered.unwrap()) {
        let reads = |[group, resource, name, verb]: &Permission| {
            group.is_empty()
                && ["secrets", "*"].contains(&resource.as_str())
                && ["gamut-ca", "*"].contains(&name.as_str())
                && !["create", "delete"].contains(&verb.as_str())
        };
        readers.extend(allowed.iter().any(reads).then_some(role));
    }
    assert_eq!(readers, [r#""Role" "gamut-ca""#]);
}

#[test]
fn a_secret_of_the_users_survives_the_uninstallation_whatever_it_is_called() {
    for (value, kept) in [("ca.existingSecret=gamut-ca", true), ("ca.existingSecret=our-pki", false)] {
        let Some(rendered) = template(&[value]) else { return };
        let allowed = permissions(&rendered.unwrap()).remove(r#""Role" "gamut-cleanup""#).unwrap();
        let deletes = ["", "secrets", "gamut-ca", "delete"].map(str::to_owned);
        assert_eq!(!allowed.contains(&deletes), kept, "{value}");
    }
}

#[test]
fn nothing_is_allowed_that_is_never_used() {
    let Some(path) = env::var_os("GAMUT_AUDIT_LOG") else {
        println!("skipped: GAMUT_AUDIT_LOG doesn't name the audit log of a test cluster after its tests");
        return;
    };
    let Some(rendered) = template(&[]) else { return };
    let used = used(&fs::read_to_string(path).unwrap());
    let (mut superfluous, nothing) = (BTreeSet::new(), BTreeSet::new());
    for (role, permissions) in permissions(&rendered.unwrap()) {
        let account = role.split('"').nth(3).unwrap().to_owned();
        let of_account = used.get(&account).unwrap_or(&nothing);
        for permission in permissions {
            let [group, resource, name, verb] = &permission;
            let is_it = |[of, kind, one, how]: &Permission| {
                (of, kind, how) == (group, resource, verb) && (name == "*" || name == one)
            };
            let seldom = SELDOM.iter().any(|(whose, what, _)| *whose == account && permission == *what);
            if !of_account.iter().any(is_it) && !seldom {
                superfluous.insert((account.clone(), permission));
            }
        }
    }
    assert!(superfluous.is_empty(), "granted and never used: {superfluous:#?}");
}

/// What each of our accounts asked for and was allowed.
fn used(log: &str) -> BTreeMap<String, BTreeSet<Permission>> {
    let mut used: BTreeMap<String, BTreeSet<Permission>> = BTreeMap::new();
    for line in log.lines() {
        // The API server may be writing the last one.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let account = text("/user/username").strip_prefix("system:serviceaccount:gamut-system:");
        let (Some(account), "allow") = (account, text("/annotations/authorization.k8s.io~1decision")) else {
            continue;
        };
        let resource = match text("/objectRef/subresource") {
            "" => text("/objectRef/resource").to_owned(),
            subresource => format!("{}/{subresource}", text("/objectRef/resource")),
        };
        let permission = [text("/objectRef/apiGroup"), &resource, text("/objectRef/name"), text("/verb")];
        used.entry(account.to_owned()).or_default().insert(permission.map(str::to_owned));
    }
    used
}

/// What each role allows.
fn permissions(manifests: &str) -> BTreeMap<String, BTreeSet<Permission>> {
    let roles = objects(manifests)
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    roles.map(|role| (format!("{} {}", role["kind"], role["metadata"]["name"]), allowed(&role))).collect()
}

fn allowed(role: &Value) -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let words = |field: &str| -> Vec<String> {
            let words = rule[field].as_array().into_iter().flatten();
            words.map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let names = Some(words("resourceNames")).filter(|it| !it.is_empty()).unwrap_or(vec!["*".to_owned()]);
        for group in words("apiGroups") {
            for resource in words("resources") {
                for name in &names {
                    for verb in words("verbs") {
                        all.insert([group.clone(), resource.clone(), name.clone(), verb]);
                    }
                }
            }
        }
    }
    all
}
