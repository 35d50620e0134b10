//! Somebody who runs our commands and is no administrator: what the role that the page about the command line prints is good for, and what is
//! said to who hasn't all of it.

use std::process::Output;

use crate::{
    harness::{Cluster, until},
    shop::Load,
};

const PERSON: &str = "--as=system:serviceaccount:shop:person";

/// In a cluster with the canary of the README.
pub(crate) fn has_every_command_with_the_role_of_the_page_and_hears_what_it_takes_without(cluster: &Cluster) {
    let page = include_str!("../../../docs/reference/cli.md");
    let (_, role) = page.split_once("```yaml\n").expect("the page has the role");
    let (role, _) = role.split_once("```").expect("the role ends");
    cluster.apply(role);
    cluster.kubectl(&["create", "serviceaccount", "-n", "shop", "person"]);
    let subject = "--serviceaccount=shop:person";
    cluster.kubectl(&["create", "clusterrolebinding", "gamut-user", "--clusterrole=gamut-user", subject]);
    let kubeconfig = cluster.log_in("shop", "person");
    let asks = |command: &[&str]| cluster.gamut(&[command, &["--kubeconfig", &kubeconfig]].concat());
    let forwards = || {
        let can = ["auth", "can-i", "-n", "shop", "create", "pods", "--subresource=portforward", PERSON];
        cluster.try_kubectl(&can).status.success()
    };

    until("the role is in force", forwards);
    let load = Load::start(cluster, &[]);
    for command in [
        &["status"][..],
        &["status", "-A", "-o", "wide"],
        &["routes", "-n", "shop"],
        &["explain", "-n", "shop", "http://web/", "--from", "deploy/client"],
        &["identity"],
        &["tap", "-n", "shop", "svc/web-v1", "--count", "1"],
        &["tap", "-n", "shop", "deploy/client", "--count", "1"],
        &["logs", "-n", "shop", "deploy/client", "--tail", "1"],
        &["inject", "-f", Cluster::CANARY],
        &["check"],
        &["check", "--proxy", "-n", "shop"],
    ] {
        let output = asks(command);
        let (printed, told) = texts(&output);
        assert!(output.status.success(), "{command:?}: {told}{printed}");
        let lacks = ["forbidden", "unknown", "may not be", "can't be"]
            .iter()
            .find(|word| printed.lines().chain(told.lines()).any(|line| line.contains(**word)));
        assert_eq!(lacks, None, "{command:?}: {told}{printed}");
    }

    let without: Vec<&str> = role.lines().filter(|line| !line.contains("pods/portforward")).collect();
    cluster.apply(&without.join("\n"));
    until("nothing is forwarded for them", || !forwards());
    let tap = asks(&["tap", "-n", "shop", "deploy/client", "--count", "1"]);
    let (_, told) = texts(&tap);
    assert_eq!((tap.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("gamut: pod shop/client-"), "{told}");
    assert!(told.contains("can't be tapped: its port may not be forwarded: "), "{told}");
    assert!(told.contains("that takes the permission to create pods/portforward in its namespace"), "{told}");
    // What needs no sidecar is there all the same.
    let status = asks(&["status", "-n", "shop"]);
    let (printed, _) = texts(&status);
    assert!(printed.contains("its sidecar can't be asked: its port may not be forwarded: "), "{printed}");
    assert!(asks(&["logs", "-n", "shop", "deploy/client", "--tail", "1"]).status.success());
    assert!(load.stop().failed.is_empty());

    cluster.kubectl(&["delete", "clusterrole/gamut-user", "clusterrolebinding/gamut-user"]);
    cluster.kubectl(&["delete", "serviceaccount", "-n", "shop", "person"]);
}

/// What a command printed, and what it told on standard error.
fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
