//! A container's environment and arguments: values looked up, `$(VARIABLES)` expanded.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{EnvVarSource, Pod};
use thiserror::Error;

use super::{
    data::{Data, Source},
    downward,
    plan::ContainerPlan,
};

/// Where programs are looked for: our own executable first, whatever the machine has by that name, then as container
/// runtimes have it.
const PATH: &str = "/run/gamut/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A value that can't be had.
#[derive(Debug, PartialEq, Error)]
pub(crate) enum EnvironmentError {
    #[error("env {variable} waits for {kind} {name}, which doesn't exist (yet)", kind = .from.kind())]
    Missing { variable: String, from: Source, name: String },
    #[error("env {variable}: {kind} {name} has no key {key:?}; add it or mark the reference optional", kind = .from.kind())]
    MissingKey { variable: String, from: Source, name: String, key: String },
    #[error("env {variable}: fieldPath {path:?} is not supported; see the downward API's list of fields")]
    Field { variable: String, path: String },
    #[error(
        "env {variable}: resourceFieldRef is not supported by gamut up, which enforces no limits; use a value"
    )]
    Resource { variable: String },
}

/// What a container is started with.
#[derive(Debug, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) arguments: Vec<String>,
    /// Including what every container gets.
    pub(crate) environment: Vec<(String, String)>,
    /// Only what the manifest says.
    pub(crate) declared: Vec<(String, String)>,
}

/// Looks up and expands everything.
///
/// # Errors
/// The first value that can't be had; [`EnvironmentError::Missing`] may pass with time.
pub(crate) fn resolve(
    container: &ContainerPlan,
    pod: &Pod,
    addresses: &[IpAddr],
    data: &Data,
) -> Result<Resolved, EnvironmentError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut declared: BTreeMap<String, String> = BTreeMap::new();
    for from in &container.environment_from {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let config_map = from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, r.optional));
        let secret = from.secret_ref.as_ref().map(|r| (Source::Secret, &r.name, r.optional));
        for (source, name, optional) in config_map.into_iter().chain(secret) {
            match data.set(source, namespace, name) {
                Some(set) => {
                    declared.extend(set.iter().map(|(key, value)| (format!("{prefix}{key}"), text(value))))
                }
                None if optional == Some(true) => {}
                None => {
                    let variable = format!("{prefix}*");
                    return Err(EnvironmentError::Missing { variable, from: source, name: name.clone() });
                }
            }
        }
    }
    for variable in &container.environment {
        let value = match (&variable.value_from, &variable.value) {
            (Some(from), _) => look_up(&variable.name, from, pod, addresses, data)?,
            (None, value) => Some(expand(value.as_deref().unwrap_or_default(), &declared)),
        };
        declared.extend(value.map(|value| (variable.name.clone(), value)));
    }

    let arguments = container.arguments.iter().map(|argument| expand(argument, &declared)).collect();
    let home = if container.user.user == 0 { "/root" } else { "/" };
    let host_name = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).or(pod.metadata.name.clone());
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
        ("HOSTNAME".to_owned(), host_name.unwrap_or_default()),
    ]);
    environment.extend(declared.clone());
    Ok(Resolved {
        arguments,
        environment: environment.into_iter().collect(),
        declared: declared.into_iter().collect(),
    })
}

/// `None`: an optional reference that leads nowhere, so the variable isn't set.
fn look_up(
    variable: &str,
    from: &EnvVarSource,
    pod: &Pod,
    addresses: &[IpAddr],
    data: &Data,
) -> Result<Option<String>, EnvironmentError> {
    let variable = variable.to_owned();
    if let Some(reference) = &from.field_ref {
        let found = downward::field(&reference.field_path, pod, addresses);
        let missing = EnvironmentError::Field { variable, path: reference.field_path.clone() };
        return found.map(Some).ok_or(missing);
    }
    let config_map =
        from.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, &r.key, r.optional));
    let secret = from.secret_key_ref.as_ref().map(|r| (Source::Secret, &r.name, &r.key, r.optional));
    let Some((source, name, key, optional)) = config_map.or(secret) else {
        return Err(EnvironmentError::Resource { variable });
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let set = data.set(source, namespace, name);
    match (set, set.and_then(|set| set.get(key))) {
        (_, Some(value)) => Ok(Some(text(value))),
        _ if optional == Some(true) => Ok(None),
        (None, _) => Err(EnvironmentError::Missing { variable, from: source, name: name.clone() }),
        (Some(_), None) => {
            Err(EnvironmentError::MissingKey { variable, from: source, name: name.clone(), key: key.clone() })
        }
    }
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; a name that isn't known stays as it is. As Kubernetes does.
fn expand(template: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = template;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Environment variables are text; what isn't UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::plan;

    fn resolve_env(container: Value) -> Result<Resolved, EnvironmentError> {
        let mut object = json!({
            "metadata": {"name": "web-1", "namespace": "demo", "uid": "u"},
            "spec": {"containers": [{"name": "app", "image": "x", "command": ["run", "$(GREETING)", "$(NONE)"]}]}
        });
        for (key, value) in container.as_object().unwrap() {
            object["spec"]["containers"][0][key] = value.clone();
        }
        let mut data = Data::default();
        data.add(
            &json!({"kind": "ConfigMap", "metadata": {"namespace": "demo", "name": "c"}, "data": {"k": "v"}}),
        );
        data.add(&json!({"kind": "Secret", "metadata": {"namespace": "other", "name": "s"}, "data": {}}));
        let plan = plan::plan(&object).unwrap();
        resolve(&plan.containers[0], &plan.pod, &["10.244.0.20".parse().unwrap()], &data)
    }

    #[test]
    fn later_variables_and_arguments_see_earlier_variables() {
        let resolved = resolve_env(json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}],
            "env": [
                {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "GREETING", "value": "hello $(WHO) $(P_k) $$(WHO) $(LATER)"},
                {"name": "LATER", "value": "x"},
            ]
        }))
        .unwrap();
        assert_eq!(resolved.arguments, ["run", "hello 10.244.0.20 v $(WHO) $(LATER)", "$(NONE)"]);
        let declared: Vec<&str> = resolved.declared.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(declared, ["GREETING", "LATER", "P_k", "WHO"]);
        assert!(resolved.environment.contains(&("HOSTNAME".into(), "web-1".into())));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_told_unless_it_is_optional() {
        let secret = |optional: bool| {
            let from = json!({"secretKeyRef": {"name": "s", "key": "k", "optional": optional}});
            resolve_env(json!({"env": [{"name": "A", "valueFrom": from}]}))
        };
        let missing =
            EnvironmentError::Missing { variable: "A".into(), from: Source::Secret, name: "s".into() };
        assert_eq!(secret(false).unwrap_err(), missing, "the Secret is another namespace's");
        assert!(secret(true).unwrap().declared.is_empty());
        let from = json!({"configMapKeyRef": {"name": "c", "key": "z"}});
        let no_key = resolve_env(json!({"env": [{"name": "A", "valueFrom": from}]})).unwrap_err();
        assert!(matches!(no_key, EnvironmentError::MissingKey { .. }), "{no_key}");
        let from = json!({"resourceFieldRef": {"resource": "limits.cpu"}});
        let resource = resolve_env(json!({"env": [{"name": "A", "valueFrom": from}]})).unwrap_err();
        assert_eq!(resource, EnvironmentError::Resource { variable: "A".into() });
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_left_alone(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }

        #[test]
        fn escaped_text_comes_out_as_it_was(text in ".*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &BTreeMap::from([("A".into(), "x".into())])), text);
        }
    }
}
