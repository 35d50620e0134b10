//! Which requests are shown: all that every given flag lets pass.

use std::str::FromStr;

use gamut_proxy::{record::Record, telemetry::Direction};

/// The flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only requests of this method; may be given several times
    #[arg(short = 'X', long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Only requests whose path begins like this
    #[arg(long, value_name = "PREFIX", value_parser = path)]
    path: Option<String>,
    /// Only answers of these statuses, as 503 or 5xx, with commas between them
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Statuses>,
    /// Only requests that this route decided about: NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME. The sender's sidecar knows
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only requests that came from this service account: NAME or NAMESPACE/NAME. The receiver's sidecar knows
    #[arg(long, value_name = "ACCOUNT")]
    from: Option<String>,
    /// Only requests that the pods sent
    #[arg(long)]
    outbound: bool,
    /// Only requests that the pods received
    #[arg(long, conflicts_with = "outbound")]
    inbound: bool,
}

/// Statuses that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statuses {
    /// One.
    One(u16),
    /// A hundred of them, by their first digit.
    Class(u16),
}

impl Filter {
    /// Whether a request is shown.
    pub(super) fn passes(&self, record: &Record) -> bool {
        let direction = match record.direction {
            Direction::Outbound => !self.inbound,
            Direction::Inbound => !self.outbound,
        };
        direction
            && (self.methods.is_empty()
                || self.methods.iter().any(|method| record.method.eq_ignore_ascii_case(method)))
            && self.path.as_ref().is_none_or(|path| record.path.starts_with(path))
            && (self.status.is_empty() || self.status.iter().any(|statuses| statuses.has(record.status)))
            && self.route.as_ref().is_none_or(|route| ends_in(&record.route, route))
            && self.from.as_ref().is_none_or(|from| is_from(record, from))
    }
}

impl Statuses {
    fn has(self, status: u16) -> bool {
        match self {
            Self::One(wanted) => status == wanted,
            Self::Class(first) => status / 100 == first,
        }
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let class = text.strip_suffix("xx").and_then(|first| first.parse().ok());
        let one = text.parse().ok().filter(|status| (100..600).contains(status));
        let class = class.filter(|first| (1..6).contains(first)).map(Self::Class);
        class.or(one.map(Self::One)).ok_or_else(|| format!("{text:?} is no status; use 503 or 5xx"))
    }
}

/// No request's path begins otherwise, but that of `OPTIONS *` (RFC 9110 section 7.1).
fn path(text: &str) -> Result<String, String> {
    match text.starts_with(['/', '*']) {
        true => Ok(text.to_owned()),
        false => Err(format!("paths begin with a slash: /{text}")),
    }
}

/// Whether a name of several parts ends in these.
fn ends_in(name: &str, parts: &str) -> bool {
    name.strip_suffix(parts).is_some_and(|rest| !name.is_empty() && (rest.is_empty() || rest.ends_with('/')))
}

/// Whether the caller of a request that was received is this service account.
fn is_from(record: &Record, account: &str) -> bool {
    record.direction == Direction::Inbound && ends_in(&super::line::account(&record.peer), account)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::tap::line::tests::{received, sent};

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        filter: Filter,
    }

    fn passes(flags: &[&str], record: &Record) -> bool {
        Flags::try_parse_from([&["tap"], flags].concat()).unwrap().filter.passes(record)
    }

    #[test]
    fn without_flags_everything_passes() {
        assert!(passes(&[], &sent()) && passes(&[], &received()));
    }

    #[test]
    fn each_flag_lets_pass_what_it_names_and_nothing_else() {
        for (flags, passing, stopping) in [
            (["-X", "get"], sent(), Record { method: "POST".to_owned(), ..sent() }),
            (["--path", "/cart"], sent(), Record { path: "/".to_owned(), ..sent() }),
            (["--status", "404,5xx"], Record { status: 503, ..sent() }, sent()),
            (["--status", "200"], sent(), Record { status: 201, ..sent() }),
            (
                ["--route", "shop/web"],
                sent(),
                Record { route: "httproute/workshop/web".to_owned(), ..sent() },
            ),
            (["--route", "web"], sent(), received()),
            (["--from", "client"], received(), sent()),
            (
                ["--from", "shop/client"],
                received(),
                Record { peer: "spiffe://td/ns/other/sa/client".to_owned(), ..received() },
            ),
        ] {
            assert!(passes(&flags, &passing), "{flags:?}");
            assert!(!passes(&flags, &stopping), "{flags:?}");
        }
        assert!(passes(&["--outbound"], &sent()) && !passes(&["--outbound"], &received()));
        assert!(passes(&["--inbound"], &received()) && !passes(&["--inbound"], &sent()));
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for text in ["99", "xx", "0xx", "abc", "5x", "6xx", "600", "1000"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_no_request_has_is_refused() {
        let error = Flags::try_parse_from(["tap", "--path", "cart"]).unwrap_err().to_string();
        assert!(error.contains("paths begin with a slash: /cart"), "{error}");
    }
}
