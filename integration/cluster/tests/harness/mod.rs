//! A running test cluster from outside: kubectl, and our own processes inside its network.
//!
//! `GAMUT_TEST_CLUSTER` names the state directory of a cluster that `integration/cluster/cluster up` has brought up. Without it a test
//! says so and is over. The cluster has one set of our objects, so tests take turns; each begins with [`Cluster::clean`].

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static TURN: Mutex<()> = Mutex::new(());

/// Whether a test has installed the Gateway API's definitions, and none has removed them since.
static DEFINITIONS: AtomicBool = AtomicBool::new(false);

/// Where tests work.
const NAMESPACES: [&str; 3] = ["gamut-system", "shop", "lab"];

/// What an installation has outside of namespaces. The webhook's comes first: whatever follows would ask an injector that is gone.
const CLUSTER_WIDE: [&str; 13] = [
    "mutatingwebhookconfiguration/gamut-injector",
    "validatingadmissionpolicy/gamut-control-plane",
    "validatingadmissionpolicybinding/gamut-control-plane",
    "clusterrole/gamut-controller",
    "clusterrolebinding/gamut-controller",
    "clusterrole/gamut-ca",
    "clusterrolebinding/gamut-ca",
    "clusterrole/gamut-injector",
    "clusterrolebinding/gamut-injector",
    "clusterrole/gamut-cleanup",
    "clusterrolebinding/gamut-cleanup",
    "clusterrole/gamut-user",
    "clusterrolebinding/gamut-user",
];

/// A service account of ours with the roles of its name.
const ACCOUNT: &str = "
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ACCOUNT, namespace: gamut-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ACCOUNT, namespace: gamut-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ACCOUNT}
subjects: [{kind: ServiceAccount, name: ACCOUNT, namespace: gamut-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ACCOUNT}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ACCOUNT}
subjects: [{kind: ServiceAccount, name: ACCOUNT, namespace: gamut-system}]
";

pub(crate) struct Cluster {
    state: PathBuf,
    init: String,
    /// Kubeconfigs of our service accounts.
    accounts: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A process inside the cluster's network. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    name: String,
}

/// The API server, stopped. Dropping this starts it again and waits until it is ready: who fails meanwhile leaves a cluster to others.
pub(crate) struct Stopped<'a> {
    cluster: &'a Cluster,
    command: Vec<String>,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.run_api_server(&self.command) {
            eprintln!("the API server can't be started again: {error}");
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.cluster.answers() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Cluster {
    /// The chart.
    pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/gamut");
    /// The example that the README begins with.
    pub(crate) const CANARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/canary");

    /// The cluster, for this test alone, with our service accounts and their roles; `None`, said, where there is none.
    pub(crate) fn take() -> Option<Self> {
        let cluster = Self::take_empty()?;
        cluster.grant();
        Some(cluster)
    }

    /// As [`Cluster::take`], without anything of ours.
    pub(crate) fn take_empty() -> Option<Self> {
        let Some(state) = env::var_os("GAMUT_TEST_CLUSTER").map(PathBuf::from) else {
            println!(
                "skipped: GAMUT_TEST_CLUSTER doesn't name the state directory of a running test cluster"
            );
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let init = fs::read_to_string(state.join("init.pid")).expect("the cluster is up");
        let accounts = tempfile::tempdir().unwrap();
        let cluster = Self { state, init: init.trim().to_owned(), accounts, _turn: turn };
        cluster.clean();
        Some(cluster)
    }

    /// Removes what an earlier test left. Namespaces stay: deleting one takes Kubernetes half a minute. Each command takes a quarter of
    /// a second, and every test begins with this.
    fn clean(&self) {
        let release = ["uninstall", "gamut", "--namespace=gamut-system", "--no-hooks", "--ignore-not-found"];
        self.run("helm", &[release.as_slice(), &["--wait", "--timeout=1m"]].concat());
        self.kubectl(&[&["delete", "--ignore-not-found"], CLUSTER_WIDE.as_slice()].concat());
        let namespaces =
            NAMESPACES.map(|name| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
        // Says of those that are there that they are.
        self.try_apply(&namespaces.join("---\n"), &[]);
        let labels = ["gamut.mesh/inject-", "pod-security.kubernetes.io/enforce-"];
        self.kubectl(&[&["label", "namespace"], NAMESPACES.as_slice(), &labels].concat());
        for namespace in NAMESPACES {
            let ours = "leases.coordination.k8s.io,secrets,services,serviceaccounts,roles,rolebindings,pods";
            self.kubectl(&["delete", "-n", namespace, "--all", ours, "--force", "--grace-period=0"]);
        }
        let roots = "--field-selector=metadata.name=gamut-trust-bundle";
        self.kubectl(&["delete", "configmaps", "--all-namespaces", roots]);
        // Kinds that may not be there.
        self.try_kubectl(&["delete", "--all-namespaces", "--all", "httproutes"]);
        for kind in ["xmeshes", "clustertrustbundles"] {
            self.try_kubectl(&["delete", "--all", kind]);
        }
    }

    /// Gives our service accounts the roles that the reference lists, and no more.
    fn grant(&self) {
        let page = include_str!("../../../../docs/reference/kubernetes.md");
        let (_, roles) = page.split_once("```yaml\n").expect("the page lists the roles");
        let (roles, _) = roles.split_once("```").expect("the list ends");
        let roles = roles.replace("[gamut-ca], verbs: [get", "[gamut-ca, our-pki], verbs: [get");
        let accounts = ["gamut-controller", "gamut-ca", "gamut-injector"];
        self.apply(&(roles + &accounts.map(|account| ACCOUNT.replace("ACCOUNT", account)).concat()));
        for account in accounts {
            self.log_in("gamut-system", account);
        }
    }

    /// Makes a kubeconfig for a service account.
    pub(crate) fn log_in(&self, namespace: &str, account: &str) -> String {
        let admin = fs::read_to_string(self.admin()).unwrap();
        let (_, rest) = admin.split_once("token: ").unwrap();
        let (admin_token, _) = rest.split_once('}').unwrap();
        let token = self.kubectl(&["create", "token", "-n", namespace, account]);
        let kubeconfig = self.kubeconfig(account);
        fs::write(&kubeconfig, admin.replace(admin_token, &token)).unwrap();
        kubeconfig
    }

    /// The kubeconfig of a service account, after [`Cluster::log_in`].
    pub(crate) fn kubeconfig(&self, account: &str) -> String {
        self.accounts.path().join(account).to_string_lossy().into_owned()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.run("kubectl", arguments)
    }

    /// What a program that talks to the cluster prints.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.inside(program).args(arguments).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.inside("kubectl").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn apply(&self, manifest: &str) {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), manifest).unwrap();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file.path().to_str().unwrap()]);
    }

    pub(crate) fn try_apply(&self, manifest: &str, more: &[&str]) -> Output {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), manifest).unwrap();
        self.try_kubectl(&[&["create", "-f", file.path().to_str().unwrap()], more].concat())
    }

    /// Waits until an object has a value, by a watch.
    pub(crate) fn wait(&self, namespace: &str, object: &str, path: &str, value: &str) {
        let condition = format!("--for=jsonpath={{{path}}}={value}");
        self.kubectl(&["wait", "-n", namespace, object, &condition, "--timeout=60s"]);
    }

    /// Waits until an object exists.
    pub(crate) fn wait_for(&self, namespace: &str, object: &str) {
        self.kubectl(&["wait", "-n", namespace, object, "--for=create", "--timeout=60s"]);
    }

    pub(crate) fn value(&self, namespace: &str, object: &str, path: &str) -> String {
        self.kubectl(&["get", "-n", namespace, object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Installs the Gateway API's definitions, unless an earlier test has.
    pub(crate) fn install_gateway_api(&self) {
        if DEFINITIONS.load(Ordering::Relaxed) {
            return;
        }
        let mut arguments = vec!["apply".to_owned(), "--server-side".to_owned()];
        for file in gateway_api_definitions() {
            arguments.extend(["-f".to_owned(), file.to_string_lossy().into_owned()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.kubectl(&arguments);
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        DEFINITIONS.store(true, Ordering::Relaxed);
    }

    pub(crate) fn remove_gateway_api(&self) {
        DEFINITIONS.store(false, Ordering::Relaxed);
        let all = self.kubectl(&["get", "crds", "-o", "name"]);
        let ours: Vec<&str> = all.lines().filter(|name| name.contains("gateway.networking")).collect();
        if !ours.is_empty() {
            self.kubectl(&[&["delete", "--wait=true"], ours.as_slice()].concat());
        }
    }

    /// Where it keeps everything.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// What a container of a pod has printed, as its kubelet keeps it: also while nobody answers for the cluster.
    pub(crate) fn log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        let uid = self.value(namespace, &format!("pod/{pod}"), ".metadata.uid");
        PathBuf::from(format!(
            "/proc/{}/root/var/log/pods/{namespace}_{pod}_{uid}/{container}/0.log",
            self.init
        ))
    }

    /// The kubeconfig of somebody who may do everything.
    pub(crate) fn admin(&self) -> PathBuf {
        self.state.join("admin.conf")
    }

    /// Runs `gamut` with these arguments inside, to its end.
    pub(crate) fn gamut(&self, arguments: &[&str]) -> Output {
        let mut command = self.inside(env!("CARGO_BIN_EXE_gamut"));
        command.args(arguments).env_remove("GAMUT_LOG").env_remove("GAMUT_INSTANCE");
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// What `gamut check` says of something: result and detail, both empty where it says nothing of it.
    pub(crate) fn check(&self, what: &str) -> (String, String) {
        finding(&json_of(&self.gamut(&["check", "-o", "json"])), what)
    }

    /// Starts `gamut` with these arguments inside.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = self.inside(env!("CARGO_BIN_EXE_gamut"));
        command.args(arguments).env_remove("GAMUT_LOG");
        Process::start(name, command)
    }

    /// Starts a controller that gets its certificate from a CA on port 15010, if there is one.
    pub(crate) fn controller(&self, name: &str, port: u16, more: &[&str]) -> Process {
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let kubeconfig = self.kubeconfig("gamut-controller");
        let own = ["controller", "--listen", &listen, "--admin", &admin, "--kubeconfig", &kubeconfig];
        let mesh = ["--replica", name, "--ca-address", "127.0.0.1:15010"];
        self.start(name, &[own.as_slice(), &mesh, more].concat())
    }

    /// Starts a CA.
    pub(crate) fn ca(&self, port: u16, more: &[&str]) -> Process {
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let kubeconfig = self.kubeconfig("gamut-ca");
        let own = ["ca", "--listen", &listen, "--admin", &admin, "--kubeconfig", &kubeconfig];
        self.start("ca", &[own.as_slice(), more].concat())
    }

    /// Starts an injector that gets its certificate from a CA on port 15010, and listens where the node does.
    pub(crate) fn injector(&self, more: &[&str]) -> Process {
        let kubeconfig = self.kubeconfig("gamut-injector");
        let own = ["injector", "--kubeconfig", &kubeconfig, "--ca-address", "127.0.0.1:15010"];
        self.start("injector", &[own.as_slice(), more].concat())
    }

    /// An HTTP answer from inside: its status and body.
    pub(crate) fn get(&self, url: &str) -> (u16, String) {
        let output =
            self.inside("curl").args(["-s", "-m", "5", "-w", "\n%{http_code}", url]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Kills the API server as a crash would.
    pub(crate) fn kill_api_server(&self) -> Stopped<'_> {
        let ours = fs::read_link(format!("/proc/{}/ns/pid", self.init)).unwrap();
        let command = kill(|process| {
            let inside = fs::read_link(process.join("ns/pid")).is_ok_and(|namespace| namespace == ours);
            inside && words(&process.join("cmdline")).get(1).is_some_and(|name| name == "kube-apiserver")
        });
        Stopped { cluster: self, command }
    }

    /// Kills a pod's sidecar as a crash would, and waits until its kubelet has started another.
    pub(crate) fn kill_sidecar(&self, namespace: &str, pod: &str) {
        let pod = format!("pod/{pod}");
        let uid = format!("GAMUT_POD_UID={}", self.value(namespace, &pod, ".metadata.uid"));
        kill(|process| {
            let is_sidecar = words(&process.join("cmdline")).get(1).is_some_and(|name| name == "proxy");
            is_sidecar && words(&process.join("environ")).contains(&uid)
        });
        let restarts = r#".status.initContainerStatuses[?(@.name=="gamut-proxy")].restartCount"#;
        self.wait(namespace, &pod, restarts, "1");
        self.kubectl(&["wait", "-n", namespace, &pod, "--for=condition=Ready", "--timeout=60s"]);
    }

    /// Starts it again.
    pub(crate) fn start_api_server(&self, stopped: Stopped<'_>) {
        drop(stopped);
        assert!(self.answers(), "the API server isn't ready after {} s", PATIENCE.as_secs());
    }

    /// Whether the API server is ready.
    fn answers(&self) -> bool {
        self.try_kubectl(&["get", "--raw", "/readyz"]).status.success()
    }

    #[allow(clippy::zombie_processes, reason = "it ends with the cluster, which isn't this test's to end")]
    fn run_api_server(&self, command: &[String]) -> io::Result<()> {
        let log = fs::OpenOptions::new().append(true).open(self.state.join("apiserver.log"))?;
        // In the cluster's pid namespace, so that it ends with the cluster.
        let mut child = Command::new("nsenter");
        child
            .args(["-t", &self.init, "--net", "--mount", "--pid", "env", "-C"])
            .arg(&self.state)
            .arg("setsid")
            .args(command);
        child.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(())
    }

    /// A command inside, with the cluster's programs and its KUBECONFIG.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let cache = env::var_os("GAMUT_CLUSTER_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            let caches = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            caches
                .unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"))
                .join("gamut-cluster")
        });
        let path = format!("{}:{}", cache.display(), env::var("PATH").unwrap());
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init, "--net", "--mount", "env", &format!("PATH={path}")]);
        command.arg(format!("KUBECONFIG={}", self.state.join("admin.conf").display())).arg(program);
        command
    }
}

impl Process {
    /// Starts a command of [`Cluster::inside`].
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (lines, into) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.0.lock().unwrap().push(line);
                into.1.notify_all();
            }
        });
        Self { child, log, name: name.to_owned() }
    }

    /// Waits until its log says this, and gives the line.
    pub(crate) fn says(&self, text: &str) -> String {
        self.says_again(text, 1)
    }

    /// Waits until its log has said this so many times, and gives the last of these lines.
    pub(crate) fn says_again(&self, text: &str, times: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(times - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} never said {text:?}:\n{}", self.name, lines.join("\n"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.log.0.lock().unwrap().iter().any(|line| line.contains(text))
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success(), "{} ended badly", self.name);
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "---- {}\n{}",
                self.name,
                self.log.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
            );
        }
    }
}

/// Kills the one process of which this holds, given its directory in `/proc`, and gives its command.
fn kill(is: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = entries.filter(|name| name.bytes().all(|c| c.is_ascii_digit()));
    let found: Vec<String> = processes.filter(|pid| is(&Path::new("/proc").join(pid))).collect();
    let [pid] = found.as_slice() else { panic!("{} processes are it: {found:?}", found.len()) };
    let process = Path::new("/proc").join(pid);
    let command = words(&process.join("cmdline"));
    assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
    until("the process is gone", || !process.exists());
    command
}

/// What a file of `/proc` holds, a word behind each NUL.
fn words(file: &Path) -> Vec<String> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// Waits for something that nothing tells about.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// What `gamut ... -o json` printed.
pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// What a report of `gamut check` says first about something: result and detail, both empty where it says nothing: what can't be asked
/// within a moment has no line.
pub(crate) fn finding(report: &Value, what: &str) -> (String, String) {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["what"] == what);
    let text =
        |field: &str| finding.map(|finding| finding[field].as_str().unwrap().to_owned()).unwrap_or_default();
    (text("result"), text("detail"))
}

/// The Gateway API's definitions, experimental channel, a file for each.
pub(crate) fn gateway_api_definitions() -> Vec<PathBuf> {
    let files = fs::read_dir(gateway_api().join("config/crd/experimental")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    // The admission policy only guards against downgrades.
    files.retain(|path| {
        path.to_string_lossy().contains("/gateway.networking") && !path.to_string_lossy().contains("vap")
    });
    files.sort();
    files
}

/// Where Go keeps the Gateway API's sources, which have the definitions.
fn gateway_api() -> PathBuf {
    let output = Command::new("go").args(["env", "GOMODCACHE"]).output().expect("go is installed");
    let directory = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
        .join("sigs.k8s.io/gateway-api@v1.7.0");
    if !directory.exists() {
        let module = "sigs.k8s.io/gateway-api@v1.7.0";
        assert!(Command::new("go").args(["mod", "download", module]).status().unwrap().success());
    }
    directory
}
