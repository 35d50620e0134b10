//! What end-to-end tests stand on: a mesh of real processes for each test, ended and gone when the test is, however it
//! ends.
//!
//! [`Mesh::up`] starts `gamut up` under a name of its own on manifests in a directory of its own; tests save files,
//! run programs in pods and read answers as people do, and wait on what the mesh itself reports.

mod lines;
mod load;
mod manifests;
pub(crate) mod prometheus;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use gamut_local::{
    Client,
    control::{PodReport, Status, Wait},
};
use tempfile::TempDir;

pub(crate) use lines::{Lines, PATIENCE};
pub(crate) use load::{Load, assert_no_failure, by_version};
pub(crate) use manifests::{App, app, namespace, route, service, service_with};

/// The executable under test, by a name that stays when cargo builds the next one: a mesh goes on starting processes of
/// it for as long as it runs.
pub(crate) fn gamut() -> &'static Path {
    static LINK: LazyLock<PathBuf> = LazyLock::new(|| {
        // One for each run, in a directory of the target's file system; those of runs that are over make room.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gamut-e2e");
        fs::create_dir_all(&directory).unwrap();
        for old in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap()) {
            if !Path::new("/proc").join(old.file_name()).exists() {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        let directory = directory.join(std::process::id().to_string());
        fs::create_dir_all(&directory).unwrap();
        let link = directory.join("gamut");
        fs::hard_link(env!("CARGO_BIN_EXE_gamut"), &link).unwrap();
        link
    });
    &LINK
}

/// The same executable, where every pod has it.
pub(crate) const GAMUT_IN_PODS: &str = "/run/gamut/bin/gamut";

/// A running `gamut up`. Dropping it kills it, and with it everything it started.
pub(crate) struct Mesh {
    /// The instance's name.
    pub(crate) name: String,
    directory: TempDir,
    /// `gamut up` itself.
    pub(crate) child: Child,
    /// What it says.
    pub(crate) output: Lines,
    /// Its control socket.
    pub(crate) client: Client,
}

impl Mesh {
    /// Starts a mesh on these manifests and waits until everything is ready.
    pub(crate) fn up(manifests: &[String]) -> Self {
        Self::up_with(manifests, &[])
    }

    /// The same, where CA and controller are told more by their environment.
    pub(crate) fn up_with(manifests: &[String], environment: &[(&str, &str)]) -> Self {
        let mut mesh = Self::start_set(manifests, &[], environment);
        mesh.output.until("ready", |line| line.starts_with("gamut: ready"));
        mesh
    }

    /// Starts a mesh on these manifests, with more arguments for `gamut up`.
    pub(crate) fn start(manifests: &[String], arguments: &[&str]) -> Self {
        Self::start_set(manifests, arguments, &[])
    }

    /// The same with settings of its components, by their variables.
    pub(crate) fn start_set(manifests: &[String], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
        save(&directory.path().join("all.yaml"), &manifests.concat());
        Self::spawn(directory, arguments, environment)
    }

    /// Starts a mesh on the files of a directory.
    pub(crate) fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        Self::spawn(directory, arguments, &[])
    }

    fn spawn(directory: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let files = directory.path().to_owned();
        Self::start_with(directory, |up| {
            up.arg("-f").arg(files).args(arguments).envs(environment.iter().copied())
        })
    }

    /// Starts a mesh as a reader does who has the repository: in a directory with a copy of `examples/`, with these
    /// variables and arguments for `gamut up`.
    pub(crate) fn as_a_reader(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"), &directory.path().join("examples"));
        let here = directory.path().to_owned();
        Self::start_with(directory, |up| up.current_dir(here).envs(variables.iter().copied()).args(arguments))
    }

    fn start_with(directory: TempDir, more: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(gamut());
        let command = more(command.args(["up", "--name", &name]));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Lines::of("gamut up", child.stderr.take().unwrap());
        let client = Client::new(name.parse().unwrap());
        Self { name, directory, child, output, client }
    }

    /// Where its manifests are, or `examples/` with them.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A copy of an example of the repository.
    pub(crate) fn example(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
        copy(&source, directory.path());
        let mut mesh = Self::start_in(directory, &[]);
        mesh.output.until("ready", |line| line.starts_with("gamut: ready"));
        mesh
    }

    /// Saves a manifest, as an editor does. Returns when it was done.
    pub(crate) fn save(&self, file: &str, content: &str) -> Instant {
        save(&self.directory.path().join(file), content);
        Instant::now()
    }

    /// Rewrites a manifest's text.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) -> Instant {
        let path = self.directory.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        self.save(file, &text.replace(from, to))
    }

    /// Waits until what was saved is in effect everywhere: pods, endpoints, every sidecar's tables.
    pub(crate) fn settle(&self) {
        if let Err(error) = self.client.wait(Wait::Ready, PATIENCE) {
            panic!("not settled: {error}");
        }
    }

    /// What the mesh reports of itself.
    pub(crate) fn status(&self) -> Status {
        self.client.status().unwrap()
    }

    /// The pods of a workload, without those that are going.
    pub(crate) fn pods(&self, workload: &str) -> Vec<PodReport> {
        let mut pods = self.status().pods;
        pods.retain(|pod| pod.name.starts_with(&format!("{workload}-")) && !pod.terminating);
        pods
    }

    /// The process of `ca` or `controller`, as a number of the node's process namespace.
    pub(crate) fn component(&self, name: &str) -> Option<i32> {
        let components = self.status().components;
        components.iter().find(|component| component.name == name).and_then(|component| component.pid)
    }

    /// The process of the sidecar of a workload's first pod, as a number of the node's process namespace.
    pub(crate) fn sidecar(&self, workload: &str) -> i32 {
        let pods = self.pods(workload);
        let mut containers = pods.iter().flat_map(|pod| &pod.containers);
        containers.find(|container| container.role == "sidecar").and_then(|sidecar| sidecar.pid).unwrap()
    }

    /// The memory that the sidecar of a workload's first pod has, in bytes.
    pub(crate) fn memory_of_sidecar(&self, workload: &str) -> u64 {
        self.memory(workload, "VmRSS:")
    }

    /// The most that it has had.
    #[allow(dead_code, reason = "for the scenarios of faults under load")]
    pub(crate) fn most_memory_of_sidecar(&self, workload: &str) -> u64 {
        self.memory(workload, "VmHWM:")
    }

    /// A count of memory (proc_pid_status(5)).
    fn memory(&self, workload: &str, count: &str) -> u64 {
        let file = format!("/proc/{}/status", self.sidecar(workload));
        let status = text_of(self.exec("node", &["cat", &file]));
        let line = status.lines().find_map(|line| line.strip_prefix(count)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal to processes of the node, at once and unasked.
    pub(crate) fn signal(&self, signal: &str, pids: impl IntoIterator<Item = i32>) {
        let pids: Vec<String> = pids.into_iter().map(|pid| pid.to_string()).collect();
        let sent = self.exec("node", &["sh", "-c", &format!("kill -{signal} {}", pids.join(" "))]);
        assert!(sent.status.success(), "{sent:?}");
    }

    /// A `gamut` command for this instance.
    pub(crate) fn gamut<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(gamut());
        command.args(arguments).env("GAMUT_INSTANCE", &self.name).stdin(Stdio::null());
        command
    }

    /// What a `gamut` command prints, which must succeed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        text_of(self.gamut(arguments).output().unwrap())
    }

    /// A program in a pod; `target` is `namespace/deploy/name`, or `node`.
    pub(crate) fn exec_command(&self, target: &str, command: &[&str]) -> Command {
        let (namespace, target) = target.split_once('/').unwrap_or(("default", target));
        self.gamut(&[&["exec", "-n", namespace, target, "--"], command].concat())
    }

    /// Runs a program in a pod to its end.
    pub(crate) fn exec(&self, target: &str, command: &[&str]) -> Output {
        self.exec_command(target, command).output().unwrap()
    }

    /// What the echo client prints, which must succeed.
    pub(crate) fn ask(&self, from: &str, arguments: &[&str]) -> String {
        text_of(self.try_to_ask(from, arguments))
    }

    /// Runs the echo client.
    pub(crate) fn try_to_ask(&self, from: &str, arguments: &[&str]) -> Output {
        self.exec(from, &[&[GAMUT_IN_PODS, "echo", "client"], arguments].concat())
    }

    /// Starts traffic.
    pub(crate) fn load(&self, from: &str, arguments: &[&str]) -> Load {
        Load::start(self, from, arguments)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.output.rest();
            eprintln!("gamut up said:\n{}", self.output.seen());
        }
    }
}

/// Copies a directory with what is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let copied = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &copied);
        } else {
            fs::copy(entry.path(), copied).unwrap();
        }
    }
}

/// Writes beside and renames over, as editors do.
fn save(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Standard output of a program that must have succeeded.
pub(crate) fn text_of(output: Output) -> String {
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The values of a field of the echo app's answers, `Hostname` say, in their order.
pub(crate) fn fields<'a>(answers: &'a str, name: &str) -> Vec<&'a str> {
    let field = |line: &'a str| line.split_once(" body] ")?.1.strip_prefix(name)?.strip_prefix('=');
    answers.lines().filter_map(field).collect()
}

/// The `StatusCode` of the echo client's answers, in their order.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    answers.lines().filter_map(|line| line.split_once("] StatusCode=")?.1.parse().ok()).collect()
}

/// The values of a response header, in the order of the answers.
pub(crate) fn headers<'a>(answers: &'a str, name: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.split_once("] ResponseHeader=")?.1.strip_prefix(name)?.strip_prefix(':');
    answers.lines().filter_map(value).collect()
}
