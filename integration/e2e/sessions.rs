//! Sessions: `examples/sessions`, every way in; the cases that the conformance suite plans (GEP-1619); and a session's
//! life, whatever becomes of pods, Services, rules, sidecars, controller and keys meanwhile.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::harness::{Mesh, assert_no_failure, by_version, fields, headers, statuses, text_of};

const CLIENT: &str = "shop/deploy/client";

/// A user with a session: what they send back, and which pod they were given.
#[derive(Clone, Debug, PartialEq)]
struct User {
    /// A header for the echo client, `cookie:shop-version=TOKEN`.
    header: String,
    pod: String,
}

impl User {
    /// The first request to a URL, whose answer must begin a session in a cookie, or in the header of this name.
    fn begin(mesh: &Mesh, url: &str, header: Option<&str>) -> Self {
        let out = mesh.ask(CLIENT, &[url]);
        let header = match header {
            None => {
                let cookies = headers(&out, "Set-Cookie");
                let [cookie] = cookies[..] else { panic!("one cookie expected: {out}") };
                format!("cookie:{}", cookie.split(';').next().unwrap())
            }
            Some(name) => format!("{name}:{}", headers(&out, &canonical(name))[0]),
        };
        Self { header, pod: fields(&out, "Hostname")[0].to_owned() }
    }

    /// So many requests with the token: who answered.
    fn again(&self, mesh: &Mesh, url: &str, count: usize) -> BTreeSet<String> {
        let out = mesh.ask(CLIENT, &[url, "-H", &self.header, &format!("--count={count}")]);
        let pods = fields(&out, "Hostname");
        assert_eq!(pods.len(), count);
        pods.into_iter().map(str::to_owned).collect()
    }

    /// Whether so many requests all reach the pod of the session.
    fn stays(&self, mesh: &Mesh, url: &str) -> bool {
        self.again(mesh, url, 50) == BTreeSet::from([self.pod.clone()])
    }

    fn version(&self) -> &str {
        if self.pod.starts_with("web-v2") { "v2" } else { "v1" }
    }

    /// One who met this version.
    fn of_version(mesh: &Mesh, url: &str, version: &str) -> Self {
        let mut users = std::iter::repeat_with(|| Self::begin(mesh, url, None));
        users.by_ref().take(200).find(|user| user.version() == version).expect("the split has that version")
    }
}

fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    words.collect::<Vec<_>>().join("-")
}

/// How often the sessions of a route had an outcome, as `gamut status` counts.
fn outcome(mesh: &Mesh, of: &str, outcome: &str) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&mesh.run(&["status", "-o", "json"])).unwrap();
    let rules = status["sessions"].as_array().unwrap();
    let rules = rules.iter().filter(|rule| rule["of"].as_str().unwrap().contains(of));
    rules.filter_map(|rule| rule["outcomes"][outcome].as_u64()).sum()
}

/// The processes of a workload's containers of a role, as the node numbers them.
fn processes(mesh: &Mesh, workload: &str, role: &str) -> Vec<String> {
    let pods = mesh.pods(workload);
    let containers = pods.iter().flat_map(|pod| &pod.containers).filter(|container| container.role == role);
    containers.filter_map(|container| container.pid).map(|pid| pid.to_string()).collect()
}

fn kill_container(mesh: &Mesh, workload: &str, role: &str) {
    let kill = format!("kill -9 {}", processes(mesh, workload, role).join(" "));
    let killed = mesh.exec("node", &["sh", "-c", &kill]);
    assert!(killed.status.success(), "{killed:?}");
}

#[test]
fn every_way_in_begins_a_session_with_the_first_answer_and_keeps_the_pod() {
    let mesh = Mesh::example("sessions");
    for (url, header) in [
        ("http://web/", None),
        ("http://api/", Some("x-session")),
        ("grpc://chat:7070", Some("x-chat-session")),
        ("http://cart/", None),
        ("http://menu/", None),
    ] {
        // Who is a stranger is balanced over all pods. (First, while the sidecar finds all of them equally quick.)
        let name = header.map_or("Set-Cookie".to_owned(), canonical);
        let strangers = mesh.ask(CLIENT, &[url, "--count=100"]);
        assert_eq!(fields(&strangers, "Hostname").into_iter().collect::<BTreeSet<_>>().len(), 4, "{url}");
        assert_eq!(headers(&strangers, &name).into_iter().collect::<BTreeSet<_>>().len(), 100, "{url}");
        // Who is kept stays, and isn't told again.
        let user = User::begin(&mesh, url, header);
        assert!(user.stays(&mesh, url), "{url}: {user:?}");
        let kept = mesh.ask(CLIENT, &[url, "-H", &user.header]);
        assert_eq!(headers(&kept, &name), Vec::<&str>::new(), "{url}");
    }
    assert_eq!(outcome(&mesh, "httproute/shop/web", "kept"), 51);
    assert_eq!(outcome(&mesh, "httproute/shop/web", "started"), 101);
    assert_eq!(outcome(&mesh, "service/shop/cart:80", "kept"), 51);
}

#[test]
fn a_permanent_cookie_ends_with_the_absolute_timeout_and_any_other_with_the_client() {
    let mesh = Mesh::example("sessions");
    let out = mesh.ask(CLIENT, &["http://web/"]);
    let cookie = headers(&out, "Set-Cookie")[0];
    let (attributes, expires) = cookie.rsplit_once("; Expires=").expect(cookie);
    assert!(attributes.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=86400"), "{cookie}");
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(expires).unwrap();
    let left = until.as_second() - jiff::Timestamp::now().as_second();
    assert!((86_400 - 120..=86_400).contains(&left), "{left} s left");

    for url in ["http://cart/", "http://menu/"] {
        let out = mesh.ask(CLIENT, &[url]);
        let cookie = headers(&out, "Set-Cookie")[0];
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    }
}

#[test]
fn sessions_cost_the_sidecar_no_memory_however_many_there_are() {
    let mesh = Mesh::example("sessions");
    let begin = |count: u64| {
        let answers = mesh.load(CLIENT, &["http://web/", &format!("--count={count}")]).finish();
        assert_no_failure(&answers);
    };
    // Connections and buffers, which a sidecar has whatever it is asked.
    begin(3_000);
    let before = mesh.memory_of_sidecar("client");
    begin(10_000);
    let grown = mesh.memory_of_sidecar("client").saturating_sub(before);
    assert_eq!(outcome(&mesh, "httproute/shop/web", "started"), 13_000);
    // A state of its own would be a placement of 32 bytes and what finds it again.
    assert!(grown < 10_000 * 64, "{grown} bytes for 10,000 sessions");
}

#[test]
fn sessions_of_backends_leave_the_split_alone_and_keep_the_pod_inside_each() {
    let mesh = Mesh::example("sessions");
    let load = mesh.load(CLIENT, &["http://desk/", "--cookies", "--count=3000"]);
    let answers = load.finish();
    assert_no_failure(&answers);
    let share = by_version(&answers)["v1"] as f64 / 30.0;
    assert!((share - 70.0).abs() < 5.0, "{share} % got v1");
    for version in ["v1", "v2"] {
        let of_version = answers.iter().filter(|answer| answer.version == version);
        let pods: BTreeSet<&str> = of_version.map(|answer| answer.pod.as_str()).collect();
        assert_eq!(pods.len(), 1, "one user, one pod of {version}: {pods:?}");
    }
    // The namespace is strict: these pods, which no Service names here, were reached over mTLS.
}

#[test]
fn an_upgrade_and_http_requests_share_a_session() {
    let mesh = Mesh::example("sessions");
    let out = mesh.ask(CLIENT, &["ws://web/chat", "--data=hello"]);
    assert_eq!(statuses(&out), [101]);
    let cookie = headers(&out, "Set-Cookie")[0].split(';').next().unwrap().to_owned();
    let header = format!("cookie:{cookie}");
    let answers = mesh.ask(CLIENT, &["http://web/", "-H", &header, "--count=50"]);
    assert_eq!(fields(&answers, "Hostname").into_iter().collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(headers(&answers, "Set-Cookie"), Vec::<&str>::new());
    let upgraded = mesh.ask(CLIENT, &["ws://web/chat", "--data=hello", "-H", &header, "--count=5"]);
    assert_eq!(statuses(&upgraded), [101; 5]);
    assert_eq!(headers(&upgraded, "Set-Cookie"), Vec::<&str>::new(), "kept, so not told again");
    assert_eq!(outcome(&mesh, "httproute/shop/web", "kept"), 55);
}

#[test]
fn hostile_tokens_are_counted_and_routed_as_new() {
    let mesh = Mesh::example("sessions");
    let user = User::begin(&mesh, "http://web/", None);
    let other = User::begin(&mesh, "http://menu/", None).header.replace("menu=", "shop-version=");
    let ten = format!("cookie:{}", ["shop-version=forged"; 10].join("; "));
    for (header, count) in [
        (user.header[..user.header.len() - 1].to_owned(), "malformed"),
        (format!("cookie:shop-version={}", "A".repeat(8000)), "malformed"),
        (ten, "malformed"),
        (other, "foreign"),
    ] {
        let before = outcome(&mesh, "httproute/shop/web", count);
        let out = mesh.ask(CLIENT, &["http://web/", "-H", &header]);
        assert_eq!((statuses(&out), headers(&out, "Set-Cookie").len()), (vec![200], 1), "{header:.60}");
        assert_eq!(outcome(&mesh, "httproute/shop/web", count), before + 1, "{header:.60}");
    }
}

#[test]
fn a_session_outlives_sidecar_controller_and_client_and_a_rotation_of_its_key() {
    let mut mesh = Mesh::example("sessions");
    let user = User::of_version(&mesh, "http://web/", "v2");

    kill_container(&mesh, "client", "sidecar");
    mesh.output.until("the sidecar is dead", |line| line.contains("\"gamut-proxy\" ended by signal 9"));
    mesh.settle();
    assert!(user.stays(&mesh, "http://web/"), "the sidecar keeps nothing");

    let components = mesh.status().components;
    let controller = components.iter().find(|component| component.name == "controller").unwrap();
    mesh.exec("node", &["kill", "-9", &controller.pid.unwrap().to_string()]);
    assert!(user.stays(&mesh, "http://web/"), "nor does it ask anybody");
    mesh.settle();

    // Another pod of the client, with what the first one had in its jar.
    mesh.edit("apps.yaml", "labels: {app: client}", "labels: {app: client, again: \"yes\"}");
    mesh.settle();
    assert!(user.stays(&mesh, "http://web/"));

    rotate(&mesh);
    mesh.settle();
    assert!(user.stays(&mesh, "http://web/"), "the old key still opens");
    let new = User::begin(&mesh, "http://web/", None);
    let said = mesh.run(&["explain", "-n", "shop", "http://web/", "-H", &new.header.replacen(':', ": ", 1)]);
    assert!(said.contains("key 200"), "the new one seals: {said}");
}

/// Puts a new key into the Secret, and lets it seal.
fn rotate(mesh: &Mesh) {
    const FILE: &str = "/run/gamut/cluster/Secret/gamut-system.gamut-session-keys.json";
    let secret = text_of(mesh.exec("node", &["cat", FILE]));
    let mut secret: serde_json::Value = serde_json::from_str(&secret).unwrap();
    secret["data"]["key-200"] = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=".into();
    secret["data"]["current"] = "MjAw".into();
    let script = format!("cat > {FILE}.new <<'END'\n{secret}\nEND\nmv {FILE}.new {FILE}");
    text_of(mesh.exec("node", &["sh", "-c", &script]));
    // The controller has read it when a sidecar says so: a new token is no longer of key 1.
    for _ in 0..1000 {
        let user = User::begin(mesh, "http://web/", None);
        let said =
            mesh.run(&["explain", "-n", "shop", "http://web/", "-H", &user.header.replacen(':', ": ", 1)]);
        if said.contains("key 200") {
            return;
        }
    }
    panic!("the new key never sealed");
}

#[test]
fn a_rollout_moves_a_user_only_when_their_pod_goes_and_says_how_many() {
    let mesh = Mesh::example("sessions");
    let mut user = mesh.load(CLIENT, &["http://web/", "--cookies"]);
    user.more(50);
    // What changes is new pods' environment, for both versions: every pod is replaced, one after the other.
    mesh.edit(
        "apps.yaml",
        "        - name: VERSION",
        "        - name: ROLLED\n          value: out\n        - name: VERSION",
    );
    mesh.settle();
    user.more(50);
    let answers = user.finish();
    assert_no_failure(&answers);
    assert_eq!(by_version(&answers).len(), 1, "the version is kept");
    let mut pods: Vec<&str> = answers.iter().map(|answer| answer.pod.as_str()).collect();
    pods.dedup();
    let distinct: BTreeSet<&str> = pods.iter().copied().collect();
    assert!(pods.len() > 1, "every pod was replaced");
    assert_eq!(pods.len(), distinct.len(), "nobody comes back to where they were moved from: {pods:?}");
    assert_eq!(outcome(&mesh, "httproute/shop/web", "moved"), pods.len() as u64 - 1);
    assert_eq!(outcome(&mesh, "httproute/shop/web", "started"), 1);
}

#[test]
fn a_pod_that_its_service_no_longer_selects_keeps_its_users_and_gets_no_others() {
    let mesh = Mesh::example("sessions");
    let user = User::of_version(&mesh, "http://web/", "v1");
    mesh.edit("apps.yaml", "  selector: {app: web, version: v1}", "  selector: {app: web, version: v2}");
    mesh.settle();
    let strangers = mesh.ask(CLIENT, &["http://web/", "--count=50"]);
    assert!(fields(&strangers, "ServiceVersion").iter().all(|version| *version == "v2"));
    assert!(user.stays(&mesh, "http://web/"));

    mesh.edit(
        "apps.yaml",
        "  name: web-v1\n  namespace: shop\nspec:\n  replicas: 2",
        "  name: web-v1\n  namespace: shop\nspec:\n  replicas: 0",
    );
    mesh.settle();
    let pods = user.again(&mesh, "http://web/", 50);
    assert!(pods.iter().all(|pod| pod.starts_with("web-v2")), "their pod is gone: {pods:?}");
}

#[test]
fn a_rule_that_is_edited_or_away_for_a_while_has_its_users_back_and_a_renamed_one_has_new_ones() {
    let mesh = Mesh::example("sessions");
    let user = User::of_version(&mesh, "http://web/", "v2");
    mesh.edit("http-route.yaml", "    backendRefs:\n", "    timeouts: {request: 10s}\n    backendRefs:\n");
    mesh.settle();
    assert!(user.stays(&mesh, "http://web/"), "edited");

    mesh.edit("http-route.yaml", "kind: HTTPRoute", "kind: ReferenceGrant");
    mesh.settle();
    assert_eq!(
        headers(&mesh.ask(CLIENT, &["http://web/", "-H", &user.header]), "Set-Cookie"),
        Vec::<&str>::new()
    );
    mesh.edit("http-route.yaml", "kind: ReferenceGrant", "kind: HTTPRoute");
    mesh.settle();
    assert!(user.stays(&mesh, "http://web/"), "removed and back");

    mesh.edit("http-route.yaml", "name: split", "name: renamed");
    mesh.settle();
    let out = mesh.ask(CLIENT, &["http://web/", "-H", &user.header]);
    assert_eq!(headers(&out, "Set-Cookie").len(), 1, "renamed: another session");
    assert_eq!(outcome(&mesh, "rule renamed", "foreign"), 1);
}

#[test]
fn explain_says_what_a_token_says_and_status_counts() {
    let mesh = Mesh::example("sessions");
    let user = User::of_version(&mesh, "http://web/", "v2");
    assert!(user.stays(&mesh, "http://web/"));
    let header = user.header.replacen(':', ": ", 1);
    let said = mesh.run(&["explain", "-n", "shop", "http://web/", "-H", &header]);
    let goes = format!(
        "session of the rule in cookie shop-version: goes to {} of service/shop/web-v2:80, whatever the weights",
        user.pod
    );
    assert!(said.contains(&goes), "{said}");
    assert!(
        said.contains("/split\n") && said.contains(&format!("token good: pod {} of", user.pod)),
        "{said}"
    );
    let status = mesh.run(&["status"]);
    assert!(status.contains("SESSIONS OF") && status.contains("httproute/shop/web, rule split"), "{status}");
}

#[test]
fn what_cannot_be_honoured_is_refused_with_a_condition_that_says_how_to_mend_it() {
    let mesh = Mesh::example("sessions");
    let conditions = |mesh: &Mesh| {
        mesh.settle();
        mesh.run(&["routes", "-o", "json"])
    };
    for (file, from, to, says) in [
        ("http-route.yaml", "      absoluteTimeout: 24h\n", "", "absoluteTimeout is missing"),
        (
            "xbackend.yaml",
            "type: EndpointSelector",
            "type: ExternalHostname",
            "ExternalHostname isn't supported; use EndpointSelector",
        ),
        ("xbackend.yaml", "name: desk-v2\n---", "name: desk-v1\n---", "give each its own name"),
        (
            "apps.yaml",
            "  name: web-v1\n  namespace: shop\nspec:\n  selector",
            "  name: web-v1\n  namespace: shop\nspec:\n  sessionAffinity: ClientIP\n  selector",
            "sessionAffinity: ClientIP",
        ),
    ] {
        let before = fs::read_to_string(mesh.directory().join(file)).unwrap();
        assert!(!conditions(&mesh).contains(says), "{says}");
        mesh.edit(file, from, to);
        assert!(conditions(&mesh).contains(says), "{says}: {}", conditions(&mesh));
        mesh.save(file, &before);
    }
}

#[test]
fn clients_in_two_languages_carry_a_session_on() {
    let mesh = Mesh::example("sessions");
    let clients =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/session-clients").canonicalize().unwrap();
    let built = tempfile::tempdir().unwrap();
    let carry = built.path().join("carry");
    let python = which("python3", "--version")
        .map(|python| vec![python, clients.join("carry.py").display().to_string()]);
    let go = which("go", "version").map(|go| {
        let built = Command::new(go)
            .args(["build", "-o"])
            .arg(&carry)
            .arg(".")
            .current_dir(clients.join("carry"))
            .output();
        text_of(built.unwrap());
        vec![carry.display().to_string()]
    });
    let tried = [python, go].into_iter().flatten().map(|command| {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let run = |arguments: &[&str]| text_of(mesh.exec(CLIENT, &[&command, arguments].concat()));
        let pods: BTreeSet<String> = run(&["http://api/", "30"]).lines().map(str::to_owned).collect();
        assert_eq!(pods.len(), 1, "{command:?}");

        // A service in between, in the same pod: it forgets nothing because it keeps nothing.
        let script = format!("{} --serve 9999 http://api/ & trap \"kill $!\" EXIT; until curl -sf -o /dev/null http://127.0.0.1:9999/; do :; done; {} http://127.0.0.1:9999/ 30", command.join(" "), command.join(" "));
        let out = text_of(mesh.exec(CLIENT, &["bash", "-c", &script]));
        let pods: BTreeSet<&str> = out.lines().collect();
        assert_eq!(pods.len(), 1, "{command:?} in between: {out}");
    });
    if tried.count() == 0 {
        eprintln!("neither python3 nor go is installed here");
    }
}

/// Where a program is, if it runs with this argument.
fn which(program: &str, probe: &str) -> Option<String> {
    let script = format!("{program} {probe} >/dev/null 2>&1 && command -v {program}");
    let out = Command::new("bash").args(["-c", &script]).output().ok()?;
    let path = String::from_utf8(out.stdout).ok()?;
    path.lines().next().filter(|line| line.starts_with('/')).map(str::to_owned)
}

#[test]
fn the_page_about_sessions_shows_what_the_examples_have() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/tasks/sessions.md")).unwrap();
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n");
    for (language, file) in
        [("python", "examples/session-clients/carry.py"), ("go", "examples/session-clients/carry/main.go")]
    {
        let shown = page.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
        let program = fs::read_to_string(root.join(file)).unwrap();
        assert!(lines(&program).contains(lines(shown).trim()), "{file} doesn't have\n{shown}");
    }
    let links = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    for link in links.filter(|link| !link.is_empty()) {
        assert!(root.join("docs/tasks").join(link).exists(), "{link}");
    }
    // Every example is on the page.
    for example in fs::read_dir(root.join("examples/sessions")).unwrap() {
        let name = example.unwrap().file_name().into_string().unwrap();
        assert!(name == "apps.yaml" || page.contains(&name), "{name}");
    }
}
