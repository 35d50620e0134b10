//! A scenario: a mesh, clients that go on calling, what is done to them, and what may come of it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::harness::{
    App, GAMUT_IN_PODS, Lines, Mesh, PATIENCE, app, gamut, namespace, route, service_with, text_of,
};

/// One scenario at a time: the gaps that it measures shall be the mesh's.
static TURN: Mutex<()> = Mutex::new(());

/// How many requests a scenario is at least, unless `GAMUT_CHAOS_REQUESTS` says otherwise.
const REQUESTS: u64 = 2000;

/// What the clients of a scenario may see. Corrupt answers nobody may ever see, and no app the same POST twice.
pub(crate) struct Oracle {
    /// In words.
    pub(crate) says: &'static str,
    /// Whose requests may fail. Never those that are idempotent.
    pub(crate) may_fail: &'static [&'static str],
    /// The one reason for which anybody's may: where the mesh has to fail closed.
    pub(crate) fails_closed: Option<&'static str>,
    /// Whose streams and bodies may end, with an error, after they have begun.
    pub(crate) may_break: &'static [&'static str],
    /// How long each kind of client may go without an answer.
    pub(crate) longest_gap: Duration,
}

/// How many lines about failures a verdict shows.
const SHOWN: usize = 40;

/// Kinds whose requests are streams that live as long as the pod that they ended up in.
pub(crate) const STREAMS: &[&str] = &["grpc", "websocket", "tcp", "slow"];

/// Every kind of client.
pub(crate) const EVERYBODY: &[&str] = &["h1=4", "h2=2", "post=4", "slow=2", "grpc=1", "websocket=1", "tcp=1"];

/// Those whose requests must not come to an app twice, and are answered once each.
const POSTS: [&str; 2] = ["post", "early"];

/// Kinds whose requests may be sent again without harm.
const IDEMPOTENT: [&str; 3] = ["h1", "h2", "slow"];

/// What one kind of client counted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) broken: u64,
    pub(crate) corrupt: u64,
    pub(crate) longest_gap_ms: u64,
}

/// What a scenario is remembered by (README.md says what each number is).
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    scenario: String,
    when: jiff::Timestamp,
    seconds: u64,
    sent: u64,
    answered: u64,
    failed: u64,
    failed_idempotent: u64,
    broken_streams: u64,
    retried: u64,
    longest_gap_ms: u64,
    passed: bool,
    oracle: String,
}

/// Clients of several kinds in the client's pod.
pub(crate) struct Mix {
    child: Child,
    lines: Lines,
    counts: BTreeMap<String, Counts>,
    /// What they said about failures.
    told: Vec<String>,
}

/// A running scenario. [`Scenario::end`] judges it.
pub(crate) struct Scenario {
    name: &'static str,
    pub(crate) mesh: Mesh,
    pub(crate) mix: Mix,
    /// What was found out before the clients began.
    pub(crate) prepared: Vec<String>,
    goal: u64,
    began: Instant,
    _turn: MutexGuard<'static, ()>,
}

/// A shop whose client calls `web`, by this route.
pub(crate) fn shop(web: App, rule: &str) -> Vec<String> {
    shop_of("", web, rule)
}

/// The same, where the client's pod has this annotation.
pub(crate) fn shop_of(annotation: &str, web: App, rule: &str) -> Vec<String> {
    let client = app("client").in_namespace("shop");
    let annotated = format!("    metadata:\n      annotations: {{{annotation}}}\n      labels:\n");
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000, targetPort: 9000, appProtocol: tcp}]";
    vec![
        namespace("shop", "strict"),
        client.replacen("    metadata:\n      labels:\n", &annotated, 1),
        web.in_namespace("shop"),
        service_with("shop", "web", "web", ports, ""),
        route("shop", "web", "name: web, port: 80", &[rule]),
    ]
}

/// The app that the clients call: it gives its streams a second to end when it is told to stop.
pub(crate) fn web(replicas: usize) -> App {
    called("web", replicas).argument("--tcp=9000").argument("--grace=1s")
}

/// An app that writes down which POSTs come to it, where all do.
pub(crate) fn called(name: &str, replicas: usize) -> App {
    let journal = "/run/journal";
    app(name).replicas(replicas).argument(&format!("--journal={journal}")).file(self::journal(), journal)
}

/// A file of this machine, so that what is in it outlives every pod, and a full disk of the node's.
fn journal() -> PathBuf {
    gamut().with_file_name("journal")
}

/// A rule without a `retry` stanza.
pub(crate) const PLAIN: &str = "backendRefs: [{name: web, port: 80}]";

/// A rule whose idempotent requests are tried again also where nobody knows what became of them.
pub(crate) const RETRIED: &str = "backendRefs: [{name: web, port: 80}]\nretry: {attempts: 3, backoff: 10ms}";

impl Oracle {
    /// Nothing fails, nothing breaks, and nobody waits for more than five seconds.
    pub(crate) const fn nothing(says: &'static str) -> Self {
        Self { says, may_fail: &[], fails_closed: None, may_break: &[], longest_gap: Duration::from_secs(5) }
    }
}

impl Scenario {
    /// Starts the mesh, and the clients as soon as it is ready.
    pub(crate) fn begin(
        name: &'static str,
        manifests: &[String],
        environment: &[(&str, &str)],
        clients: &[&str],
    ) -> Self {
        Self::begin_with(name, manifests, environment, clients, |_| Vec::new())
    }

    /// The same, with something that has to be done before anybody calls, and what it found out.
    pub(crate) fn begin_with(
        name: &'static str,
        manifests: &[String],
        environment: &[(&str, &str)],
        clients: &[&str],
        prepare: impl FnOnce(&Mesh) -> Vec<String>,
    ) -> Self {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        fs::write(journal(), "").unwrap();
        let goal = std::env::var("GAMUT_CHAOS_REQUESTS").map_or(REQUESTS, |text| text.parse().unwrap());
        let mesh = Mesh::up_with(manifests, environment);
        let prepared = prepare(&mesh);
        let mut mix = Mix::start(&mesh, clients);
        mix.answered(goal / 20);
        Self { name, mesh, mix, prepared, goal, began: Instant::now(), _turn }
    }

    /// Does its worst, again and again until there were enough requests.
    pub(crate) fn repeat(&mut self, mut worst: impl FnMut(&mut Self)) {
        loop {
            worst(self);
            if self.is_enough() {
                return;
            }
        }
    }

    /// Whether there were enough requests.
    pub(crate) fn is_enough(&mut self) -> bool {
        self.mix.update();
        self.mix.total(|counts| counts.sent) >= self.goal
    }

    /// Lets everything settle, stops the clients, writes down what they counted and compares it with the oracle.
    pub(crate) fn end(self, oracle: &Oracle) {
        let Self { name, mesh, mut mix, goal, began, .. } = self;
        mesh.settle();
        mix.answered(goal / 20);
        let retried = retries(&mesh);
        let told = mix.finish();
        let of = |kinds: &[&str], which: fn(&Counts) -> u64| -> u64 {
            mix.counts.iter().filter(|(kind, _)| kinds.contains(&kind.as_str())).map(|(_, c)| which(c)).sum()
        };
        let mut wrong = seen_by_apps(&mix.counts);
        for (kind, counts) in &mix.counts {
            let may = |kinds: &[&str]| kinds.contains(&kind.as_str());
            let closed = oracle.fails_closed.is_some_and(|reason| {
                let failed = format!("{kind} failed: ");
                let reasons = told.iter().filter(|line| line.starts_with(&failed) && line.contains(reason));
                reasons.count() as u64 == counts.failed
            });
            if counts.answered == 0 {
                wrong.push(format!("{kind} was never answered"));
            }
            if counts.corrupt > 0 {
                wrong.push(format!("{} corrupt answers of {kind}", counts.corrupt));
            }
            let forbidden = IDEMPOTENT.contains(&kind.as_str()) || !may(oracle.may_fail);
            if counts.failed > 0 && forbidden && !closed {
                wrong.push(format!("{} of {} requests of {kind} failed", counts.failed, counts.sent));
            }
            if counts.broken > 0 && !may(oracle.may_break) {
                wrong.push(format!("{} streams of {kind} broke", counts.broken));
            }
            if counts.longest_gap_ms > oracle.longest_gap.as_millis() as u64 {
                wrong.push(format!("{kind} had no answer for {} ms", counts.longest_gap_ms));
            }
        }
        let outcome = Outcome {
            scenario: name.to_owned(),
            when: jiff::Timestamp::now(),
            seconds: began.elapsed().as_secs(),
            sent: mix.total(|counts| counts.sent),
            answered: mix.total(|counts| counts.answered),
            failed: mix.total(|counts| counts.failed),
            failed_idempotent: of(&IDEMPOTENT, |counts| counts.failed),
            broken_streams: mix.total(|counts| counts.broken),
            retried,
            longest_gap_ms: mix.counts.values().map(|counts| counts.longest_gap_ms).max().unwrap_or(0),
            passed: wrong.is_empty(),
            oracle: oracle.says.to_owned(),
        };
        println!("{}", serde_json::to_string(&outcome).unwrap());
        write_down(outcome);
        let told = told[..told.len().min(SHOWN)].join("\n");
        assert!(wrong.is_empty(), "{name}: {wrong:?}, but: {}\n{told}", oracle.says);
    }
}

/// What is wrong with the POSTs that came to apps: those that came twice, and, so that nobody believes an empty journal, answers to some that
/// came to none.
fn seen_by_apps(counts: &BTreeMap<String, Counts>) -> Vec<String> {
    let journal = fs::read_to_string(journal()).unwrap();
    let mut seen = HashSet::new();
    let twice: Vec<&str> = journal.lines().filter(|name| !seen.insert(*name)).collect();
    let mut wrong = Vec::new();
    if let Some(first) = twice.first() {
        wrong.push(format!("{} POSTs came to an app twice, {first} for one", twice.len()));
    }
    for kind in POSTS {
        let came = seen.iter().filter(|name| name.starts_with(&format!("{kind}-"))).count() as u64;
        let answered = counts.get(kind).map_or(0, |counts| counts.answered);
        if came < answered {
            wrong.push(format!("{answered} of {kind} were answered, and only {came} came to an app"));
        }
    }
    wrong
}

impl Mix {
    /// Starts clients of `web`, by kinds and numbers; what begins with `--` is another argument of theirs.
    pub(crate) fn start(mesh: &Mesh, clients: &[&str]) -> Self {
        Self::start_to(mesh, "web", clients)
    }

    /// The same, who call somebody else.
    pub(crate) fn start_to(mesh: &Mesh, host: &str, clients: &[&str]) -> Self {
        let argument = |said: &&str| {
            if said.starts_with("--") { (*said).to_owned() } else { format!("--clients={said}") }
        };
        let clients: Vec<String> = clients.iter().map(argument).collect();
        let mut command = vec![GAMUT_IN_PODS, "echo", "mix", host];
        command.extend(clients.iter().map(String::as_str));
        let mut child = mesh.exec_command("shop/deploy/client", &command);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of("mix", child.stdout.take().unwrap());
        Self { child, lines, counts: BTreeMap::new(), told: Vec::new() }
    }

    /// A sum over all kinds.
    pub(crate) fn total(&self, which: impl Fn(&Counts) -> u64) -> u64 {
        self.counts.values().map(which).sum()
    }

    /// Waits until so many more requests have been answered.
    pub(crate) fn answered(&mut self, more: u64) {
        self.update();
        let wanted = self.total(|counts| counts.answered) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.total(|counts| counts.answered) < wanted {
            assert!(
                Instant::now() < deadline,
                "no {more} answers: {:?}\n{}",
                self.counts,
                self.told.join("\n")
            );
            let (_, line) = self.lines.next().expect("the clients go on");
            self.read(line);
        }
    }

    /// What the clients have said about failures.
    pub(crate) fn told(&self) -> String {
        self.told.join("\n")
    }

    /// Lets the clients go on for a while, which is what a scenario of time is made of.
    pub(crate) fn go_on(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let (_, line) = self.lines.next().expect("the clients go on");
            self.read(line);
        }
    }

    /// The same up to a moment, for schedules that are kept to the millisecond: the clients speak ten times a second.
    pub(crate) fn go_on_until(&mut self, moment: Instant) {
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        self.update();
    }

    /// Takes in what has been printed meanwhile.
    fn update(&mut self) {
        for (_, line) in self.lines.arrived() {
            self.read(line);
        }
    }

    fn finish(&mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        while let Some((_, line)) = self.lines.next() {
            self.read(line);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the clients ended with {status}");
        std::mem::take(&mut self.told)
    }

    fn read(&mut self, line: String) {
        match serde_json::from_str(&line) {
            Ok(counts) => self.counts = counts,
            Err(_) => self.told.push(line),
        }
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a script prints that root runs on the mesh's node, and that must succeed.
pub(crate) fn in_node(mesh: &Mesh, script: &str) -> String {
    text_of(mesh.exec("node", &["sh", "-euc", script]))
}

/// What the client's sidecar counts, for Prometheus.
pub(crate) fn metrics(mesh: &Mesh) -> String {
    text_of(mesh.exec("shop/deploy/client", &["curl", "-s", "http://127.0.0.1:15020/metrics"]))
}

/// Waits until it is so again, which must be within the time that docs/reference/hardening.md states, counted from `begin`.
pub(crate) fn recovers(what: &str, begin: Instant, within: Duration, mut is: impl FnMut() -> bool) {
    while !is() {
        assert!(begin.elapsed() < within, "{what}: not within {within:?}");
        // Whoever is to recover needs the machine too.
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = begin.elapsed();
    assert!(took < within, "{what}: after {took:?}, and not within {within:?}");
    println!("{what}: after {took:?}");
}

/// How often the client's sidecar has tried again, all rules and backends together.
fn retries(mesh: &Mesh) -> u64 {
    let pods = mesh.pods("client");
    let backends = pods.iter().filter_map(|pod| pod.proxy.as_ref()?["backends"].as_array().cloned());
    backends.flatten().filter_map(|backend| backend["retries"].as_u64()).sum()
}

/// Whether this is the long run.
pub(crate) fn is_long() -> bool {
    std::env::var_os("GAMUT_CHAOS_REQUESTS").is_some()
}

/// Puts an outcome in its place in the results: the repository's after a long run, a copy's below `target` otherwise.
fn write_down(outcome: Outcome) {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/chaos/results.json");
    let file = if is_long() {
        committed
    } else {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos-results.json")
    };
    let known = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut outcomes: Vec<Outcome> = known.unwrap_or_default();
    outcomes.retain(|known| known.scenario != outcome.scenario);
    outcomes.push(outcome);
    outcomes.sort_by(|a, b| a.scenario.cmp(&b.scenario));
    fs::write(file, serde_json::to_string_pretty(&outcomes).unwrap() + "\n").unwrap();
}
