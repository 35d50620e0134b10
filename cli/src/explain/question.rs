//! The question: from a URL to a Service, from the Service to its table, through the table to a rule.

use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use gamut_controller_api::{Body, Key};
use gamut_manifest::Object;
use gamut_proxy::http::headers::normalize_request;
use gamut_route::{BackendId, NamespacedName, ServicePort, decide::Asked};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{CONNECTION, HOST, TE, UPGRADE},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Args, Client,
    decision::{Decision, decide},
    remark::{self, Remark},
    session::{self, Effect},
};
use crate::world::{Objects, Place, silence};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// Who answered.
    pub(super) world: Place,
    /// The request in one line.
    pub(super) request: String,
    /// What it is addressed to.
    pub(super) service: String,
    /// What to know beforehand, a line each: the client has no sidecar, say.
    pub(super) notes: Vec<String>,
    /// What isn't in force as it was written, of the routes and policies that are about it.
    pub(super) remarks: Vec<Remark>,
    /// What becomes of it, and why.
    #[serde(flatten)]
    pub(super) decision: Decision,
    /// The sessions that it meets, and what it brings for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<Effect>,
}

/// What becomes of the request of a client in this namespace.
///
/// # Errors
/// The URL names nothing that routes are attached to.
pub(super) fn ask(args: &Args, namespace: &str, mut objects: Objects) -> anyhow::Result<Answer> {
    let uri: Uri = args
        .url
        .parse()
        .with_context(|| format!("{:?} is not a URL; use http://NAME[:PORT]/PATH", args.url))?;
    let authority = uri
        .authority()
        .with_context(|| format!("{:?} has no host; use http://NAME[:PORT]/PATH", args.url))?;
    let scheme =
        uri.scheme_str().with_context(|| format!("{0:?} has no scheme; write http://{0}", args.url))?;
    if !["http", "https"].contains(&scheme) {
        bail!(
            "{:?} is no request that routes are asked about; use http://NAME[:PORT]/PATH, for gRPC with -X POST and /package.Service/Method",
            args.url
        );
    }
    // What isn't a number is kept in the authority, and is no port.
    if uri.port().is_none() && !authority.as_str().trim_end_matches(':').ends_with(authority.host()) {
        bail!("{:?} has a port that is none; use 1 to 65535", args.url);
    }
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let service = service(authority.host(), port, namespace)?;
    let Some(object) = objects.object("Service", &service.service.namespace, &service.service.name) else {
        return Err(no_service(authority.host(), &service.service, &objects));
    };
    check_frontend(object, &service)?;
    check_port(object, &service)?;
    let mut notes = std::mem::take(&mut objects.notes);
    notes.extend(domain_note(authority.host(), &service));
    if let Some(client) = &args.from {
        notes.extend(client_note(client, namespace, &objects)?);
    }

    let key = Key::RouteTable { client_namespace: namespace.to_owned(), service: service.clone() };
    let (world, knows_endpoints) = (objects.world.clone(), objects.has_endpoints());
    let index = objects.into_index();
    let Body::RouteTable(table) = index.body(&key) else {
        bail!("the index has no table for {key}");
    };
    let (headers, gone) = arriving(args.headers.iter().cloned().collect())?;
    notes.extend(gone);
    let asked = Asked { method: &args.method, uri: &uri, host: authority.as_str(), headers: &headers };
    let mut remarks = remark::about(&index, &table, namespace);
    remarks.extend(remark::strays(&index, &table, namespace, &asked));
    let (mut decision, rule) = decide(&table, &asked, remark::of_itself(&remarks))?;
    for candidate in decision.backends.iter_mut().filter(|candidate| knows_endpoints && candidate.share > 0.0)
    {
        candidate.nobody = candidate.backend.parse::<BackendId>().ok().and_then(|id| silence(&index, &id));
    }
    let request = session::Request { index: &index, namespace, headers: &headers, now: SystemTime::now() };
    let sessions = rule.map(|rule| session::effects(&request, rule)).transpose()?.unwrap_or_default();
    Ok(Answer {
        world,
        request: format!("{} {} from a client in namespace {namespace}", args.method, args.url),
        service: format!("Service {}", table.parent),
        notes,
        remarks,
        decision,
        sessions,
    })
}

/// The headers as rules see them, and what the client's sidecar takes away before, by the code that does so there.
///
/// # Errors
/// The sidecar answers such a request itself.
fn arriving(sent: HeaderMap) -> anyhow::Result<(HeaderMap, Option<String>)> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers = sent.clone();
    head.headers.entry(HOST).or_insert(HeaderValue::from_static("host"));
    let wishes = normalize_request(&mut head).map_err(|error| {
        let status = error.reason().status().as_u16();
        anyhow!("the client's sidecar answers {status} before any rule is asked: {error}")
    })?;
    if !sent.contains_key(HOST) {
        head.headers.remove(HOST);
    }
    let is_wish = |name: &HeaderName| {
        (wishes.upgrade.is_some() && [CONNECTION, UPGRADE].contains(name)) || (wishes.trailers && *name == TE)
    };
    let is_gone = |name: &&HeaderName| !head.headers.contains_key(*name) && !is_wish(name);
    let gone: Vec<&str> = sent.keys().filter(is_gone).map(HeaderName::as_str).collect();
    let note = (!gone.is_empty()).then(|| {
        format!(
            "{}: taken away by the client's sidecar, as what is about one connection (RFC 9110 section 7.6.1) or the mesh's own; \
             neither rules nor the app see it",
            gone.join(", ")
        )
    });
    Ok((head.headers, note))
}

/// `web`, `web.shop`, `web.shop.svc` and `web.shop.svc.cluster.local`, as a pod of the namespace resolves them.
fn service(host: &str, port: u16, namespace: &str) -> anyhow::Result<ServicePort> {
    let host = host.to_ascii_lowercase();
    let mut labels = host.trim_end_matches('.').split('.');
    let name = labels.next().filter(|name| !name.is_empty()).context("the URL has no host")?;
    let namespace = labels.next().unwrap_or(namespace);
    match labels.next() {
        None | Some("svc") => Ok(ServicePort::new(namespace, name, port)),
        Some(_) => bail!(
            "{host} is not a Service's name; use NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local"
        ),
    }
}

/// A name of a Service that isn't there resolves to nothing; one that may be a host's outside is called past the mesh.
fn no_service(host: &str, name: &NamespacedName, objects: &Objects) -> anyhow::Error {
    let labels = host.trim_end_matches('.').split('.').count();
    let elsewhere = objects.of_kind("Service").find(|service| service.name == name.name);
    let namespace = elsewhere.and_then(|service| service.namespace.as_deref());
    match (labels, namespace) {
        (1, Some(other)) => {
            anyhow!("there is no Service {name}; there is one in namespace {other}: add -n {other}")
        }
        (1, None) => anyhow!("there is no Service {name}, so {host} names nothing there"),
        (2, _) => anyhow!("there is no Service {name}; if {host} is a host outside, requests pass through"),
        (_, _) => anyhow!("there is no Service {name}, so {host} names nothing"),
    }
}

/// A cluster's DNS domain isn't known here, and a name that ends in another one's is looked up elsewhere.
fn domain_note(host: &str, service: &ServicePort) -> Option<String> {
    let domain = host.trim_end_matches('.').splitn(4, '.').nth(3)?.to_ascii_lowercase();
    (domain != "cluster.local").then(|| {
        format!("taken for Service {}, as it is if this cluster's DNS domain is {domain}", service.service)
    })
}

/// Another name of a host outside has no address of its own: clients call that host.
fn check_frontend(object: &Object, service: &ServicePort) -> anyhow::Result<()> {
    let text = |pointer| object.raw.pointer(pointer).and_then(Value::as_str);
    if text("/spec/type") == Some("ExternalName") {
        bail!(
            "Service {} is another name of {}: its clients call that host, and routes of the Service have no say; \
             as a backend of a route it can be reached",
            service.service,
            text("/spec/externalName").unwrap_or_default()
        );
    }
    Ok(())
}

/// Where a Service has no port, nobody takes requests: there is no table to be asked.
fn check_port(object: &Object, service: &ServicePort) -> anyhow::Result<()> {
    let ports = object.raw.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<u64> = ports.into_iter().flatten().filter_map(|port| port.get("port")?.as_u64()).collect();
    if ports.is_empty() || ports.contains(&service.port.into()) {
        return Ok(());
    }
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    bail!(
        "Service {} has no port {}: the connection is reset (by the sidecar) or refused (without one); its ports: {}",
        service.service,
        service.port,
        ports.join(", ")
    )
}

fn client_note(client: &Client, namespace: &str, objects: &Objects) -> anyhow::Result<Option<String>> {
    let Client { text, kind, name } = client;
    let workload = objects
        .object(kind, namespace, name)
        .with_context(|| format!("there is no {kind} {namespace}/{name}"))?;
    let reason = objects.not_meshed(workload);
    Ok(reason.map(|reason| format!("{text} has no sidecar, so none of this applies to it: {reason}")))
}

#[cfg(test)]
mod tests;
