//! The host's side of `gamut up`: starts the machine, hears its events, orders it to stop, runs the user's command.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    time::timeout,
};

use crate::{
    control::{Event, Order},
    exec::{Attended, bound_command, exit_code},
    instance::{INSTANCE_VARIABLE, InstanceName},
    internal::MachineConfig,
};

/// A node that can't end by itself is ended after this.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The instance's name.
    pub name: InstanceName,
    /// Manifests: files and directories.
    pub paths: Vec<PathBuf>,
    /// Whether events carry what containers print.
    pub verbose: bool,
    /// The trust domain of all identities.
    pub trust_domain: String,
    /// Where sidecars send spans.
    pub traces: Traces,
}

/// Where sidecars send spans, in the injector's words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Traces {
    /// `grpc://HOST:PORT` or `http://HOST:PORT/PATH`, as pods reach it; nowhere if `None`.
    pub to: Option<String>,
    /// The share of traces beginning at sidecars that is exported, 0 to 1; sidecars' own default if `None`.
    pub share: Option<String>,
}

/// The machine couldn't be started.
#[derive(Debug, Error)]
pub enum UpError {
    /// Namespaces and interfaces need root.
    #[error(
        "gamut up needs root: it makes namespaces, mounts and network interfaces of its own; run it with sudo"
    )]
    NotRoot,
    /// The name is taken.
    #[error("an instance {0:?} is running already; stop it, or choose another name with --name")]
    NameTaken(String),
    /// A path can't be read.
    #[error("{}: {source}; check the path given with -f", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The machine has a `/run` of its own.
    #[error("{}: manifests below /run can't be seen by the machine, which has a /run of its own; move them", .0.display())]
    BelowRun(PathBuf),
    /// A process or socket couldn't be made.
    #[error("starting the machine: {0}")]
    System(#[from] io::Error),
    /// A path that isn't text.
    #[error("the settings can't be handed to the machine: {0}")]
    Config(#[from] serde_json::Error),
}

/// A running machine. Dropping it ends it at once.
#[derive(Debug)]
pub struct Machine {
    name: InstanceName,
    helper: Child,
    events: Lines<BufReader<OwnedReadHalf>>,
    /// While this end is open the machine lives.
    orders: OwnedWriteHalf,
}

impl Machine {
    /// Starts a machine and returns at once; its events tell how it goes on.
    ///
    /// Must be called on a thread that lives as long as the machine shall (the kernel ends the machine with that thread):
    /// the main thread, in a current-thread runtime.
    ///
    /// # Errors
    /// See [`UpError`].
    pub fn start(options: &UpOptions) -> Result<Self, UpError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(UpError::NotRoot);
        }
        for path in &options.paths {
            check_path(path)?;
        }
        let listener = options.name.listen().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => UpError::NameTaken(options.name.to_string()),
            _ => UpError::System(error),
        })?;
        let (ours, theirs) = StdUnixStream::pair()?;
        let config = MachineConfig {
            instance: options.name.to_string(),
            paths: options.paths.clone(),
            verbose: options.verbose,
            trust_domain: options.trust_domain.clone(),
            traces: options.traces.clone(),
            parent: nix::unistd::getpid().as_raw(),
        };
        let mut helper = Command::new("/proc/self/exe");
        helper
            .arg0("gamut")
            .args(["internal", "machine", &serde_json::to_string(&config)?])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            // Ctrl-C on the terminal is for `gamut up`, which then asks the machine to stop.
            .process_group(0)
            .kill_on_drop(true);
        let helper = helper.spawn()?;

        ours.set_nonblocking(true)?;
        let (read, orders) = UnixStream::from_std(ours)?.into_split();
        Ok(Self { name: options.name.clone(), helper, events: BufReader::new(read).lines(), orders })
    }

    /// The next event; `None` when the machine has ended. Cancel safe.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            let line = self.events.next_line().await.ok()??;
            match serde_json::from_str(&line) {
                Ok(event) => return Some(event),
                Err(error) => tracing::warn!(%line, %error, "not an event"),
            }
        }
    }

    /// Asks all pods to end, then the machine; [`Event::Stopped`] and the end of events follow within seconds.
    pub async fn stop(&mut self) {
        let Ok(mut line) = serde_json::to_vec(&Order::Stop) else { return };
        line.push(b'\n');
        if let Err(error) = self.orders.write_all(&line).await {
            tracing::debug!(%error, "the machine has ended already");
        }
    }

    /// Ends everything now and waits until it is gone, the name included.
    pub async fn kill(&mut self) {
        // The end of this socket is the end of the node, and that of pid 1; the helper ends when the kernel has ended
        // all the rest.
        if let Err(error) = self.orders.shutdown().await {
            tracing::debug!(%error, "the machine has ended already");
        }
        if timeout(KILL_PATIENCE, self.helper.wait()).await.is_err() {
            if let Err(error) = self.helper.kill().await {
                tracing::debug!(%error, "the machine has ended already");
            }
            while let Ok(Some(_)) = self.events.next_line().await {}
        }
    }

    /// Runs a command on the host with this instance as its default; its exit status as shells tell it. The command ends
    /// if this process does; while it runs, signals to this process are passed on to it.
    ///
    /// # Errors
    /// No process could be started.
    pub fn run(&self, command: &[OsString]) -> io::Result<impl Future<Output = io::Result<u8>> + use<>> {
        let mut bound = bound_command(Path::new("/proc/self/exe"), command, None)?;
        bound.arg0("gamut").env(INSTANCE_VARIABLE, self.name.as_str()).kill_on_drop(true);
        let attended = Attended::spawn(&mut bound)?;
        Ok(async move { Ok(exit_code(attended.wait().await?)) })
    }
}

fn check_path(path: &Path) -> Result<(), UpError> {
    let real = path.canonicalize().map_err(|source| UpError::Path { path: path.to_owned(), source })?;
    match real.starts_with("/run") {
        true => Err(UpError::BelowRun(path.to_owned())),
        false => Ok(()),
    }
}
