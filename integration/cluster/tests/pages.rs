//! Pages about clusters, followed word by word as `integration/e2e/pages.rs` follows those about one machine: every command of a
//! page's `console` blocks runs, in the order of a reader who goes from one page to the next, and what it prints must have the
//! shape of what the page shows ([`console`]).
//!
//! The reader sits in a copy of the repository, and the current context is the test cluster's, which has no way to the internet: what
//! a page has from GitHub comes from the same release's Go module.

#[path = "../../docs/console.rs"]
mod console;

use std::{fs, path::Path, process::Stdio};

use self::console::steps;
use crate::harness::{Cluster, gateway_api_definitions};

/// What pages apply to have the Gateway API.
const DEFINITIONS: &str =
    "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.7.0/experimental-install.yaml";

/// A Deployment from before its namespace is in the mesh.
const EARLIER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: echo, image: gamut.mesh/echo, imagePullPolicy: IfNotPresent}]}
";

/// Somebody with a terminal.
pub(crate) struct Reader<'a> {
    cluster: &'a Cluster,
    directory: tempfile::TempDir,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let reader = Self { cluster, directory };
        for copied in ["charts", "examples"] {
            let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            reader.types(&format!("cp -r {repository}/{copied} ."));
        }
        let definitions: Vec<String> =
            gateway_api_definitions().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        fs::write(reader.directory.path().join("definitions.yaml"), definitions.join("\n---\n")).unwrap();
        reader
    }

    /// What a command prints.
    fn types(&self, command: &str) -> String {
        let command = command.replace(DEFINITIONS, "definitions.yaml");
        let bin = Path::new(env!("CARGO_BIN_EXE_gamut")).parent().unwrap().display();
        let script = format!("PATH={bin}:$PATH\n{{ {command}\n}} 2>&1");
        // Pages wait in loops.
        let mut terminal = self.cluster.inside("timeout");
        terminal.args(["240", "env", "-C"]).arg(self.directory.path());
        terminal.args(["-u", "GAMUT_INSTANCE", "bash", "-c", &script]);
        let output = terminal.stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Does what a page says, or the section of it whose heading begins with `section`, and compares.
    pub(crate) fn follow(&self, page: &str, section: &str) {
        let text = fs::read_to_string(format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let text = match section {
            "" => text.as_str(),
            heading => text.split("\n## ").find(|section| section.starts_with(heading)).expect("the section"),
        };
        let steps = steps(text);
        assert!(!steps.is_empty(), "{page} has lost its commands");
        for step in steps {
            let printed = self.types(&step.command);
            let shown = step.output.join("\n");
            assert!(
                step.is_printed(&printed),
                "$ {}\nprints:\n{printed}\n{page} says:\n{shown}",
                step.command
            );
        }
    }
}

#[test]
fn a_reader_of_the_pages_installs_uses_upgrades_and_uninstalls_the_mesh() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.kubectl(&["delete", "namespace", "shop", "gamut-system"]);
    let reader = Reader::new(&cluster);
    reader.follow("docs/tutorial/cluster.md", "Install");
    reader.follow("docs/tutorial/cluster.md", "A canary");
    reader.follow("docs/tasks/strict-mtls.md", "");
    reader.follow("docs/tasks/upgrade.md", "");
    reader.follow("docs/tasks/rotate-the-root.md", "");
    reader.follow("docs/tutorial/cluster.md", "Away with it");

    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.apply(EARLIER);
    reader.follow("docs/tasks/install.md", "");
    cluster.kubectl(&["delete", "-n", "shop", "deployment/web"]);
}
