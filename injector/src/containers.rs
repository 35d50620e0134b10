//! What is added to a pod: two containers and two volumes, written with Kubernetes' own types.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction,
        HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe,
        ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext,
        ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use crate::{
    config::{Config, Resources},
    names::{
        INIT_CONTAINER, METRICS_PORT, PROBE_PORT, PROBES_VARIABLE, PROXY_CONTAINER, PROXY_UID,
        ROOTS_CONFIG_MAP, ROOTS_DIRECTORY, ROOTS_KEY, ROOTS_VOLUME, TOKEN_AUDIENCE, TOKEN_DIRECTORY,
        TOKEN_VOLUME,
    },
    probes::Originals,
    settings::Settings,
};

/// The executable, found by its name in an image and by `gamut up` alike.
const EXECUTABLE: &str = "gamut";
/// What a container of ours prints last before it dies is in its pod's status then, where `kubectl describe pod` and `gamut check` show it.
const LAST_WORDS: &str = "FallbackToLogsOnError";
/// How often the sidecar may fail to be ready, a second apart, before the kubelet starts it again.
const STARTUP_TRIES: i32 = 120;

/// Writes the redirect rules and ends. Root, because Kubernetes gives no capabilities to other users, with NET_ADMIN alone.
pub(crate) fn init_container(settings: &Settings, config: &Config) -> Container {
    let mut env = vec![value("GAMUT_PROXY_UID", PROXY_UID.to_string())];
    env.extend(optional("GAMUT_SKIP_OUTBOUND_PORTS", &settings.skip_outbound_ports));
    env.extend(optional("GAMUT_SKIP_INBOUND_PORTS", &settings.skip_inbound_ports));
    env.extend(logging(settings, config));
    Container {
        name: INIT_CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: config.image_pull_policy.clone(),
        command: Some(command("init")),
        env: Some(env),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        resources: Some(resources(&settings.resources)),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            ..confined()
        }),
        ..Container::default()
    }
}

/// The sidecar: a native one, which starts before the containers of the app, init containers included, and ends after them.
pub(crate) fn proxy_container(settings: &Settings, originals: &Originals, config: &Config) -> Container {
    let mut env = vec![
        field("GAMUT_POD_NAME", "metadata.name"),
        field("GAMUT_POD_NAMESPACE", "metadata.namespace"),
        field("GAMUT_POD_UID", "metadata.uid"),
        field("GAMUT_POD_IPS", "status.podIPs"),
        field("GAMUT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("GAMUT_TRUST_DOMAIN", &config.trust_domain),
        value("GAMUT_CA_ADDRESS", &config.ca_address),
        value("GAMUT_CONTROLLER_ADDRESS", &config.controller_address),
        value("GAMUT_TOKEN_FILE", format!("{TOKEN_DIRECTORY}/token")),
        value("GAMUT_ROOTS_FILE", format!("{ROOTS_DIRECTORY}/{ROOTS_KEY}")),
        value("GAMUT_DRAIN_TIME", &settings.drain_time),
    ];
    env.extend(optional("GAMUT_OPAQUE_PORTS", &settings.opaque_ports));
    env.extend(optional("GAMUT_EJECT_AFTER", &settings.eject_after));
    env.extend(optional("GAMUT_SLOW_START", &settings.slow_start));
    env.extend(optional("GAMUT_MAX_REQUESTS", &settings.max_requests));
    env.extend(optional("GAMUT_MAX_CONNECTING", &settings.max_connecting));
    env.extend(optional("GAMUT_MAX_CONNECTIONS", &settings.max_connections));
    env.extend(optional("GAMUT_ACCESS_LOG", &settings.access_log));
    env.extend(optional("GAMUT_TRACES_TO", &config.traces_to));
    env.extend(optional("GAMUT_TRACES_SHARE", &config.traces_share));
    env.extend(logging(settings, config));
    if !originals.is_empty() {
        let originals: serde_json::Map<_, _> = originals.clone().into_iter().collect();
        env.push(value(PROBES_VARIABLE, serde_json::Value::from(originals).to_string()));
    }
    Container {
        name: PROXY_CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: config.image_pull_policy.clone(),
        command: Some(command("proxy")),
        env: Some(env),
        // No probe port: it is no business of a Service or a scraper.
        ports: Some(vec![ContainerPort {
            name: Some("gamut-metrics".to_owned()),
            container_port: METRICS_PORT.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        restart_policy: Some("Always".to_owned()),
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(STARTUP_TRIES),
            ..ready()
        }),
        readiness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(3), ..ready() }),
        // When the pod begins to end: peers are asked to leave. SIGTERM comes only after the app has ended. By way of the
        // container and not of the probe port, so that nobody else can send it.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction { command: Some(command("drain")) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        resources: Some(resources(&settings.resources)),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            run_as_user: Some(PROXY_UID),
            run_as_group: Some(PROXY_UID),
            run_as_non_root: Some(true),
            ..confined()
        }),
        volume_mounts: Some(vec![mount(TOKEN_VOLUME, TOKEN_DIRECTORY), mount(ROOTS_VOLUME, ROOTS_DIRECTORY)]),
        ..Container::default()
    }
}

/// The token that the CA accepts, and the roots that the CA itself is known by. Without the roots the pod waits.
pub(crate) fn volumes(config: &Config) -> [Volume; 2] {
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(config.token_lifetime),
        path: "token".to_owned(),
    };
    let roots = KeyToPath { key: ROOTS_KEY.to_owned(), path: ROOTS_KEY.to_owned(), mode: None };
    [
        Volume {
            name: TOKEN_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: ROOTS_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: ROOTS_CONFIG_MAP.to_owned(),
                items: Some(vec![roots]),
                optional: Some(false),
                default_mode: None,
            }),
            ..Volume::default()
        },
    ]
}

/// What the restricted Pod Security Standard asks for, but for user and capabilities.
fn confined() -> SecurityContext {
    SecurityContext {
        // Capabilities that a container starts with need no escalation.
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn ready() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/ready".to_owned()),
            port: IntOrString::Int(PROBE_PORT.into()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn command(subcommand: &str) -> Vec<String> {
    vec![EXECUTABLE.to_owned(), subcommand.to_owned()]
}

fn logging(settings: &Settings, config: &Config) -> [EnvVar; 2] {
    [value("GAMUT_LOG", &settings.log_level), value("GAMUT_LOG_FORMAT", &config.log_format)]
}

fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

fn optional(name: &str, setting: &Option<String>) -> Option<EnvVar> {
    setting.as_ref().map(|setting| value(name, setting))
}

fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { api_version: None, field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |cpu: &Option<String>, memory: &Option<String>| {
        let all = [("cpu", cpu), ("memory", memory)];
        let set =
            all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Quantity(value.clone()?))));
        let set: BTreeMap<_, _> = set.collect();
        (!set.is_empty()).then_some(set)
    };
    ResourceRequirements {
        requests: quantities(&resources.cpu_request, &resources.memory_request),
        limits: quantities(&resources.cpu_limit, &resources.memory_limit),
        ..ResourceRequirements::default()
    }
}
