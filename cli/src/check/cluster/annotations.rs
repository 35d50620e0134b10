//! Labels and annotations of ours that do nothing or too little, or that nobody understands. The API server takes them, and whoever wrote
//! them sees nothing of it.

use std::collections::BTreeMap;

use gamut_controller::{compile::annotation_problems, gateway::Route};
use gamut_injector::faults;
use serde_json::Value;

use super::{
    Facts, Finding,
    facts::{items, name, namespace, text},
    few, unread,
};

const WHAT: &str = "annotations";

/// What becomes of a route, in the words of its conditions.
const OF_ROUTE: &str = "until it is mended, `gamut routes` shows in the route's conditions what is in force";

/// A line for each thing that is wrong, with those of whom it is.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut by_fault: BTreeMap<(bool, String, String), Vec<String>> = BTreeMap::new();
    let lists = [&facts.namespaces, &facts.carriers, &facts.pods];
    let routes = facts.routes.iter().flatten();
    for (kind, route) in routes.clone() {
        for found in annotation_problems(&Route::read(*kind, route)) {
            let what = (false, found, OF_ROUTE.to_owned());
            by_fault.entry(what).or_default().push(called(&route.raw));
        }
    }
    let written = lists.into_iter().flatten().flatten().filter(|object| is_written(object));
    for object in written.chain(routes.map(|(_, route)| &route.raw)) {
        for fault in faults(object) {
            let what = (!fault.is_unreadable(), fault.found(), fault.remedy());
            by_fault.entry(what).or_default().push(called(object));
        }
    }
    let finding = |((is_idle, found, remedy), objects): ((bool, String, String), Vec<String>)| {
        let detail = format!("{}: {found}", few(&objects));
        if is_idle { Finding::warning(WHAT, detail, remedy) } else { Finding::failed(WHAT, detail, remedy) }
    };
    let mut findings: Vec<Finding> = by_fault.into_iter().map(finding).collect();
    // Unread namespaces and pods have their own lines.
    findings.extend(unread(WHAT, &facts.carriers));
    findings.extend(unread(WHAT, &facts.routes));
    if findings.is_empty() && facts.namespaces.is_ok() && facts.pods.is_ok() {
        findings.push(Finding::ok(
            WHAT,
            "all of gamut.mesh/ on namespaces, Services, routes, workloads and pods are known and can be read",
        ));
    }
    findings
}

/// Whether somebody wrote it; what a workload made of its template is told of the workload.
fn is_written(object: &Value) -> bool {
    match text(object, "/kind") {
        "Pod" => items(object, "/metadata/ownerReferences").next().is_none(),
        "Job" => items(object, "/metadata/ownerReferences").all(|owner| text(owner, "/kind") != "CronJob"),
        _ => true,
    }
}

fn called(object: &Value) -> String {
    match (text(object, "/kind"), namespace(object)) {
        (kind, "") => format!("{kind} {}", name(object)),
        (kind, namespace) => format!("{kind} {namespace}/{}", name(object)),
    }
}
