//! `gamut status`: pods, who they are, how long their certificates last, and whether every sidecar has the newest tables.

mod gather;
mod page;

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode};

use gamut_proxy::admin::MtlsStatus;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    output::{self, Colour, Format},
    world::{self, Component, Place, Selection},
};

pub(crate) use self::{
    gather::{certificate, of},
    page::{certificate as certificate_cell, mtls as mtls_cell},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// More columns, or data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// All that `gamut status` tells, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Who answered.
    pub(crate) world: Place,
    /// The mesh's own processes.
    pub(crate) components: Vec<Component>,
    /// The pods that were asked for.
    pub(crate) pods: Vec<Pod>,
    /// What became of sessions, by route and rule, counted by the sidecars of those pods since they started.
    pub(crate) sessions: Vec<Sessions>,
    /// What can't be done, a line each.
    pub(crate) problems: Vec<String>,
    /// What is written in the manifests of a `gamut up` and does nothing, a line each. Of a cluster `gamut check` says it.
    pub(crate) warnings: Vec<String>,
    /// What isn't ready yet, a line each.
    pub(crate) waiting_for: Vec<String>,
}

/// The sessions of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sessions {
    /// `httproute/shop/web, rule split`; the Service where it has no routes.
    pub(crate) of: String,
    /// How many requests had each outcome, by its name in metrics.
    pub(crate) outcomes: BTreeMap<String, u64>,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pod {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) ips: Vec<String>,
    /// `Pending`, `Running` and so on; `Terminating` while it goes.
    pub(crate) phase: String,
    /// It takes traffic.
    pub(crate) ready: bool,
    /// How often its containers were started again.
    pub(crate) restarts: u32,
    /// Its sidecar; `None` for a pod outside the mesh.
    pub(crate) sidecar: Option<Sidecar>,
}

/// A sidecar.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sidecar {
    /// What it says.
    Known(KnownSidecar),
    /// Why it says nothing.
    Silent(String),
}

/// What a sidecar says of itself, and the controller of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KnownSidecar {
    /// Its SPIFFE id.
    pub(crate) identity: String,
    /// Who may call its app; `None` before it has heard.
    pub(crate) mtls: Option<MtlsStatus>,
    /// Its certificate; `None` before the first.
    pub(crate) certificate: Option<Certificate>,
    /// Why the last renewal failed, if it did.
    pub(crate) renewal_error: Option<String>,
    /// What it subscribed to, and how that stands.
    pub(crate) tables: Tables,
    /// Endpoints that it sends nothing to for a while, because requests to them failed.
    pub(crate) ejected: Vec<Ejected>,
}

/// An endpoint that gets nothing from a sidecar for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ejected {
    /// Whose endpoint it is: `shop/web:80`.
    pub(crate) backend: String,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Its pod's name; `None` for what is no pod.
    pub(crate) pod: Option<String>,
    /// Until when.
    pub(crate) until: Timestamp,
}

/// A certificate's time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Certificate {
    /// When it was issued.
    pub(crate) issued: Timestamp,
    /// When it ends.
    pub(crate) expires: Timestamp,
}

/// A sidecar's subscriptions.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tables {
    /// How many.
    pub(crate) subscribed: usize,
    /// Those whose newest version isn't in force yet.
    pub(crate) behind: Vec<String>,
    /// Those whose newest version it refused, with the reason.
    pub(crate) refused: Vec<String>,
    /// Why the controller is away, if it is: what was delivered last stays in force.
    pub(crate) controller_away: Option<String>,
}

impl Tables {
    /// The newest of everything is in force. A sidecar that holds nothing has yet to be told anything.
    fn newest(&self) -> bool {
        self.subscribed > 0
            && self.behind.is_empty()
            && self.refused.is_empty()
            && self.controller_away.is_none()
    }
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let report = world::ask(async { gather::report(&args.selection.world().await?, &args.selection).await })?;
    let now = Timestamp::now();
    output::print(&report, args.output, colour, |report, wide| page::page(report, now, wide))?;
    Ok(ExitCode::SUCCESS)
}
