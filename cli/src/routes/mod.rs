//! `gamut routes`: what is attached where, the conditions of each route, the split as set and as it turned out.

mod extensions;
mod gather;
mod page;
mod session;
mod watch;
mod words;

use std::process::ExitCode;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::session::Session;
pub(crate) use self::{
    gather::{failed, of, report},
    page::tone,
    watch::{INTERVAL, Window},
};

use crate::{
    output::{self, Colour, Format},
    world::{self, Place, Selection},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Show the split as it is, again and again: set weights beside measured shares. Without a terminal a line for each
    /// rule that something happened to
    #[arg(short, long)]
    watch: bool,
    /// More columns, or data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// All that `gamut routes` tells, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Who answered.
    pub(crate) world: Place,
    /// The routes that were asked for, by namespace, kind and name.
    pub(crate) routes: Vec<Route>,
    /// XBackendTrafficPolicies and XBackends, by namespace, kind and name.
    pub(crate) extensions: Vec<Extension>,
    /// What isn't in these figures, a line each: sidecars that didn't answer, kinds that the cluster doesn't know.
    pub(crate) notes: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Route {
    /// `HTTPRoute` or another.
    pub(crate) kind: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// What it is attached to, or wants to be.
    pub(crate) parents: Vec<Parent>,
    /// parentRefs that name no Service though one was meant, with what to write, a line each.
    pub(crate) missed: Vec<String>,
    /// Backends that nobody answers for, and why, a line each. Nothing where endpoints aren't known.
    pub(crate) silent: Vec<String>,
    /// Backends with pods that have no sidecar, without anybody having said that they need none, a line each. As above.
    pub(crate) bare: Vec<String>,
    /// Its rules in the order of the manifest.
    pub(crate) rules: Vec<Rule>,
    /// Requests for its Services that no rule matched, or that none may match: sidecars answered them 404 or 400.
    pub(crate) unmatched: u64,
}

/// An XBackendTrafficPolicy or XBackend: it has a say in what routes do, and conditions of its own.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Extension {
    /// `XBackendTrafficPolicy` or `XBackend`.
    pub(crate) kind: &'static str,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// What it says, a text each.
    pub(crate) settings: Vec<String>,
    /// The policy's targets; the Services whose routes lead to the backend.
    pub(crate) ancestors: Vec<Ancestor>,
}

/// What an extension is about, and what became of it there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ancestor {
    /// `Service shop/web`.
    pub(crate) reference: String,
    /// As in the object's `status`.
    pub(crate) conditions: Vec<Condition>,
}

/// A parentRef and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Parent {
    /// `Service shop/web`, with the port if the route names one.
    pub(crate) reference: String,
    /// For which clients the route counts: `producer` for all, `consumer` for those of its own namespace.
    pub(crate) role: &'static str,
    /// As in the route's `status`.
    pub(crate) conditions: Vec<Condition>,
}

impl Parent {
    /// Whether no request for it meets the route, as the route's status says.
    fn has_refused(&self) -> bool {
        self.conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status == "False")
    }
}

/// A condition of a `status`, as Kubernetes has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    /// `Accepted`, `ResolvedRefs` and so on.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// One word.
    pub(crate) reason: String,
    /// A sentence.
    pub(crate) message: String,
    /// The generation of the route that this is about.
    pub(crate) observed_generation: Option<i64>,
    /// When `status` last changed.
    pub(crate) last_transition_time: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rule {
    /// Its name or, without one, its index.
    pub(crate) name: String,
    /// Whether it has a name. What has none is counted by its index, and so with what stood there before.
    pub(crate) named: bool,
    /// What becomes of its requests, if the rule can't be carried out: `not in force`, or `500`.
    pub(crate) dropped: Option<&'static str>,
    /// What it matches, a text for each match; empty: every request.
    pub(crate) matches: Vec<String>,
    /// What else it does: filters, timeouts, retries, a text each.
    pub(crate) settings: Vec<String>,
    /// The sessions that its requests meet, whatever way they were set; none where the rule isn't in force.
    pub(crate) sessions: Vec<Session>,
    /// Where its requests go.
    pub(crate) backends: Vec<Backend>,
    /// Requests that sidecars answered themselves: a share that leads nowhere, a rule without backends, a redirect.
    pub(crate) own: Own,
}

/// What sidecars answered themselves for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Own {
    /// All of it.
    pub(crate) requests: u64,
    /// What failed of it, in percent of the rule's requests; `None` without any.
    pub(crate) got: Option<f64>,
    /// Those that were answered with an error.
    pub(crate) failed: u64,
}

/// A backendRef, as set and as it turned out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Backend {
    /// As in metrics and messages: `service/shop/web-v1:80`.
    pub(crate) id: String,
    /// As set.
    pub(crate) weight: u64,
    /// As set, in percent of the rule's weights.
    pub(crate) share: f64,
    /// What its share is answered, if it leads nowhere: `500`, and connections `reset`.
    pub(crate) answered: Option<&'static str>,
    /// Requests and connections that it really got, from all sidecars that run now.
    pub(crate) requests: u64,
    /// The same in percent of the rule's; `None` without any.
    pub(crate) got: Option<f64>,
    /// Those of them that were answered 5xx.
    pub(crate) failed: u64,
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    if args.watch {
        world::ask(async {
            let world = args.selection.world().await?;
            watch::watch(&world, &args.selection, args.output, colour).await
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let report =
        world::ask(async { gather::with_endpoints(&args.selection.world().await?, &args.selection).await })?;
    let now = Timestamp::now();
    output::print(&report, args.output, colour, |report, wide| page::page(report, now, wide))?;
    Ok(ExitCode::SUCCESS)
}
