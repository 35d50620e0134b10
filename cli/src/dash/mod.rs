//! `gamut dash`, and the page whose address `gamut up` prints: the mesh, live, in this machine's browser.
//!
//! ```text
//!    mesh or cluster                                               browser
//!          ▲ as `gamut status` and `gamut routes` ask                 │ GET, every two seconds
//!          │                                                          ▼
//!       collect ─ answers ─► Live { newest, History } ─ documents ─ server, on loopback
//!        a thread                  behind a lock                   another thread
//! ```
//!
//! The page shows what the commands print, of the same types, and what comes with asking again and again: rates, latencies,
//! and splits over time. Nothing is collected a second time, and nothing at all while nobody looks.

mod collect;
mod documents;
mod figures;
mod history;
mod live;
mod server;

use std::{
    io::{self, IsTerminal as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use gamut_local::InstanceName;
use tokio::net::TcpListener;

use self::live::Live;
use crate::{
    output,
    world::{self, Selection},
};

/// Where the page is, if nobody else is there.
const PORT: u16 = 15080;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The page's port on 127.0.0.1 [default: 15080, or any that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// A page that is served.
#[derive(Debug)]
pub(crate) struct Page {
    address: SocketAddr,
    server: JoinHandle<()>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let page = Page::start(args.selection.clone(), args.port)?;
    output::write(&format!("{}\n", page.url()))?;
    open_browser(&page.url());
    // Until Ctrl-C ends the process.
    let _ = page.server.join();
    anyhow::bail!("the page's server has ended by itself")
}

impl Page {
    /// The page of a `gamut up`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn of_instance(name: InstanceName) -> anyhow::Result<Self> {
        let mut selection = Selection::default();
        selection.choice.name = Some(name);
        Self::start(selection, None)
    }

    /// Begins to serve a page, in threads of its own that end with the process. A mesh that can't be asked is no error: the
    /// page says so.
    ///
    /// # Errors
    /// There is nobody to ask, the kubeconfig can't be used, or the port can't be had.
    pub(crate) fn start(selection: Selection, port: Option<u16>) -> anyhow::Result<Self> {
        let live = Arc::new(Live::new());
        collect(selection, live.clone())?;
        let (opened, address) = mpsc::channel();
        let serve = async move {
            let listener = listen(port).await;
            let address = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
            match address {
                Ok((address, listener)) => {
                    // Who has started us waits for it.
                    let _ = opened.send(Ok(address));
                    server::serve(listener, live).await;
                }
                Err(error) => drop(opened.send(Err(error))),
            }
            Ok(())
        };
        let serve =
            || world::ask(serve).unwrap_or_else(|error| tracing::warn!("the page's server: {error:#}"));
        let server = thread::Builder::new().name("gamut-page".to_owned()).spawn(serve)?;
        let address = address.recv().context("the page's server has ended")?;
        Ok(Self {
            address: address.context("the page's port on 127.0.0.1 can't be had; choose one with --port")?,
            server,
        })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// Starts the thread that asks. It has a runtime of its own: questions to an instance block.
fn collect(selection: Selection, live: Arc<Live>) -> anyhow::Result<()> {
    let (chosen, is_chosen) = mpsc::channel();
    let collect = async move {
        match selection.choice.world().await {
            Ok(world) => {
                let _ = chosen.send(Ok(()));
                collect::collect(&world, &selection, &live).await;
            }
            Err(error) => drop(chosen.send(Err(error))),
        }
        Ok(())
    };
    let collect =
        || world::ask(collect).unwrap_or_else(|error| tracing::warn!("the page's questions: {error:#}"));
    thread::Builder::new().name("gamut-questions".to_owned()).spawn(collect)?;
    is_chosen.recv().context("the page's questions have ended")?
}

/// The port that is asked for; without one the usual, so that a bookmark stays good, or any.
async fn listen(port: Option<u16>) -> io::Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => at(port).await,
        None => match at(PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => at(0).await,
        },
    }
}

/// On a desktop, where somebody sits at the terminal. Browsers refuse to run as root.
fn open_browser(url: &str) {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let desktop = set("DISPLAY") || set("WAYLAND_DISPLAY");
    if desktop && io::stdout().is_terminal() && !nix::unistd::geteuid().is_root() {
        let mut open = Command::new("xdg-open");
        open.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = open.spawn() {
            tracing::debug!("no browser was opened: {error}");
        }
    }
}
