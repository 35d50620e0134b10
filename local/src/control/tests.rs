//! Targets and lines as they are written and read.

use super::*;

#[test]
fn targets_are_read_as_kubectl_reads_them() {
    let deployment = Target::Workload { kind: "Deployment".to_owned(), name: "web".to_owned() };
    assert_eq!("deploy/web".parse::<Target>().unwrap(), deployment);
    assert_eq!("deployment/web".parse::<Target>().unwrap(), deployment);
    assert_eq!("web-1".parse::<Target>().unwrap(), Target::Pod("web-1".to_owned()));
    assert_eq!("pod/node".parse::<Target>().unwrap(), Target::Pod("node".to_owned()));
    assert_eq!("node".parse::<Target>().unwrap(), Target::Node);
    assert_eq!("svc/web".parse::<Target>().unwrap(), Target::Service("web".to_owned()));
    for bad in ["", "deploy/", "deploy/a/b", "rs/web"] {
        assert!(bad.parse::<Target>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_workload_is_written_as_it_is_read_or_not_at_all() {
    assert_eq!(Target::written("Deployment", "web").unwrap(), "deploy/web");
    assert_eq!(Target::written("DaemonSet", "agent").unwrap(), "daemonset/agent");
    assert_eq!(Target::written("ReplicaSet", "web-5d89f6c7"), None);
}

#[test]
fn requests_and_replies_are_single_lines_that_read_back_the_same() {
    let request = Request::Namespaces {
        target: "deploy/web".parse().unwrap(),
        namespace: "demo".to_owned(),
        container: None,
    };
    let line = serde_json::to_string(&request).unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    let reply = Reply::Error("no such pod\nat all".to_owned());
    let line = serde_json::to_string(&reply).unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
}
