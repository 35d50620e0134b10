//! A pod's annotations, read and checked.
//!
//! A value that can't be read is an error that refuses the pod: `mtls: stirct` must not pass as permissive. A name that we
//! don't know is a warning: it changes nothing, and another version may know it. Whoever mends one value is told of the
//! others at the same time.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    config::{Config, Resources},
    names::{
        ACCESS_LOG, APP_STOP_DELAY, CPU_LIMIT, CPU_REQUEST, DRAIN_TIME, EJECT_AFTER, IMAGE, LOG_LEVEL,
        MAX_CONNECTING, MAX_CONNECTIONS, MAX_REQUESTS, MEMORY_LIMIT, MEMORY_REQUEST, MTLS, OPAQUE_PORTS,
        PLAINTEXT_PORTS, POD_ANNOTATIONS, POD_LABELS, SKIP_INBOUND_PORTS, SKIP_OUTBOUND_PORTS, SLOW_START,
    },
    values::{self, Expected},
    words::{Sort, Unknown},
};

/// How long Kubernetes waits for a pod to end that says nothing about it, in seconds.
const GRACE_PERIOD: i64 = 30;

/// What the sidecar of one pod is told: its annotations over the installation's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) image: String,
    pub(crate) log_level: String,
    pub(crate) access_log: Option<String>,
    pub(crate) drain_time: String,
    pub(crate) skip_outbound_ports: Option<String>,
    pub(crate) skip_inbound_ports: Option<String>,
    pub(crate) opaque_ports: Option<String>,
    pub(crate) eject_after: Option<String>,
    pub(crate) slow_start: Option<String>,
    pub(crate) max_requests: Option<String>,
    pub(crate) max_connecting: Option<String>,
    pub(crate) max_connections: Option<String>,
    /// Seconds.
    pub(crate) app_stop_delay: Option<i64>,
    pub(crate) resources: Resources,
}

/// An annotation whose value can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("annotation {annotation}: {value:?} is not {expected}")]
pub struct SettingError {
    /// The annotation's name.
    pub annotation: &'static str,
    /// The value, or the part of it that is wrong.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

/// Every annotation of a pod whose value can't be read. There is one at least.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct SettingErrors(pub Vec<SettingError>);

/// Something that the pod's author should know. The pod is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// A name that we don't know.
    #[error("{}; {}", .0, .0.remedy)]
    UnknownAnnotation(Unknown),
    /// The pod ends before its requests may.
    #[error("{}; {}", .0, LongDrain::REMEDY)]
    DrainLongerThanGrace(LongDrain),
    /// The API server refuses a container that requests more than it may have.
    #[error(
        "the sidecar's limit, {limit} ({limit_annotation}), is less than what it requests, {request} ({request_annotation}): it requests {limit} now, because the API server would refuse the pod; set both annotations"
    )]
    LimitBelowRequest {
        /// The annotation that sets the limit.
        limit_annotation: &'static str,
        /// The annotation's or the installation's limit.
        limit: String,
        /// The annotation that sets the request.
        request_annotation: &'static str,
        /// The annotation's or the installation's request.
        request: String,
    },
    /// The sidecar finds CA and controller by names of the cluster's.
    #[error(
        "dnsPolicy is Default: the sidecar can't find the CA and the controller by their names, and the pod won't start, unless the node's own DNS knows them; use ClusterFirst"
    )]
    NoClusterDns,
    /// A port that the sidecar takes.
    #[error(
        "container {container} declares port {port}, but ports 15000 to 15021 are the sidecar's: it can't be reached there"
    )]
    OwnPort {
        /// The app's container.
        container: String,
        /// The port.
        port: u16,
    },
    /// A probe or hook that Kubernetes itself couldn't do either.
    #[error(
        "container {container}: {field} names port {port:?}, which the container doesn't declare; it is left as it is, and fails"
    )]
    UnknownPort {
        /// The app's container.
        container: String,
        /// `readinessProbe` and the like.
        field: &'static str,
        /// The port's name.
        port: String,
    },
}

/// A drain time that its pod doesn't live to see the end of. The text is without the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "annotation {DRAIN_TIME}: {drain} is not shorter than the pod's terminationGracePeriodSeconds, {grace}: what is in flight then is cut off"
)]
pub struct LongDrain {
    /// The annotation's value.
    pub drain: String,
    /// Seconds.
    pub grace: i64,
}

impl LongDrain {
    /// What to do about it.
    pub(crate) const REMEDY: &str = "make one shorter or the other longer";

    /// About a drain time that can be read, if it is as long as the pod's grace period in seconds.
    fn find(drain: &str, grace: i64) -> Option<Self> {
        let limit = u64::try_from(grace).unwrap_or(0).saturating_mul(1000);
        let drain_ms = values::milliseconds(drain)?;
        (drain_ms >= limit).then(|| Self { drain: drain.to_owned(), grace })
    }
}

impl Settings {
    /// Reads a pod's annotations.
    pub(crate) fn parse(
        annotations: &BTreeMap<String, String>,
        grace_period: Option<i64>,
        config: &Config,
    ) -> Result<(Self, Vec<Warning>), SettingErrors> {
        let mut read = Annotations::new(annotations);
        let grace = grace_period.unwrap_or(GRACE_PERIOD);
        let drain = read.parsed(DRAIN_TIME, values::duration);
        let defaults = &config.resources;
        let mut settings = Self {
            image: read.parsed(IMAGE, values::image).unwrap_or_else(|| config.image.clone()),
            log_level: read.parsed(LOG_LEVEL, values::log_level).unwrap_or_else(|| config.log_level.clone()),
            access_log: read.parsed(ACCESS_LOG, values::access_log),
            drain_time: drain.as_ref().unwrap_or(&config.drain_time).clone(),
            skip_outbound_ports: read.parsed(SKIP_OUTBOUND_PORTS, values::ports),
            skip_inbound_ports: read.parsed(SKIP_INBOUND_PORTS, values::ports),
            opaque_ports: read.parsed(OPAQUE_PORTS, values::ports),
            eject_after: read.parsed(EJECT_AFTER, values::failures),
            slow_start: read.parsed(SLOW_START, values::duration),
            max_requests: read.parsed(MAX_REQUESTS, values::limit),
            max_connecting: read.parsed(MAX_CONNECTING, values::limit),
            max_connections: read.parsed(MAX_CONNECTIONS, values::limit),
            app_stop_delay: read.app_stop_delay(grace),
            resources: Resources {
                cpu_request: read.quantity(CPU_REQUEST, &defaults.cpu_request),
                memory_request: read.quantity(MEMORY_REQUEST, &defaults.memory_request),
                cpu_limit: read.quantity(CPU_LIMIT, &defaults.cpu_limit),
                memory_limit: read.quantity(MEMORY_LIMIT, &defaults.memory_limit),
            },
        };
        // These two are the controller's to obey; here they are only checked, where the author sees the answer.
        read.parsed(PLAINTEXT_PORTS, values::ports);
        read.parsed(MTLS, values::mtls);

        let mut warnings = unknown(annotations);
        if !read.errors.is_empty() {
            return Err(SettingErrors(read.errors));
        }
        let Resources { cpu_request, memory_request, cpu_limit, memory_limit } = &mut settings.resources;
        warnings.extend(lower(cpu_request, CPU_REQUEST, cpu_limit, CPU_LIMIT));
        warnings.extend(lower(memory_request, MEMORY_REQUEST, memory_limit, MEMORY_LIMIT));
        let long_drain = drain.and_then(|drain| LongDrain::find(&drain, grace));
        warnings.extend(long_drain.map(Warning::DrainLongerThanGrace));
        Ok((settings, warnings))
    }
}

/// Lowers what is requested to what is allowed.
fn lower(
    request: &mut Option<String>,
    request_annotation: &'static str,
    limit: &Option<String>,
    limit_annotation: &'static str,
) -> Option<Warning> {
    let limit = limit.clone()?;
    if values::amount(request.as_ref()?)? <= values::amount(&limit)? {
        return None;
    }
    let request = request.replace(limit.clone())?;
    Some(Warning::LimitBelowRequest { limit_annotation, limit, request_annotation, request })
}

/// What is wrong with a namespace's annotations, which the controller obeys. It shows where nobody creating a pod looks, so
/// that whoever answers them says it too.
pub fn check_namespace(annotations: &BTreeMap<String, String>) -> Vec<SettingError> {
    let mut read = Annotations::new(annotations);
    read.parsed(MTLS, values::mtls);
    read.parsed(PLAINTEXT_PORTS, values::ports);
    read.parsed(OPAQUE_PORTS, values::ports);
    read.errors
}

/// What is wrong with a Service's annotations.
pub(crate) fn check_service(annotations: &BTreeMap<String, String>) -> Vec<SettingError> {
    let mut read = Annotations::new(annotations);
    read.parsed(OPAQUE_PORTS, values::ports);
    read.errors
}

/// What is wrong with a pod's annotations, as its creation would be answered.
pub(crate) fn check_pod(
    annotations: &BTreeMap<String, String>,
    grace_period: Option<i64>,
) -> (Vec<SettingError>, Option<LongDrain>) {
    let parsed = Settings::parse(annotations, grace_period, &Config::default());
    let errors = parsed.err().map(|SettingErrors(errors)| errors).unwrap_or_default();
    // Beside a value that can't be read there are no warnings: this one is looked for in any case.
    let drain = annotations.get(DRAIN_TIME).and_then(|text| values::duration(text.trim()).ok());
    let long_drain = drain.and_then(|drain| LongDrain::find(&drain, grace_period.unwrap_or(GRACE_PERIOD)));
    (errors, long_drain)
}

fn unknown(annotations: &BTreeMap<String, String>) -> Vec<Warning> {
    let unknown = annotations
        .keys()
        .filter_map(|name| Unknown::among(Sort::Annotation, name, POD_ANNOTATIONS, POD_LABELS));
    unknown.map(Warning::UnknownAnnotation).collect()
}

/// Annotations as they are read, and what was wrong with those that have been.
struct Annotations<'a> {
    texts: &'a BTreeMap<String, String>,
    errors: Vec<SettingError>,
}

impl<'a> Annotations<'a> {
    fn new(texts: &'a BTreeMap<String, String>) -> Self {
        Self { texts, errors: Vec::new() }
    }

    /// The value of an annotation; `None` if it isn't there, or can't be read, which is noted.
    fn parsed<T>(
        &mut self,
        annotation: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let value = self.texts.get(annotation)?;
        match parse(value.trim()) {
            Ok(parsed) => Some(parsed),
            Err(Expected(expected)) => {
                self.errors.push(SettingError { annotation, value: value.clone(), expected });
                None
            }
        }
    }

    fn quantity(&mut self, annotation: &'static str, default: &Option<String>) -> Option<String> {
        self.parsed(annotation, values::quantity).or_else(|| default.clone())
    }

    /// Kubernetes refuses a `sleep` that doesn't end within the grace period; here the message names the annotation.
    fn app_stop_delay(&mut self, grace: i64) -> Option<i64> {
        let expected = Expected(
            "a number of whole seconds such as 5s, shorter than the pod's terminationGracePeriodSeconds",
        );
        self.parsed(APP_STOP_DELAY, |text| {
            let milliseconds = values::milliseconds(text).ok_or(expected)?;
            let seconds = i64::try_from(milliseconds / 1000).map_err(|_| expected)?;
            let fits = milliseconds % 1000 == 0 && (1..grace).contains(&seconds);
            fits.then_some(seconds).ok_or(expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(&str, &str)]) -> Result<(Settings, Vec<Warning>), SettingErrors> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::parse(&annotations.collect(), None, &Config::default())
    }

    #[test]
    fn without_annotations_the_installation_decides() {
        let (settings, warnings) = parse(&[]).unwrap();
        let config = Config::default();
        assert_eq!((settings.image, settings.resources), (config.image, config.resources));
        assert_eq!((settings.log_level.as_str(), settings.drain_time.as_str()), ("info", "30s"));
        assert_eq!(warnings, []);
    }

    #[test]
    fn ports_are_written_back_without_spaces() {
        let (settings, _) = parse(&[(SKIP_OUTBOUND_PORTS, " 3306, 9000 - 9010 ,")]).unwrap();
        assert_eq!(settings.skip_outbound_ports.as_deref(), Some("3306,9000-9010"));
    }

    #[test]
    fn each_value_that_cant_be_read_names_its_annotation_and_what_it_should_be() {
        for (annotation, value) in [
            (SKIP_OUTBOUND_PORTS, "http"),
            (SKIP_INBOUND_PORTS, "0"),
            (SKIP_INBOUND_PORTS, "+80"),
            (OPAQUE_PORTS, "9010-9000"),
            (OPAQUE_PORTS, "1-2-3"),
            (PLAINTEXT_PORTS, "65536"),
            (ACCESS_LOG, "on"),
            (ACCESS_LOG, "1/0"),
            (LOG_LEVEL, "loud"),
            (LOG_LEVEL, "gamut_proxy=loud"),
            (LOG_LEVEL, ""),
            (IMAGE, ""),
            (IMAGE, "a b"),
            (MTLS, "stirct"),
            (MTLS, "Strict"),
            (DRAIN_TIME, "30"),
            (DRAIN_TIME, "1.5s"),
            (DRAIN_TIME, "1h1m1s1ms1s"),
            (DRAIN_TIME, "100000s"),
            (APP_STOP_DELAY, "0s"),
            (APP_STOP_DELAY, "30s"),
            (APP_STOP_DELAY, "1500ms"),
            (EJECT_AFTER, "0"),
            (EJECT_AFTER, "Never"),
            (EJECT_AFTER, "5s"),
            (SLOW_START, "10"),
            (MAX_REQUESTS, "0"),
            (MAX_REQUESTS, "1e3"),
            (MAX_CONNECTING, "-1"),
            (MAX_CONNECTING, "4294967296"),
            (MAX_CONNECTIONS, "0"),
            (CPU_REQUEST, "a lot"),
            (CPU_REQUEST, "-1"),
            (CPU_LIMIT, "1.2.3"),
            (MEMORY_REQUEST, "64MiB"),
            (MEMORY_LIMIT, "."),
        ] {
            let errors = parse(&[(annotation, value)]).expect_err(&format!("{annotation}: {value}"));
            assert_eq!(errors.0.iter().map(|error| error.annotation).collect::<Vec<_>>(), [annotation]);
            assert!(errors.to_string().starts_with(&format!("annotation {annotation}: ")), "{errors}");
        }
    }

    #[test]
    fn whoever_has_made_several_mistakes_is_told_of_all_at_once() {
        let errors = parse(&[(MTLS, "stirct"), (DRAIN_TIME, "30"), (CPU_LIMIT, "a lot")]).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "annotation gamut.mesh/drain-time: \"30\" is not a duration such as 30s or 1m30s; annotation gamut.mesh/cpu-limit: \"a lot\" is \
             not a quantity such as 100m, 1.5 or 64Mi; annotation gamut.mesh/mtls: \"stirct\" is not strict or permissive"
        );
    }

    #[test]
    fn every_kind_of_good_value_is_taken() {
        for (annotation, value) in [
            (ACCESS_LOG, "errors"),
            (ACCESS_LOG, "1/100"),
            (LOG_LEVEL, "debug"),
            (LOG_LEVEL, "warn,gamut_proxy::outbound=trace"),
            (IMAGE, "registry.example:5000/gamut@sha256:0123abcd"),
            (MTLS, "strict"),
            (DRAIN_TIME, "1m30s"),
            (APP_STOP_DELAY, "5s"),
            (EJECT_AFTER, "never"),
            (EJECT_AFTER, "1"),
            (SLOW_START, "0s"),
            (MAX_REQUESTS, "100000"),
            (MAX_CONNECTING, "1"),
            (MAX_CONNECTIONS, "100"),
            (CPU_REQUEST, "100m"),
            (CPU_LIMIT, "1.5"),
            (MEMORY_REQUEST, "64Mi"),
            (MEMORY_LIMIT, "1e9"),
            (PLAINTEXT_PORTS, "9090"),
        ] {
            parse(&[(annotation, value)]).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn a_namespaces_annotations_are_checked_each_for_itself() {
        let annotations = [(MTLS, "stirct"), (OPAQUE_PORTS, "80"), (PLAINTEXT_PORTS, "http"), (IMAGE, " ")];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let errors = check_namespace(&annotations.into());
        assert_eq!(errors.iter().map(|error| error.annotation).collect::<Vec<_>>(), [MTLS, PLAINTEXT_PORTS]);
    }

    #[test]
    fn unknown_names_of_ours_warn_and_foreign_ones_are_nobodys_business() {
        let (_, warnings) =
            parse(&[("gamut.mesh/skip-ports", "80"), ("prometheus.io/scrape", "true")]).unwrap();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        let expected = "annotation gamut.mesh/skip-ports is unknown and does nothing; the known ones are in docs/reference/annotations.md";
        assert_eq!(warning.to_string(), expected);
    }

    #[test]
    fn a_limit_below_the_request_lowers_the_request_and_warns() {
        let (settings, warnings) = parse(&[(MEMORY_LIMIT, "16Mi")]).unwrap();
        assert_eq!(settings.resources.memory_request.as_deref(), Some("16Mi"));
        assert_eq!(settings.resources.memory_limit.as_deref(), Some("16Mi"));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        let warning = warning.to_string();
        for part in ["16Mi (gamut.mesh/memory-limit)", "32Mi (gamut.mesh/memory-request)", "set both"] {
            assert!(warning.contains(part), "{warning}");
        }
        for (limit, request) in [("9m", "10m"), ("0.1", "101m"), ("1", "1.5"), ("1e-1", "1")] {
            let (settings, warnings) = parse(&[(CPU_LIMIT, limit), (CPU_REQUEST, request)]).unwrap();
            assert_eq!(settings.resources.cpu_request.as_deref(), Some(limit));
            assert_eq!(warnings.len(), 1, "{limit} {request}");
        }
    }

    #[test]
    fn a_limit_that_is_the_request_in_other_words_is_no_ones_concern() {
        for (limit, request) in
            [("0.1", "100m"), ("100m", "0.1"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("1", "100m")]
        {
            let (settings, warnings) = parse(&[(MEMORY_LIMIT, limit), (MEMORY_REQUEST, request)]).unwrap();
            assert_eq!(settings.resources.memory_request.as_deref(), Some(request));
            assert_eq!(warnings, [], "{limit} {request}");
        }
    }

    #[test]
    fn a_drain_that_outlives_the_pod_warns() {
        let (_, warnings) = parse(&[(DRAIN_TIME, "30s")]).unwrap();
        let long_drain = LongDrain { drain: "30s".to_owned(), grace: 30 };
        assert_eq!(warnings, [Warning::DrainLongerThanGrace(long_drain)]);
        assert_eq!(parse(&[(DRAIN_TIME, "29s")]).unwrap().1, []);
    }
}
