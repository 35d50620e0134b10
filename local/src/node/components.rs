//! The mesh's own processes on the node: the CA and the controller, started again when they die.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use gamut_ca::TokenRequest;
use tokio::{
    process::Command,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    admission::SYSTEM_NAMESPACE,
    injection::{CA_PORT, CONTROLLER_PORT},
    names::derived_uid,
    objects::file_name,
    tokens::Tokens,
};
use crate::{
    control::Event,
    net::{addresses::NODE_V4, http, links::has_ipv6},
    paths,
    pod::{files::replace, output::Log},
};

/// Where the controller answers questions about itself.
pub(crate) const CONTROLLER_ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);
const CA_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15011);

/// The ConfigMap that the CA writes the roots to.
pub(crate) const TRUST_BUNDLE: &str = "gamut-trust-bundle";

/// A component that is coming up is asked this often whether it has, one that is up this often whether it still is.
const ASK_SOON: Duration = Duration::from_millis(20);
const ASK: Duration = Duration::from_secs(1);
/// A component that dies sooner than this is started again only after it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what an ended component has printed is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a token of the controller's is good; it reads the file again for each use.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// How a component is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ComponentState {
    pub(crate) name: &'static str,
    pub(crate) process: Option<i32>,
    pub(crate) restarts: u32,
    pub(crate) ready: bool,
    /// It has been ready once.
    pub(crate) was_ready: bool,
    /// What it printed last, when it ended last.
    pub(crate) last_words: Option<String>,
}

impl ComponentState {
    /// That it runs and says nothing, if that is so; whoever comes up for the first time is waited for anyway.
    pub(crate) fn silence(&self) -> Option<String> {
        let name = self.name;
        (self.was_ready && !self.ready && self.process.is_some())
            .then(|| format!("the {name} doesn't answer; `gamut logs node -c {name}` has what it printed"))
    }

    /// That it has ended, why as far as it has said, and where more of it is.
    pub(crate) fn end_in_words(&self) -> String {
        let name = self.name;
        let why = self.last_words.as_ref().map(|line| format!("; it printed last: {line}"));
        format!(
            "the {name} has ended and is started again; `gamut logs node -c {name}` has what it printed{}",
            why.unwrap_or_default()
        )
    }
}

/// A process to keep running.
struct Component {
    name: &'static str,
    arguments: Vec<String>,
    admin: SocketAddr,
    log: Log,
}

/// Writes what the components need and keeps both running in the background. The controller comes when the CA is ready.
pub(crate) fn start(
    tokens: Arc<Tokens>,
    trust_domain: &str,
    listener: Option<mpsc::Sender<Event>>,
    states: mpsc::UnboundedSender<ComponentState>,
) -> io::Result<()> {
    let directory = Path::new(paths::COMPONENTS);
    replace(&issuer_key(), tokens.public_key().as_bytes(), 0o644)?;
    replace(&controller_token(), controller_token_text(&tokens)?.as_bytes(), 0o600)?;

    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let bundle = crate::node::objects::id("ConfigMap", SYSTEM_NAMESPACE, TRUST_BUNDLE);
    let roots = text(directory.join("root.pem"));
    let any = if has_ipv6() { "[::]" } else { "0.0.0.0" };
    let arguments = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let log = |name: &str| {
        Log::new(Path::new(paths::LOGS).join(format!("{name}.log")), name.to_owned(), listener.clone())
    };
    let ca = Component {
        name: "ca",
        arguments: arguments(&[
            "ca",
            "--listen",
            &format!("{any}:{CA_PORT}"),
            "--admin",
            &CA_ADMIN.to_string(),
            "--trust-domain",
            trust_domain,
            "--store-dir",
            &text(directory.join("ca")),
            "--bundle-file",
            &text(Path::new(paths::CLUSTER).join(file_name(&bundle))),
            "--bundle-file",
            &roots,
            "--issuer-key-file",
            &text(issuer_key()),
        ]),
        admin: CA_ADMIN,
        log: log("ca"),
    };
    let controller = Component {
        name: "controller",
        arguments: arguments(&[
            "controller",
            "--listen",
            &format!("{any}:{CONTROLLER_PORT}"),
            "--admin",
            &CONTROLLER_ADMIN.to_string(),
            "--trust-domain",
            trust_domain,
            "--ca-address",
            &format!("{NODE_V4}:{CA_PORT}"),
            "--token-file",
            &text(controller_token()),
            "--roots-file",
            &roots,
            "--cluster-dir",
            paths::CLUSTER,
            "--status-dir",
            paths::STATUS,
        ]),
        admin: CONTROLLER_ADMIN,
        log: log("controller"),
    };
    let (ca_state, ca_states) = watch::channel(ComponentState::default());
    tokio::spawn(forward(ca_states.clone(), states.clone()));
    tokio::spawn(ca.keep_running(ca_state));
    tokio::spawn(async move {
        let mut ca_states = ca_states;
        // The CA's task never ends before this one.
        let _ = ca_states.wait_for(|state| state.ready).await;
        let (state, mine) = watch::channel(ComponentState::default());
        tokio::spawn(forward(mine, states));
        controller.keep_running(state).await;
    });
    tokio::spawn(renew_controller_token(tokens));
    Ok(())
}

async fn forward(mut from: watch::Receiver<ComponentState>, to: mpsc::UnboundedSender<ComponentState>) {
    while from.changed().await.is_ok() {
        let state = from.borrow_and_update().clone();
        if to.send(state).is_err() {
            return;
        }
    }
}

fn issuer_key() -> PathBuf {
    Path::new(paths::COMPONENTS).join("token-issuer.pem")
}

fn controller_token() -> PathBuf {
    Path::new(paths::COMPONENTS).join("controller-token")
}

/// The controller is no pod here, but it is known as one to the CA.
fn controller_token_text(tokens: &Tokens) -> io::Result<String> {
    let request = TokenRequest {
        namespace: SYSTEM_NAMESPACE,
        service_account: "gamut-controller",
        service_account_uid: &derived_uid("ServiceAccount gamut-system/gamut-controller"),
        pod: "gamut-controller",
        pod_uid: &derived_uid("Pod gamut-system/gamut-controller"),
        audience: gamut_injector::TOKEN_AUDIENCE,
        lifetime: TOKEN_LIFETIME,
    };
    tokens.mint(&request).map_err(io::Error::other)
}

async fn renew_controller_token(tokens: Arc<Tokens>) {
    loop {
        sleep(TOKEN_LIFETIME.mul_f64(0.8)).await;
        let renewed = controller_token_text(&tokens);
        let written = renewed.and_then(|token| replace(&controller_token(), token.as_bytes(), 0o600));
        if let Err(error) = written {
            tracing::error!(%error, "the controller's token can't be renewed");
        }
    }
}

impl Component {
    async fn keep_running(self, states: watch::Sender<ComponentState>) {
        states.send_modify(|state| state.name = self.name);
        loop {
            let began = Instant::now();
            let ended = self.run(&states).await;
            let last_words = ended.as_ref().ok().and_then(|ended| self.log.last_words(*ended));
            states.send_modify(|state| {
                state.process = None;
                state.ready = false;
                state.restarts += 1;
                state.last_words = last_words;
            });
            tracing::debug!(component = self.name, ?ended, "ended and is started again");
            sleep(PAUSE.saturating_sub(began.elapsed())).await;
        }
    }

    async fn run(&self, states: &watch::Sender<ComponentState>) -> io::Result<std::process::ExitStatus> {
        let mut command = Command::new(paths::EXECUTABLE);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // As of a container: Ctrl-C isn't for it, and it ends with the node.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let process = child.id().and_then(|id| i32::try_from(id).ok());
        states.send_modify(|state| state.process = process);
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(self.log.clone().pump(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(self.log.clone().pump(stderr));
        }
        loop {
            let ready = http::is_ready(self.admin, "/ready").await;
            states.send_if_modified(|state| {
                let changed = state.ready != ready;
                state.ready = ready;
                state.was_ready |= ready;
                changed
            });
            let pause = if ready { ASK } else { ASK_SOON };
            if let Ok(ended) = timeout(pause, child.wait()).await {
                let all = async { while readers.join_next().await.is_some() {} };
                // What it has started may hold the other end; the set ends with this function.
                let _ = timeout(LAST_WORDS, all).await;
                return ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_hangs_is_told_and_one_that_comes_up_or_has_ended_is_not() {
        let good = ComponentState {
            name: "ca",
            process: Some(7),
            ready: true,
            was_ready: true,
            ..ComponentState::default()
        };
        assert_eq!(good.silence(), None);
        let hangs = ComponentState { ready: false, ..good };
        assert!(hangs.silence().is_some_and(|line| line.starts_with("the ca doesn't answer")));
        assert_eq!(ComponentState { process: None, ..hangs.clone() }.silence(), None);
        assert_eq!(ComponentState { was_ready: false, ..hangs }.silence(), None);
    }

    #[test]
    fn a_component_that_ended_is_told_with_its_last_line_and_where_the_others_are() {
        let state = ComponentState { name: "ca", ..ComponentState::default() };
        let told = state.end_in_words();
        assert_eq!(
            told,
            "the ca has ended and is started again; `gamut logs node -c ca` has what it printed"
        );
        let last_words = Some("error: --leaf-lifetime: 5s is less than 10s".to_owned());
        let why = ComponentState { last_words, ..state }.end_in_words();
        assert_eq!(why, format!("{told}; it printed last: error: --leaf-lifetime: 5s is less than 10s"));
    }
}
