//! A pod's annotations, read and checked.
//!
//! A value that can't be read is an error that refuses the pod: `mtls: stirct` must not pass as permissive. A name that we
//! don't know is a warning: it changes nothing, and another version may know it.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    config::{Config, Resources},
    names::{
        APP_STOP_DELAY, CPU_LIMIT, CPU_REQUEST, DRAIN_TIME, IMAGE, LOG_LEVEL, MEMORY_LIMIT, MEMORY_REQUEST,
        MTLS, OPAQUE_PORTS, PLAINTEXT_PORTS, POD_ANNOTATIONS, PREFIX, SKIP_INBOUND_PORTS,
        SKIP_OUTBOUND_PORTS,
    },
};

/// How long Kubernetes waits for a pod to end that says nothing about it, in seconds.
const GRACE_PERIOD: i64 = 30;

/// What the sidecar of one pod is told: its annotations over the installation's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) image: String,
    pub(crate) log_level: String,
    pub(crate) drain_time: String,
    pub(crate) skip_outbound_ports: Option<String>,
    pub(crate) skip_inbound_ports: Option<String>,
    pub(crate) opaque_ports: Option<String>,
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

/// Something that the pod's author should know. The pod is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// A name that we don't know.
    #[error(
        "annotation {0} is unknown and does nothing; the known ones are in docs/reference/annotations.md"
    )]
    UnknownAnnotation(String),
    /// The pod ends before its requests may.
    #[error(
        "annotation {DRAIN_TIME}: {drain} is not shorter than the pod's terminationGracePeriodSeconds, {grace}: what is in flight then is cut off"
    )]
    DrainLongerThanGrace {
        /// The annotation's or the installation's value.
        drain: String,
        /// Seconds.
        grace: i64,
    },
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

impl Settings {
    /// Reads a pod's annotations.
    pub(crate) fn parse(
        annotations: &BTreeMap<String, String>,
        grace_period: Option<i64>,
        config: &Config,
    ) -> Result<(Self, Vec<Warning>), SettingError> {
        let read = Annotations(annotations);
        let grace = grace_period.unwrap_or(GRACE_PERIOD);
        let drain = read.parsed(DRAIN_TIME, "a duration such as 30s or 1m30s", duration)?;
        let settings = Self {
            image: read.parsed(IMAGE, "an image", image)?.unwrap_or_else(|| config.image.clone()),
            log_level: read
                .parsed(
                    LOG_LEVEL,
                    "a level (error, warn, info, debug, trace, off) or a list of TARGET=LEVEL",
                    log_level,
                )?
                .unwrap_or_else(|| config.log_level.clone()),
            drain_time: drain.as_ref().map_or(&config.drain_time, |(text, _)| text).clone(),
            skip_outbound_ports: read.ports(SKIP_OUTBOUND_PORTS)?,
            skip_inbound_ports: read.ports(SKIP_INBOUND_PORTS)?,
            opaque_ports: read.ports(OPAQUE_PORTS)?,
            app_stop_delay: read.app_stop_delay(grace)?,
            resources: Resources {
                cpu_request: read.quantity(CPU_REQUEST)?.or_else(|| config.resources.cpu_request.clone()),
                memory_request: read
                    .quantity(MEMORY_REQUEST)?
                    .or_else(|| config.resources.memory_request.clone()),
                cpu_limit: read.quantity(CPU_LIMIT)?.or_else(|| config.resources.cpu_limit.clone()),
                memory_limit: read.quantity(MEMORY_LIMIT)?.or_else(|| config.resources.memory_limit.clone()),
            },
        };
        // These two are the controller's to obey; here they are only checked, where the author sees the answer.
        read.ports(PLAINTEXT_PORTS)?;
        read.parsed(MTLS, "strict or permissive", |text| {
            matches!(text, "strict" | "permissive").then_some(())
        })?;

        let mut warnings = read.unknown();
        if let Some((drain, milliseconds)) = drain
            && milliseconds >= u64::try_from(grace).unwrap_or(0).saturating_mul(1000)
        {
            warnings.push(Warning::DrainLongerThanGrace { drain, grace });
        }
        Ok((settings, warnings))
    }
}

struct Annotations<'a>(&'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn parsed<T>(
        &self,
        annotation: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingError> {
        let Some(value) = self.0.get(annotation) else { return Ok(None) };
        let error = || SettingError { annotation, value: value.clone(), expected };
        parse(value.trim()).map(Some).ok_or_else(error)
    }

    fn ports(&self, annotation: &'static str) -> Result<Option<String>, SettingError> {
        self.parsed(annotation, "a list of ports and ranges such as 3306,9000-9010", ports)
    }

    fn quantity(&self, annotation: &'static str) -> Result<Option<String>, SettingError> {
        self.parsed(annotation, "a quantity such as 100m, 1.5 or 64Mi", quantity)
    }

    /// Kubernetes refuses a `sleep` that doesn't end within the grace period; here the message names the annotation.
    fn app_stop_delay(&self, grace: i64) -> Result<Option<i64>, SettingError> {
        let expected =
            "a number of whole seconds such as 5s, shorter than the pod's terminationGracePeriodSeconds";
        self.parsed(APP_STOP_DELAY, expected, |text| {
            let (_, milliseconds) = duration(text)?;
            let seconds = i64::try_from(milliseconds / 1000).ok()?;
            (milliseconds % 1000 == 0 && (1..grace).contains(&seconds)).then_some(seconds)
        })
    }

    fn unknown(&self) -> Vec<Warning> {
        let ours = self.0.keys().filter(|name| name.starts_with(PREFIX));
        let unknown = ours.filter(|name| !POD_ANNOTATIONS.contains(&name.as_str()));
        unknown.map(|name| Warning::UnknownAnnotation(name.clone())).collect()
    }
}

/// Ports from 1 to 65535 and ranges of them, written back without spaces. An empty list is none.
fn ports(text: &str) -> Option<String> {
    let port = |text: &str| {
        let text = text.trim();
        // `parse` would take a sign.
        let digits = text.bytes().all(|c| c.is_ascii_digit());
        text.parse::<u16>().ok().filter(|&port| digits && port != 0)
    };
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items = items.map(|item| match item.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then(|| format!("{first}-{last}"))
        }
        None => Some(port(item)?.to_string()),
    });
    Some(items.collect::<Option<Vec<_>>>()?.join(","))
}

/// A duration as the Gateway API writes it (GEP-2257), and its milliseconds: up to four numbers of up to five digits with
/// the units h, m, s, ms.
fn duration(text: &str) -> Option<(String, u64)> {
    let mut rest = text;
    let mut total = 0;
    for _ in 0..4 {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| (1..=5).contains(end))?;
        let (digits, unit) = rest.split_at(end);
        let number: u64 = digits.parse().ok()?;
        // "ms" before "m", which it begins with.
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, milliseconds) =
            units.into_iter().find_map(|(name, value)| Some((unit.strip_prefix(name)?, value)))?;
        total += number * milliseconds;
        rest = unit;
        if rest.is_empty() {
            return Some((text.to_owned(), total));
        }
    }
    None
}

/// A Kubernetes quantity: a decimal number that isn't negative, then a suffix of SI or of powers of two, or an exponent.
fn quantity(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let is_number = number.bytes().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i8>().is_ok());
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    (is_number && (suffixes.contains(&suffix) || is_exponent)).then(|| text.to_owned())
}

/// Not empty, nothing that could be taken for something else in YAML or a log.
fn image(text: &str) -> Option<String> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"./:@_-+".contains(&c);
    (!text.is_empty() && text.bytes().all(fits)).then(|| text.to_owned())
}

/// `LEVEL` or `TARGET=LEVEL`, separated by commas.
fn log_level(text: &str) -> Option<String> {
    let level = |text: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(text))
    };
    let target = |text: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b':' | b'-'))
    };
    let directive = |directive: &str| match directive.trim().split_once('=') {
        Some((name, value)) => target(name) && level(value),
        None => level(directive.trim()),
    };
    text.split(',').all(directive).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(&str, &str)]) -> Result<(Settings, Vec<Warning>), SettingError> {
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
            (CPU_REQUEST, "a lot"),
            (CPU_REQUEST, "-1"),
            (CPU_LIMIT, "1.2.3"),
            (MEMORY_REQUEST, "64MiB"),
            (MEMORY_LIMIT, "."),
        ] {
            let error = parse(&[(annotation, value)]).expect_err(&format!("{annotation}: {value}"));
            assert_eq!(error.annotation, annotation);
            assert!(error.to_string().starts_with(&format!("annotation {annotation}: ")), "{error}");
        }
    }

    #[test]
    fn every_kind_of_good_value_is_taken() {
        for (annotation, value) in [
            (LOG_LEVEL, "debug"),
            (LOG_LEVEL, "warn,gamut_proxy::outbound=trace"),
            (IMAGE, "registry.example:5000/gamut@sha256:0123abcd"),
            (MTLS, "strict"),
            (DRAIN_TIME, "1m30s"),
            (APP_STOP_DELAY, "5s"),
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
    fn unknown_names_of_ours_warn_and_foreign_ones_are_nobodys_business() {
        let (_, warnings) =
            parse(&[("gamut.mesh/skip-ports", "80"), ("prometheus.io/scrape", "true")]).unwrap();
        assert_eq!(warnings, [Warning::UnknownAnnotation("gamut.mesh/skip-ports".to_owned())]);
    }

    #[test]
    fn a_drain_that_outlives_the_pod_warns() {
        let (_, warnings) = parse(&[(DRAIN_TIME, "30s")]).unwrap();
        assert_eq!(warnings, [Warning::DrainLongerThanGrace { drain: "30s".to_owned(), grace: 30 }]);
        assert_eq!(parse(&[(DRAIN_TIME, "29s")]).unwrap().1, []);
    }
}
