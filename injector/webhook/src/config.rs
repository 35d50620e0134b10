//! `gamut injector`'s command line and environment: its own settings, and those of the sidecars that it adds.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use gamut_identity::{MeshArgs, SYSTEM_NAMESPACE};
use gamut_injector::{Config, Resources, values};

/// The shortest life of a service account token that Kubernetes gives out, in seconds.
const SHORTEST_TOKEN: i64 = 600;
/// The longest that is of any use, in seconds.
const LONGEST_TOKEN: i64 = 86_400;

/// Settings of `gamut injector`.
#[derive(Args, Clone, Debug)]
pub struct InjectorArgs {
    /// Where the API server sends pods (HTTPS: POST /inject, GET /ready, GET /healthz)
    #[arg(long, env = "GAMUT_INJECTOR_LISTEN", default_value = "[::]:15016", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where /ready, /healthz, /metrics and /status answer (plain HTTP)
    #[arg(
        long,
        env = "GAMUT_INJECTOR_ADMIN",
        default_value = "127.0.0.1:15017",
        value_name = "ADDRESS:PORT"
    )]
    pub admin: SocketAddr,
    /// Which mesh it and the sidecars belong to
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// The controller, for sidecars
    #[arg(
        long,
        env = "GAMUT_CONTROLLER_ADDRESS",
        default_value = "gamut-controller.gamut-system.svc:15012",
        value_name = "HOST:PORT"
    )]
    pub controller_address: String,
    /// The cluster to work for, if not the one that this pod runs in, or KUBECONFIG's
    #[arg(long, env = "GAMUT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// This replica's name in Events: the pod's
    #[arg(long, env = "GAMUT_POD_NAME", default_value = "gamut-injector", value_name = "NAME")]
    pub replica: String,
    /// The sidecars' image
    #[arg(long, env = "GAMUT_SIDECAR_IMAGE", default_value_t = Config::default().image, value_parser = values::image, value_name = "IMAGE")]
    pub image: String,
    /// When the sidecars' image is pulled
    #[arg(long, env = "GAMUT_SIDECAR_IMAGE_PULL_POLICY", value_name = "POLICY")]
    pub image_pull_policy: Option<PullPolicy>,
    /// What sidecars log: a level, or a list of TARGET=LEVEL
    #[arg(long, env = "GAMUT_SIDECAR_LOG", default_value_t = Config::default().log_level, value_parser = values::log_level, value_name = "LEVEL")]
    pub sidecar_log: String,
    /// How sidecars log
    #[arg(long, env = "GAMUT_SIDECAR_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub sidecar_log_format: LogFormat,
    /// Where sidecars send spans (OTLP), as grpc://HOST:PORT or http://HOST:PORT/PATH; nowhere if not given
    #[arg(long, env = "GAMUT_SIDECAR_TRACES_TO", value_parser = values::collector, value_name = "ADDRESS")]
    pub traces_to: Option<String>,
    /// The share of traces that begin at a sidecar and are exported, 0 to 1
    #[arg(long, env = "GAMUT_SIDECAR_TRACES_SHARE", value_parser = values::share, value_name = "SHARE")]
    pub traces_share: Option<String>,
    /// How long what is in flight may take when a pod ends, such as 30s
    #[arg(long, env = "GAMUT_SIDECAR_DRAIN_TIME", default_value_t = Config::default().drain_time, value_parser = values::duration, value_name = "DURATION")]
    pub drain_time: String,
    /// How long sidecars' service account tokens are good, from 600 to 86400 seconds; the kubelet replaces them at 80 %
    #[arg(long, env = "GAMUT_SIDECAR_TOKEN_SECONDS", default_value_t = Config::default().token_lifetime, value_parser = clap::value_parser!(i64).range(SHORTEST_TOKEN..=LONGEST_TOKEN), value_name = "SECONDS")]
    pub token_seconds: i64,
    /// Sidecars' CPU request
    #[arg(long, env = "GAMUT_SIDECAR_CPU_REQUEST", default_value = "10m", value_parser = values::quantity, value_name = "QUANTITY")]
    pub cpu_request: String,
    /// Sidecars' memory request
    #[arg(long, env = "GAMUT_SIDECAR_MEMORY_REQUEST", default_value = "32Mi", value_parser = values::quantity, value_name = "QUANTITY")]
    pub memory_request: String,
    /// Sidecars' CPU limit, which is paid in tail latency; none if not given
    #[arg(long, env = "GAMUT_SIDECAR_CPU_LIMIT", value_parser = values::quantity, value_name = "QUANTITY")]
    pub cpu_limit: Option<String>,
    /// Sidecars' memory limit; none if not given
    #[arg(long, env = "GAMUT_SIDECAR_MEMORY_LIMIT", value_parser = values::quantity, value_name = "QUANTITY")]
    pub memory_limit: Option<String>,
}

/// `imagePullPolicy`, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// Where it is missing.
    IfNotPresent,
    /// It must be there.
    Never,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl InjectorArgs {
    /// What the patch is told.
    pub(crate) fn sidecars(&self) -> Config {
        Config {
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.map(|policy| format!("{policy:?}")),
            trust_domain: self.mesh.trust_domain.clone(),
            ca_address: self.mesh.ca_address.clone(),
            controller_address: self.controller_address.clone(),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            log_level: self.sidecar_log.clone(),
            log_format: match self.sidecar_log_format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
            traces_to: self.traces_to.clone(),
            traces_share: self.traces_share.clone(),
            drain_time: self.drain_time.clone(),
            token_lifetime: self.token_seconds,
            resources: Resources {
                cpu_request: Some(self.cpu_request.clone()),
                memory_request: Some(self.memory_request.clone()),
                cpu_limit: self.cpu_limit.clone(),
                memory_limit: self.memory_limit.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: InjectorArgs,
    }

    fn parse(words: &[&str]) -> Result<Config, String> {
        let line = Line::try_parse_from([&["gamut"], words].concat());
        line.map(|line| line.args.sidecars()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_sidecars_are_as_the_patchs_own_defaults_say() {
        assert_eq!(format!("{:?}", parse(&[]).unwrap()), format!("{:?}", Config::default()));
    }

    #[test]
    fn settings_reach_the_patch_in_kubernetes_words() {
        let config = parse(&[
            "--image-pull-policy=IfNotPresent",
            "--cpu-limit=500m",
            "--sidecar-log-format=json",
            "--drain-time=1m30s",
        ]);
        let config = config.unwrap();
        assert_eq!(config.image_pull_policy.as_deref(), Some("IfNotPresent"));
        assert_eq!(config.resources.cpu_limit.as_deref(), Some("500m"));
        assert_eq!((config.log_format.as_str(), config.drain_time.as_str()), ("json", "1m30s"));
    }

    #[test]
    fn a_value_out_of_range_names_its_flag_and_what_it_should_be() {
        for (word, flag, expected) in [
            ("--cpu-request=a lot", "--cpu-request <QUANTITY>", "a quantity such as 100m"),
            ("--drain-time=30", "--drain-time <DURATION>", "a duration such as 30s"),
            ("--token-seconds=60", "--token-seconds <SECONDS>", "600..=86400"),
            ("--sidecar-log=loud", "--sidecar-log <LEVEL>", "a level"),
            ("--image=", "--image <IMAGE>", "an image"),
            ("--image-pull-policy=Sometimes", "--image-pull-policy <POLICY>", "IfNotPresent"),
        ] {
            let error = parse(&[word]).unwrap_err();
            assert!(error.contains(flag) && error.contains(expected), "{word}: {error}");
        }
    }
}
