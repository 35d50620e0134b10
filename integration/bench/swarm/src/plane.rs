//! The control plane as processes: `gamut ca` and `gamut controller`, and what the kernel says about them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use gamut_ca::{LocalIssuer, TokenRequest};
use gamut_ca_api::AUDIENCE;
use gamut_identity::{
    CA_SERVICE_ACCOUNT, CONTROLLER_SERVICE_ACCOUNT, CaClient, Clock, SYSTEM_NAMESPACE, SpiffeId,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{api::Api, cluster};

const TRUST_DOMAIN: &str = "cluster.local";
/// Where sidecars ask for certificates.
pub(crate) const CA: &str = "127.0.0.1:15010";
/// Where sidecars subscribe.
pub(crate) const CONTROLLER: &str = "127.0.0.1:15012";
const CA_ADMIN: &str = "127.0.0.1:15011";
const CONTROLLER_ADMIN: &str = "127.0.0.1:15014";
const API: &str = "127.0.0.1:6443";
/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// A CA and a controller over an API server.
pub(crate) struct Plane {
    gamut: PathBuf,
    directory: Scratch,
    issuer: LocalIssuer,
    _ca: Process,
    controller: Process,
}

/// A process that ends with this.
pub(crate) struct Process(Child);

/// A directory that goes with this.
struct Scratch(PathBuf);

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory, in MB.
    pub(crate) rss: f64,
}

impl Plane {
    /// Starts both and waits until they are ready.
    pub(crate) async fn start(gamut: &Path, api: Api) -> anyhow::Result<Self> {
        let directory = Scratch(env::temp_dir().join(format!("gamut-swarm-{}", process::id())));
        fs::create_dir(&directory.0)?;
        let listener = TcpListener::bind(API).await.context("the API server's port")?;
        tokio::spawn(api.clone().serve(listener));
        let issuer = LocalIssuer::generate()?;
        let path = |name: &str| directory.0.join(name);
        fs::write(path("issuer.pem"), issuer.public_key())?;
        fs::write(path("kubeconfig"), kubeconfig())?;

        let ca = Process::spawn(Command::new(gamut).args([
            "ca".to_owned(),
            format!("--listen={CA}"),
            format!("--admin={CA_ADMIN}"),
            format!("--store-dir={}", path("store").display()),
            format!("--bundle-file={},{}", path("root.pem").display(), path("bundle.json").display()),
            format!("--issuer-key-file={}", path("issuer.pem").display()),
        ]))?;
        until_ready(CA_ADMIN).await?;
        let bundle: serde_json::Value = serde_json::from_slice(&fs::read(path("bundle.json"))?)?;
        api.apply("/api/v1/configmaps", bundle);

        let token = mint(&issuer, SYSTEM_NAMESPACE, CONTROLLER_SERVICE_ACCOUNT, "gamut-controller-0")?;
        fs::write(path("controller-token"), token)?;
        let controller = controller(gamut, &directory.0)?;
        let plane = Self { gamut: gamut.to_owned(), directory, issuer, _ca: ca, controller };
        until_ready(CONTROLLER_ADMIN).await?;
        Ok(plane)
    }

    /// Kills the controller and starts another, with empty memory. Returns once it is ready.
    pub(crate) async fn restart_controller(&mut self) -> anyhow::Result<()> {
        self.controller.0.kill()?;
        self.controller.0.wait()?;
        self.controller = controller(&self.gamut, &self.directory.0)?;
        until_ready(CONTROLLER_ADMIN).await
    }

    /// What the controller has used so far.
    pub(crate) fn controller(&self) -> anyhow::Result<Usage> {
        self.controller.usage()
    }

    /// How a pod gets its certificates.
    pub(crate) fn certificates(&self, namespace: &str, pod: &str) -> anyhow::Result<(SpiffeId, CaClient)> {
        let token_file = self.token(namespace, pod)?;
        let ca = SpiffeId::new(TRUST_DOMAIN, SYSTEM_NAMESPACE, CA_SERVICE_ACCOUNT)?;
        let (roots_file, clock) = (self.roots(), Clock::system());
        let client = CaClient { address: CA.to_owned(), ca, token_file, roots_file, clock };
        Ok((SpiffeId::new(TRUST_DOMAIN, namespace, "default")?, client))
    }

    /// The controller's identity.
    pub(crate) fn controller_id() -> anyhow::Result<SpiffeId> {
        Ok(SpiffeId::new(TRUST_DOMAIN, SYSTEM_NAMESPACE, CONTROLLER_SERVICE_ACCOUNT)?)
    }

    /// The executable.
    pub(crate) fn gamut(&self) -> &Path {
        &self.gamut
    }

    /// A file with the CA's root.
    pub(crate) fn roots(&self) -> PathBuf {
        self.directory.0.join("root.pem")
    }

    /// A file with a pod's token.
    pub(crate) fn token(&self, namespace: &str, pod: &str) -> anyhow::Result<PathBuf> {
        let file = self.directory.0.join(format!("token-{namespace}-{pod}"));
        fs::write(&file, mint(&self.issuer, namespace, "default", pod)?)?;
        Ok(file)
    }
}

impl Process {
    /// Starts a process, whose log goes where ours goes.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let command = command.env("GAMUT_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("{:?}", command.get_program()))?))
    }

    /// Tells it to stop and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
        self.0.wait()?;
        Ok(())
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let proc = PathBuf::from(format!("/proc/{}", self.0.id()));
        let stat = fs::read_to_string(proc.join("stat"))?;
        // Behind the name, which may hold anything: state is field 3, utime 14, stime 15, rss 24 (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let system = |what| sysconf(what).ok().flatten().map_or(1.0, |value| value as f64);
        Ok(Usage {
            cpu: (field(14) + field(15)) / system(SysconfVar::CLK_TCK),
            rss: field(24) * system(SysconfVar::PAGE_SIZE) / 1e6,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn controller(gamut: &Path, directory: &Path) -> anyhow::Result<Process> {
    let path = |name: &str| directory.join(name).display().to_string();
    Process::spawn(Command::new(gamut).args([
        "controller".to_owned(),
        format!("--listen={CONTROLLER}"),
        format!("--admin={CONTROLLER_ADMIN}"),
        format!("--kubeconfig={}", path("kubeconfig")),
        format!("--ca-address={CA}"),
        format!("--token-file={}", path("controller-token")),
        format!("--roots-file={}", path("root.pem")),
    ]))
}

fn kubeconfig() -> String {
    let cluster = json!({"server": format!("http://{API}")});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "swarm",
        "clusters": [{"name": "swarm", "cluster": cluster}],
        "contexts": [{"name": "swarm", "context": {"cluster": "swarm", "user": "swarm"}}],
        "users": [{"name": "swarm", "user": {"token": "none is asked for"}}],
    })
    .to_string()
}

fn mint(issuer: &LocalIssuer, namespace: &str, account: &str, pod: &str) -> anyhow::Result<String> {
    let request = TokenRequest {
        namespace,
        service_account: account,
        service_account_uid: "1",
        pod,
        pod_uid: &cluster::uid(pod),
        audience: AUDIENCE,
        lifetime: Duration::from_secs(3600),
    };
    Ok(issuer.mint(&request, SystemTime::now())?)
}

/// Waits until `/ready` at an address answers with 200.
pub(crate) async fn until_ready(address: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !is_ready(address).await {
        anyhow::ensure!(begin.elapsed() < PATIENCE, "{address} isn't ready within {} s", PATIENCE.as_secs());
        sleep(LOOK).await;
    }
    Ok(())
}

async fn is_ready(address: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
