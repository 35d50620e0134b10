//! Commands as people meet them: on a terminal, whose screen is read as a person reads it, with colours and without, and with what they
//! exit.
//!
//! The terminal is a real one: script(1), which every Debian has, makes it and passes on what is typed and what is written.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Mesh, PATIENCE, app, gamut, namespace, route, service, text_of};

/// What Ctrl-C sends.
const INTERRUPT: &[u8] = b"\x03";

const SPLIT: &str = "name: split
backendRefs: [{name: web-v1, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]";

fn shop() -> Vec<String> {
    vec![
        namespace("shop", "permissive"),
        app("client").in_namespace("shop"),
        app("web-v1").in_namespace("shop"),
        app("web-v2").in_namespace("shop"),
        service("shop", "web-v1"),
        service("shop", "web-v2"),
        service("shop", "web"),
        route("shop", "web", "name: web", &[SPLIT]),
    ]
}

/// A program on a terminal. Dropping it hangs up.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    receiver: Receiver<Vec<u8>>,
    /// Everything that was written to it.
    written: Vec<u8>,
}

impl Terminal {
    /// Runs `gamut ARGUMENTS`, with these variables.
    fn with(arguments: &str, variables: &[(&str, &str)]) -> Self {
        let command = format!("exec {} {arguments}", gamut().display());
        // Who starts tests in the background of a shell has them ignore Ctrl-C, and all that they start.
        let mut script = Command::new("env");
        script.args(["--default-signal", "script", "--quiet", "--flush", "--return", "--command"]);
        script.args([&command, "/dev/null"]);
        script.env("SHELL", "/bin/sh").env_remove("NO_COLOR").envs(variables.iter().copied());
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut part) {
                if sender.send(part[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, receiver, written: Vec::new() }
    }

    /// The same of a mesh's instance.
    fn of(mesh: &Mesh, arguments: &str) -> Self {
        Self::with(arguments, &[("GAMUT_INSTANCE", &mesh.name)])
    }

    fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits until the screen is as wanted.
    fn until(&mut self, wanted: &str, is: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(&self.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(part) => self.written.extend(part),
                Err(_) => {
                    panic!("not {wanted}, within {PATIENCE:?} or to its end:\n{}", self.screen().join("\n"))
                }
            }
        }
    }

    /// Waits for its end: the exit status.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.written.extend(part),
                // Nobody has the terminal open any more: what is left to do is to exit.
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no end within {PATIENCE:?}:\n{}", self.screen().join("\n"))
                }
            }
        }
    }

    /// Everything that was written, as it was.
    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// What stands on the screen, line by line, as if it were endless.
    fn screen(&self) -> Vec<String> {
        shown(&self.raw())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal shows of what is written to it, as far as our programs have it do anything (ECMA-48): CR, LF, the cursor to the top left
/// (CUP), the rest of the screen (ED) and of the line (EL) away, and colours, which are left out.
fn shown(written: &str) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                lines.resize(lines.len().max(row + 1), Vec::new());
            }
            '\x1b' => match rest.find(char::is_ascii_alphabetic) {
                Some('H') => (row, column) = (0, 0),
                Some('J') => {
                    lines.truncate(row + 1);
                    lines[row].truncate(column);
                }
                Some('K') => lines[row].truncate(column),
                // A colour, or the rest hasn't come yet.
                Some('m') | None => {}
                other => panic!("nobody here writes ESC ... {other:?}: {written:?}"),
            },
            c => {
                let length = lines[row].len().max(column + 1);
                lines[row].resize(length, ' ');
                lines[row][column] = c;
                column += 1;
            }
        }
    }
    let mut lines: Vec<String> = lines.into_iter().map(String::from_iter).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// A process that goes on until this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_last_line_of_up_is_the_split_as_it_is_and_makes_room_for_whatever_else_is_said() {
    let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
    let manifest = directory.path().join("all.yaml");
    fs::write(&manifest, shop().concat()).unwrap();
    let name = format!("e2e-{}-terminal", std::process::id());
    let mut up =
        Terminal::with(&format!("up --no-page --name {name} -f {}", directory.path().display()), &[]);
    up.until("ready", |screen| screen.iter().any(|line| line.starts_with("save a manifest")));
    let said = up.raw();
    assert!(said.contains("\x1b[2mwaiting for "), "it says what it waits for: {said:?}");
    assert!(said.contains("gamut: \x1b[32mready after "), "{said:?}");
    let left = up.screen();
    assert!(left[0].starts_with("gamut: ready after "), "what was waited for is gone: {left:#?}");

    let mut load = Command::new(gamut());
    load.args([
        "exec",
        "-n",
        "shop",
        "deploy/client",
        "--",
        "/run/gamut/bin/gamut",
        "echo",
        "load",
        "http://web/",
    ]);
    let load = load.env("GAMUT_INSTANCE", &name).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let load = Running(load);
    let splits = |line: &str, set: &str| line.starts_with("shop/web split: web-v1:80 ") && line.contains(set);
    up.until("the split", |screen| splits(screen.last().unwrap(), "% (set 90%), web-v2:80 "));

    let beside = manifest.with_extension("new");
    fs::write(&beside, shop().concat().replace("weight: 90", "weight: 10")).unwrap();
    fs::rename(&beside, &manifest).unwrap();
    up.until("the split as it is set now", |screen| {
        splits(screen.last().unwrap(), "% (set 50%), web-v2:80 ")
    });
    let screen = up.screen();
    let reloaded = "gamut: reloaded: changed HTTPRoute shop/web; in effect everywhere after ";
    assert!(screen.iter().any(|line| line.starts_with(reloaded)), "{screen:#?}");
    let others: Vec<&String> = screen.iter().filter(|line| line.contains("(set ")).collect();
    assert_eq!(others.len(), 1, "one line for the split, at the bottom: {screen:#?}");
    drop(load);

    up.types(INTERRUPT);
    assert_eq!(up.end(), Some(0));
    let screen = up.screen();
    assert!(screen.last().unwrap().ends_with("gamut: stopping; once more to end at once"), "{screen:#?}");
    assert!(!screen.iter().any(|line| line.contains("(set ")), "{screen:#?}");
}

#[test]
fn colour_is_for_terminals_and_not_where_somebody_doesnt_want_it_and_the_text_is_the_same() {
    let mesh = Mesh::up(&shop());
    let coloured = |text: &str| text.contains("\x1b[1m");
    let piped = |flags: &[&str], no_color: &str| {
        let mut routes = mesh.gamut(&[&["routes"], flags].concat());
        text_of(routes.env("NO_COLOR", no_color).output().unwrap())
    };
    // The first line says for how long the mesh has been up.
    let text = piped(&[], "");
    let text: Vec<&str> = text.lines().skip(1).collect();
    for (flags, no_color, colour) in [
        ("", "", true),
        ("", "1", false),
        ("--color never", "", false),
        ("--color always", "1", true),
        ("-o json", "", false),
        ("-o yaml", "", false),
    ] {
        let variables = [("GAMUT_INSTANCE", mesh.name.as_str()), ("NO_COLOR", no_color)];
        let mut terminal = Terminal::with(&format!("routes {flags}"), &variables);
        assert_eq!(terminal.end(), Some(0), "{flags}");
        let raw = terminal.raw();
        assert_eq!(coloured(&raw), colour, "routes {flags}, NO_COLOR={no_color}: {raw:?}");
        if !flags.starts_with("-o") {
            assert_eq!(terminal.screen()[1..], text, "{flags}");
        }
    }
    for (flags, no_color, colour) in
        [(&[][..], "", false), (&["--color=always"], "1", true), (&["--color=auto"], "", false)]
    {
        assert_eq!(coloured(&piped(flags, no_color)), colour, "{flags:?}, NO_COLOR={no_color}");
    }
}

#[test]
fn a_watch_on_a_terminal_draws_in_one_place_and_ctrl_c_ends_what_goes_on_with_130() {
    let mesh = Mesh::up(&shop());
    let mut watch = Terminal::of(&mesh, "routes -n shop --watch");
    watch.until("the split", |screen| {
        screen.iter().any(|line| line == "httproute/shop/web, rule split  0.0 requests/s")
    });
    let load = mesh.load("shop/deploy/client", &["http://web/"]);
    let bar = |line: &String| line.starts_with("  web-v1:80  90%  ") && line.contains('#');
    watch.until("a bar", |screen| screen.iter().any(bar));
    load.finish();
    let screen = watch.screen();
    let rules = screen.iter().filter(|line| line.starts_with("httproute/shop/web, rule split")).count();
    assert_eq!(
        (screen[0].split(',').next(), rules),
        (Some(&*format!("instance {}", mesh.name)), 1),
        "{screen:#?}"
    );
    watch.types(INTERRUPT);
    assert_eq!(watch.end(), Some(130));

    for (command, says) in [
        ("tap -n shop deploy/client", "gamut: tapping shop/client-"),
        ("logs -f -n shop -c gamut-proxy deploy/client", "gamut_proxy::run"),
    ] {
        let mut terminal = Terminal::of(&mesh, command);
        terminal.until("it runs", |screen| screen.iter().any(|line| line.contains(says)));
        terminal.types(INTERRUPT);
        assert_eq!(terminal.end(), Some(130), "{command}");
    }
}

#[test]
fn documents_are_the_same_data_and_namespaces_those_that_were_asked_for() {
    let own = [service("gamut-system", "own"), route("gamut-system", "own", "name: own", &["name: own"])];
    let mesh = Mesh::up(&[shop(), own.to_vec()].concat());
    for command in [&["status"][..], &["routes"], &["identity", "-n", "shop", "deploy/client"]] {
        let document = |format: &str| mesh.run(&[command, &["-o", format]].concat());
        let json: Value = serde_json::from_str(&document("json")).unwrap();
        let yaml: Value = serde_saphyr::from_str(&document("yaml")).unwrap();
        // What grows from one question to the next is no field: ages are of the page.
        assert_eq!(yaml, json, "{command:?}");
        assert_eq!(json["world"]["name"], mesh.name.as_str());
    }
    let names = |flags: &[&str]| -> Vec<String> {
        let routes = mesh.run(&[&["routes", "-o", "json"], flags].concat());
        let routes: Value = serde_json::from_str(&routes).unwrap();
        let routes = routes["routes"].as_array().unwrap().iter();
        routes.map(|route| format!("{}/{}", route["namespace"], route["name"]).replace('"', "")).collect()
    };
    assert_eq!(names(&[]), ["shop/web"], "the mesh's own namespace is left out");
    assert_eq!(names(&["-A"]), ["gamut-system/own", "shop/web"]);
    assert_eq!(names(&["-n", "gamut-system"]), ["gamut-system/own"]);
}

#[test]
fn what_failed_exits_with_1_what_cant_be_understood_with_2_and_each_says_why_in_a_line() {
    let mesh = Mesh::up(&shop());
    for (arguments, code, says) in [
        (&["status", "-n", "shop"][..], 0, ""),
        (&["status", "-n", "nowhere"], 1, "gamut: there is no namespace nowhere"),
        (&["routes", "-n", "nowhere"], 1, "gamut: there is no namespace nowhere"),
        (&["identity", "-n", "nowhere"], 1, "gamut: there is no namespace nowhere"),
        (&["check", "--proxy", "-n", "nowhere"], 1, "there is no namespace nowhere"),
        (&["logs", "-n", "shop", "deploy/nobody"], 1, "gamut: "),
        (&["explain", "-n", "shop", "http://web/", "-o", "jsn"], 2, "error: invalid value 'jsn'"),
        (&["status", "-A", "-n", "shop"], 2, "cannot be used with"),
        (&["status", "--nonsense"], 2, "error: unexpected argument '--nonsense'"),
        (&["statsu"], 2, "error: unrecognized subcommand 'statsu'"),
    ] {
        let output = mesh.gamut(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says) && (code != 1 || said.lines().count() == 1), "{arguments:?}: {said}");
        assert_eq!(said.is_empty(), code == 0, "{arguments:?}: {said}");
    }
    // Nobody runs under this name.
    let nobody = Command::new(gamut()).args(["status", "--name", "e2e-nobody"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
}

#[test]
fn a_screen_is_read_as_a_person_reads_it() {
    assert_eq!(shown("one\r\ntwo\r\x1b[Kthree\r\n\x1b[31mred\x1b[0m"), ["one", "three", "red"]);
    assert_eq!(shown("first\r\nmore\r\n\x1b[H\x1b[Jnext\r\n"), ["next"]);
    assert_eq!(shown("abcdef\rxy"), ["xycdef"]);
}
