//! `gamut up` itself: commands that it runs, input that it can't use, and what it leaves behind.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use crate::harness::{Lines, Mesh, PATIENCE, app, gamut, namespace, route, service, statuses};
use tempfile::TempDir;

fn shop() -> Vec<String> {
    vec![
        namespace("shop", "strict"),
        app("client").in_namespace("shop"),
        app("web").in_namespace("shop"),
        service("shop", "web"),
        route("shop", "web", "name: web", &["backendRefs: [{name: web, port: 80}]"]),
    ]
}

/// `gamut up OPTIONS -f MANIFEST -- COMMAND`, to its end.
fn up_with(options: &[&str], manifest: &str, command: &[&str]) -> Output {
    let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
    fs::write(directory.path().join("all.yaml"), manifest).unwrap();
    let name = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
    let mut up = Command::new(gamut());
    up.arg("up").args(options).args(["--name", &name, "-f"]).arg(directory.path());
    up.arg("--").args(command).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_command_runs_when_all_is_ready_and_its_status_is_ups_own() {
    let gamut = gamut().display();
    let script = format!("{gamut} exec -n shop deploy/client -- {gamut} echo client http://web/ && exit 7");
    let output = up_with(&[], &shop().concat(), &["sh", "-c", &script]);
    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{out}{log}");
    assert!(out.contains("[0] StatusCode=200"), "{out}{log}");
    assert!(log.contains("ready after"), "it says when everything is ready: {log}");

    let output = up_with(&[], &shop().concat(), &["/no/such/program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
}

#[test]
fn a_command_is_not_run_on_what_is_left_of_broken_manifests() {
    let bad = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: nginx, namespace: shop}\nspec: {containers: [{name: nginx, image: nginx}]}\n";
    let manifest = shop().concat() + bad;
    let output = up_with(&[], &manifest, &["echo", "it ran"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{log}");
    assert!(log.contains("shop/nginx"), "{log}");
    let last = log.lines().next_back().unwrap();
    assert!(last.contains("`echo it ran` was not run: 1 error in the manifests"), "{log}");

    let output = up_with(&["--keep-going"], &manifest, &["echo", "it ran"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"it ran\n"[..]), "{log}");
    assert!(log.contains("ready, with 1 error, after"), "{log}");
}

#[test]
fn a_command_that_succeeds_although_a_route_is_refused_is_not_believed() {
    let lost = route("shop", "lost", "name: nosuch", &["backendRefs: [{name: web, port: 80}]"]);
    let manifest = shop().concat() + &lost;
    let output = up_with(&[], &manifest, &["echo", "it ran"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"it ran\n"[..]), "{log}");
    let before = log.split_once("ready after").unwrap().0;
    assert!(before.contains("HTTPRoute shop/lost: Accepted is False: NoMatchingParent"), "{log}");
    let last = log.lines().next_back().unwrap();
    assert!(last.contains("`echo it ran` succeeded, but not on what is written"), "{log}");

    let output = up_with(&["--keep-going"], &manifest, &["echo", "it ran"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn who_waits_in_vain_hears_what_for_and_why() {
    let slow = app("slow").in_namespace("shop").replace("port: 8080}", "port: 8099}");
    let output = up_with(&["--timeout", "30"], &(shop().concat() + &slow), &["true"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let line =
        log.lines().find(|line| line.contains("not ready after 30 s")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("Deployment shop/slow") && line.contains("readiness probe"), "{line}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_stateful_sets_first_pod_is_entered_its_output_is_read_and_it_knows_its_whole_name() {
    let database = "---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: app, image: db, command: [sh, -c, 'hostname -f; sleep 9999']}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
";
    let mesh = Mesh::up(&[shop(), vec![database.into()]].concat());
    // The pod is ready before it has said anything: whoever follows waits for it.
    let follow = |target: &str| {
        let mut follow = mesh.gamut(&["logs", "-n", "shop", "-f", target]);
        let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
        (Lines::of("gamut logs -f", follow.stdout.take().unwrap()), follow)
    };
    let (mut printed, mut first) = follow("statefulset/db");
    assert_eq!(printed.next().unwrap().1, "db-0.db.shop.svc.cluster.local");
    first.kill().and_then(|()| first.wait()).unwrap();
    let entered = crate::harness::text_of(mesh.exec("shop/statefulset/db", &["hostname"]));
    assert_eq!(entered.trim(), "db-0");
    // Whoever follows gets what was printed before, and then nothing more: until the pod goes.
    let (mut printed, mut second) = follow("db-1");
    printed.until("its own name", |line| line == "db-1.db.shop.svc.cluster.local");
    mesh.edit("all.yaml", "replicas: 2", "replicas: 1");
    assert_eq!(printed.rest(), [""; 0]);
    assert!(second.wait().unwrap().success());
    let sidecar = mesh.run(&["logs", "-n", "shop", "-c", "gamut-proxy", "deploy/web"]);
    assert!(sidecar.contains("INFO"), "{sidecar}");
    let mut in_sidecar = mesh.gamut(&["exec", "-n", "shop", "-c", "gamut-proxy", "deploy/web"]);
    let id = in_sidecar.args(["--", "id", "-u"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), "15001", "{id:?}");
}

#[test]
fn a_job_that_is_over_is_shown_as_such_and_cannot_be_entered() {
    let job = "---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: once, image: once, command: [echo, done]}]}
";
    let mesh = Mesh::up(&[shop(), vec![job.into()]].concat());
    let patience = Instant::now() + PATIENCE;
    let status = loop {
        let status = mesh.run(&["status"]);
        if status.contains("Completed") && status.contains("all 2 sidecars") {
            break status;
        }
        assert!(Instant::now() < patience, "{status}");
    };
    assert!(!status.contains("hasn't started"), "{status}");
    let refused = mesh.exec("shop/job/once", &["true"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("has ended (Succeeded)"), "{message}");
    assert_eq!(mesh.run(&["logs", "-n", "shop", "job/once"]), "done\n");
}

#[test]
fn exec_exits_with_the_programs_status_and_says_what_there_is_when_it_finds_nothing() {
    let mesh = Mesh::up(&shop());
    assert_eq!(mesh.exec("shop/deploy/web", &["sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(mesh.exec("shop/deploy/web", &["no-such-program"]).status.code(), Some(127));
    let hostname = crate::harness::text_of(mesh.exec("shop/deploy/web", &["hostname"]));
    assert_eq!(hostname.trim(), mesh.pods("web")[0].name);
    let of_service = crate::harness::text_of(mesh.exec("shop/svc/web", &["hostname"]));
    assert_eq!(of_service, hostname);
    let bare = mesh.exec("shop/web", &["true"]);
    let message = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(message.contains("there is Deployment web: write deploy/web"), "{message}");
    let nothing = mesh.exec("shop/deploy/nosuch", &["true"]);
    let message = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(
        !nothing.status.success() && message.trim().lines().count() == 1 && message.contains("nosuch"),
        "{message}"
    );
}

#[test]
fn nothing_is_left_however_it_ends() {
    for signal in ["-INT", "-TERM", "-KILL"] {
        let before = Traces::of_this_machine();
        let mut mesh = Mesh::up(&shop());
        let processes = processes_of(&mesh);
        assert!(processes.len() > 10, "{processes:?}");

        let killed =
            Command::new("sh").args(["-c", &format!("kill {signal} {}", mesh.child.id())]).status().unwrap();
        assert!(killed.success());
        let status = mesh.child.wait().unwrap();
        // The end of its output is the end of all that could write there.
        mesh.output.rest();
        if signal == "-KILL" {
            assert_eq!(status.signal(), Some(9));
        } else {
            assert_eq!(status.code(), Some(0), "{signal}: {}", mesh.output.seen());
        }
        let deadline = Instant::now() + PATIENCE;
        while processes.iter().any(|pid| is_alive(*pid)) {
            assert!(Instant::now() < deadline, "{signal}: still alive: {processes:?}");
            std::thread::yield_now();
        }
        assert_eq!(Traces::of_this_machine().without(&before), Traces::default(), "{signal}");
    }
}

/// The host's process ids of everything that runs in an instance, `gamut up` included.
fn processes_of(mesh: &Mesh) -> Vec<u32> {
    let mut family = vec![mesh.child.id()];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, parent_of(pid)?))
        })
        .collect();
    let mut found = 0;
    while found < family.len() {
        let parent = family[found];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        found += 1;
    }
    family
}

/// `None` for a process that isn't there; a zombie isn't.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.next()?.parse().ok() }
}

fn is_alive(pid: u32) -> bool {
    parent_of(pid).is_some()
}

/// What outlives processes: names, mounts, interfaces, rules.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    run: BTreeSet<String>,
}

impl Traces {
    fn of_this_machine() -> Self {
        let names = |directory: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self {
            mounts: mounts.lines().map(str::to_owned).collect(),
            links: names("/sys/class/net"),
            namespaces: names("/run/netns"),
            run: names("/run/gamut"),
        }
    }

    fn without(self, other: &Self) -> Self {
        Self {
            mounts: &self.mounts - &other.mounts,
            links: &self.links - &other.links,
            namespaces: &self.namespaces - &other.namespaces,
            run: &self.run - &other.run,
        }
    }
}

#[test]
fn input_that_cannot_be_used_is_one_clear_line_each_and_the_rest_runs() {
    let image = "---
apiVersion: v1
kind: Pod
metadata: {name: nginx, namespace: shop}
spec: {containers: [{name: nginx, image: nginx}]}
";
    let kind = "---\napiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: typo, namespace: shop}\n";
    // By name the last of the two routes of Service web, so that it loses every request.
    let missing = route("shop", "zlost", "name: web", &["backendRefs: [{name: nosuch, port: 80}]"]);
    let clash = app("web")
        .in_namespace("shop")
        .replace("name: web, namespace", "name: clash, namespace")
        .replace("      containers:", "      containers:\n      - {name: first, image: gamut.mesh/echo}");
    let idle = service("shop", "idle")
        .replace("name: idle,", "name: idle, annotations: {gamut.mesh/opaque-port: '80'},");
    let manifests = [shop(), vec![image.into(), kind.into(), missing, clash, idle]].concat();
    let mut mesh = Mesh::start(&manifests, &[]);
    mesh.save("torn.yaml", "apiVersion: v1\nkind: [Service\n");

    for (what, words) in [
        ("an image without a command", ["all.yaml", "shop/nginx", "image"]),
        ("an unknown kind", ["all.yaml", "Deploymnet", "kind"]),
        ("unreadable YAML", ["torn.yaml:2", "YAML", "error"]),
        ("a port clash", ["shop/clash", "8080", "error"]),
        ("a missing backend", ["all.yaml", "shop/zlost", "nosuch"]),
    ] {
        let is = |line: &str| words.iter().all(|word| line.contains(word));
        let line = mesh.output.find(what, is);
        assert!(line.len() < 400, "{what}: {line}");
    }
    let patience = Instant::now() + PATIENCE;
    while statuses(&String::from_utf8_lossy(&mesh.try_to_ask("shop/deploy/client", &["http://web/"]).stdout))
        != [200]
    {
        assert!(Instant::now() < patience, "what is valid runs");
    }
    // What was printed once is there for who comes later.
    for later in [&["status"][..], &["check", "--proxy"]] {
        let said = mesh.gamut(later).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("shop/idle") && said.contains("gamut.mesh/opaque-port"), "{said}");
    }
    let routes = mesh.run(&["routes", "-n", "shop"]);
    assert!(routes.contains("BackendNotFound") && routes.contains("nosuch"), "{routes}");
}

#[test]
fn without_root_it_says_so_in_one_line() {
    let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
    let (copy, manifest) = (directory.path().join("gamut"), directory.path().join("all.yaml"));
    fs::copy(gamut(), &copy).unwrap();
    fs::write(&manifest, shop().concat()).unwrap();
    open_to_all(directory.path());
    let manifest = manifest.to_str().unwrap();
    let mesh = Mesh::up(&shop());
    for arguments in [&["up", "-f", manifest][..], &["status"], &["routes"], &["exec", "a", "--", "true"]] {
        let mut command = Command::new(&copy);
        command.args(arguments).env("GAMUT_INSTANCE", &mesh.name).uid(65534).gid(65534);
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.trim().lines().count() == 1 && message.contains("needs root"), "{message}");
    }
}

fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_name_that_is_taken_and_a_path_that_is_not_there_are_refused_at_once() {
    let mesh = Mesh::up(&shop());
    let mut again = Command::new(gamut());
    let again = again.args(["up", "--name", &mesh.name, "-f", "/etc/hostname"]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("running already"), "{again:?}");

    let nowhere = Command::new(gamut())
        .args(["up", "--name", "e2e-nowhere", "-f", "/no/such/directory"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(
        !nowhere.status.success()
            && message.contains("/no/such/directory")
            && message.trim().lines().count() == 1,
        "{message}"
    );
}
