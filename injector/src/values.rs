//! Values of settings as text: read, checked, and written back in one spelling. Annotations and the installation's own
//! settings are held to the same.

use thiserror::Error;

/// What a value should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it must be {0}")]
pub struct Expected(pub(crate) &'static str);

/// A Kubernetes quantity: a decimal number that isn't negative, then a suffix of SI or of powers of two, or an exponent.
///
/// # Errors
/// What it should be.
pub fn quantity(text: &str) -> Result<String, Expected> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let is_number = number.bytes().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i8>().is_ok());
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    match is_number && (suffixes.contains(&suffix) || is_exponent) {
        true => Ok(text.to_owned()),
        false => Err(Expected("a quantity such as 100m, 1.5 or 64Mi")),
    }
}

/// How much a quantity is, for comparisons; `None` if it isn't one.
pub(crate) fn amount(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        // What is divided by is exact, what would be multiplied with isn't: 100m is 0.1.
        ("m", 1e3),
        ("u", 1e6),
        ("n", 1e9),
    ];
    let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, name, unit)));
    match unit {
        None => text.parse().ok(),
        Some((number, &("m" | "u" | "n"), unit)) => Some(number.parse::<f64>().ok()? / unit),
        Some((number, _, unit)) => Some(number.parse::<f64>().ok()? * unit),
    }
}

/// An image: not empty, nothing that could be taken for something else in YAML or a log.
///
/// # Errors
/// What it should be.
pub fn image(text: &str) -> Result<String, Expected> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"./:@_-+".contains(&c);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(Expected("an image")),
    }
}

/// What is logged: `LEVEL` or `TARGET=LEVEL`, separated by commas.
///
/// # Errors
/// What it should be.
pub fn log_level(text: &str) -> Result<String, Expected> {
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
    match text.split(',').all(directive) {
        true => Ok(text.to_owned()),
        false => Err(Expected("a level (error, warn, info, debug, trace, off) or a list of TARGET=LEVEL")),
    }
}

/// Which requests are logged.
///
/// # Errors
/// What it should be.
pub fn access_log(text: &str) -> Result<String, Expected> {
    let is_share =
        |text: &str| text.strip_prefix("1/").is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0));
    match matches!(text, "off" | "all" | "errors") || is_share(text) {
        true => Ok(text.to_owned()),
        false => Err(Expected("off, all, errors or a share such as 1/100")),
    }
}

/// Where spans go: OTLP over gRPC or HTTP.
///
/// # Errors
/// What it should be.
pub fn collector(text: &str) -> Result<String, Expected> {
    let expected = Expected("a collector's address such as grpc://collector.observability:4317");
    let rest = text.strip_prefix("grpc://").or_else(|| text.strip_prefix("http://")).ok_or(expected)?;
    let host = rest.split('/').next().unwrap_or_default();
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0) && !port.starts_with('+');
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && is_port(port));
    let fits = rest.bytes().all(|c| c.is_ascii_alphanumeric() || b".:-_/[]".contains(&c));
    if has_port && fits { Ok(text.to_owned()) } else { Err(expected) }
}

/// A share of 0 to 1.
///
/// # Errors
/// What it should be.
pub fn share(text: &str) -> Result<String, Expected> {
    let is_share = text.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share));
    if is_share { Ok(text.to_owned()) } else { Err(Expected("a number from 0 to 1")) }
}

/// A duration as the Gateway API writes it.
///
/// # Errors
/// What it should be.
pub fn duration(text: &str) -> Result<String, Expected> {
    match milliseconds(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(Expected("a duration such as 30s or 1m30s")),
    }
}

/// A number from 1.
pub(crate) fn limit(text: &str) -> Result<String, Expected> {
    positive(text).ok_or(Expected("a whole number from 1"))
}

/// After how many failures: a number from 1, or `never`.
pub(crate) fn failures(text: &str) -> Result<String, Expected> {
    let never = (text == "never").then(|| text.to_owned());
    never.or_else(|| positive(text)).ok_or(Expected("a whole number from 1, or never"))
}

/// What a `u32` above 0 can hold, without a sign.
fn positive(text: &str) -> Option<String> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|&number| digits && number > 0)?;
    Some(number.to_string())
}

/// The milliseconds of a duration (GEP-2257): up to four numbers of up to five digits with the units h, m, s, ms.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
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
            return Some(total);
        }
    }
    None
}

/// Ports from 1 to 65535 and ranges of them, written back without spaces. An empty list is none.
pub(crate) fn ports(text: &str) -> Result<String, Expected> {
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
    let items = items.collect::<Option<Vec<_>>>();
    Ok(items.ok_or(Expected("a list of ports and ranges such as 3306,9000-9010"))?.join(","))
}

/// `strict` or `permissive`.
pub(crate) fn mtls(text: &str) -> Result<String, Expected> {
    match text {
        "strict" | "permissive" => Ok(text.to_owned()),
        _ => Err(Expected("strict or permissive")),
    }
}
