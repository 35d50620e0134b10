//! What an installation tells its sidecars, read from the injector's Deployment: for whoever does by hand what the webhook does.
//!
//! The Deployment is the one place where it stands: flags, and variables in place of flags. They are understood by the very parser that the
//! injector reads them with.

use clap::{
    Args as _, Command, FromArgMatches as _,
    builder::{OsStr, Resettable},
};
use gamut_injector::Config;
use serde_json::Value;
use thiserror::Error;

use crate::config::InjectorArgs;

/// The Deployment's container can't be understood; another version may have made it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Deployment gamut-system/gamut-injector: {0}; use the `gamut` of its version")]
pub struct NotUnderstood(String);

/// What the sidecars of an installation are told, by its injector's Deployment.
///
/// # Errors
/// If it has no container, or one with settings that this version doesn't know.
pub fn sidecars_of(deployment: &Value) -> Result<Config, NotUnderstood> {
    let container = deployment
        .pointer("/spec/template/spec/containers/0")
        .ok_or_else(|| NotUnderstood("it has no container".to_owned()))?;
    let command = InjectorArgs::augment_args(Command::new("injector").no_binary_name(true));
    let words = words(container, &command);
    // What is set here has nothing to do with what is set there.
    let command = command.mut_args(|argument| argument.env(Resettable::<OsStr>::Reset));
    let parsed = command.try_get_matches_from(words).and_then(|found| InjectorArgs::from_arg_matches(&found));
    let args = parsed.map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        NotUnderstood(line.trim_start_matches("error: ").to_owned())
    })?;
    Ok(args.sidecars())
}

/// A container's arguments, and as flags what its variables say that no flag does.
fn words(container: &Value, command: &Command) -> Vec<String> {
    let list = |field: &str| container.get(field).and_then(Value::as_array).into_iter().flatten();
    // The first is the subcommand.
    let mut words: Vec<String> = list("args").skip(1).filter_map(Value::as_str).map(str::to_owned).collect();
    for argument in command.get_arguments() {
        let (Some(variable), Some(flag)) = (argument.get_env(), argument.get_long()) else { continue };
        let is_flag =
            |word: &String| word.strip_prefix("--").is_some_and(|rest| rest.split('=').next() == Some(flag));
        let said = list("env").find(|it| it.get("name").and_then(Value::as_str) == variable.to_str());
        // What comes from elsewhere, such as the pod's own name, is nothing that sidecars are told.
        let value = said.and_then(|said| said.get("value")).and_then(Value::as_str);
        if let Some(value) = value.filter(|_| !words.iter().any(is_flag)) {
            words.push(format!("--{flag}={value}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(args: Value, env: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "injector", "args": args, "env": env}]}}}})
    }

    #[test]
    fn what_the_chart_sets_is_what_sidecars_are_told() {
        let env = json!([
            {"name": "GAMUT_LOG", "value": "info"},
            {"name": "GAMUT_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "GAMUT_TRUST_DOMAIN", "value": "prod.example.com"},
            {"name": "GAMUT_SIDECAR_IMAGE", "value": "registry.example.com/mesh/gamut-proxy:edge"},
            {"name": "GAMUT_SIDECAR_IMAGE_PULL_POLICY", "value": "Always"},
            {"name": "GAMUT_SIDECAR_MEMORY_LIMIT", "value": "256Mi"},
            {"name": "GAMUT_SIDECAR_LOG", "value": "-1"},
        ]);
        let error = sidecars_of(&deployment(json!(["injector"]), env.clone())).unwrap_err().to_string();
        assert!(error.contains("--sidecar-log") && error.contains("gamut-injector"), "{error}");

        let env: Vec<Value> = env.as_array().unwrap().iter().take(6).cloned().collect();
        let config = sidecars_of(&deployment(json!(["injector"]), env.into())).unwrap();
        assert_eq!(config.image, "registry.example.com/mesh/gamut-proxy:edge");
        assert_eq!(config.image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(config.trust_domain, "prod.example.com");
        assert_eq!(config.resources.memory_limit.as_deref(), Some("256Mi"));
        assert_eq!(config.drain_time, Config::default().drain_time);
    }

    #[test]
    fn a_flag_wins_over_its_variable_as_in_the_process() {
        let env = json!([{"name": "GAMUT_TRUST_DOMAIN", "value": "variable"}]);
        for flag in
            [json!(["injector", "--trust-domain=flag"]), json!(["injector", "--trust-domain", "flag"])]
        {
            assert_eq!(sidecars_of(&deployment(flag, env.clone())).unwrap().trust_domain, "flag");
        }
    }

    #[test]
    fn what_is_no_injector_of_this_version_is_an_error() {
        assert!(sidecars_of(&json!({})).is_err());
        let error = sidecars_of(&deployment(json!(["injector", "--newer"]), json!([]))).unwrap_err();
        assert!(error.to_string().contains("--newer"), "{error}");
    }
}
