//! `caBundle`: what the API server knows the injector by.
//!
//! The roots that are published (ConfigMap `gamut-trust-bundle`) go into every webhook of our configuration that calls our
//! Service, and are put back when somebody changes them. All replicas read the same ConfigMap, so that all write the same; and a
//! new root is published, and thus written, before anything is signed with it.
//!
//! What can't be read as roots is reported and changes nothing. The chart never writes this field, so that an upgrade leaves
//! it as it is.

use std::{convert::Infallible, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_identity::{INJECTOR_SERVICE_ACCOUNT, Roots, SYSTEM_NAMESPACE};
use gamut_injector::{ROOTS_CONFIG_MAP, ROOTS_KEY};
use gamut_kubernetes::{Cluster, Event, Replaced, Selection, Watch, core};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tracing::{info, warn};

use crate::{
    follow::{Problems, follow},
    status::CaBundle,
};

/// The name of our MutatingWebhookConfiguration, which the chart makes.
const CONFIGURATION: &str = "gamut-injector";
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Something that is watched.
#[derive(Clone, Debug, PartialEq)]
enum Seen<T> {
    /// Nobody has looked yet.
    NotYet,
    /// There is none.
    Absent,
    /// It is this.
    Is(T),
}

/// Begins to keep the bundle; says how it stands.
pub(crate) fn start(
    cluster: &Cluster,
    problems: &Problems,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<CaBundle> {
    let (tell_roots, roots) = watch::channel(Seen::NotYet);
    let (tell_configuration, configuration) = watch::channel(Seen::NotYet);
    let (tell, state) = watch::channel(CaBundle::Unknown);

    let published = Selection::named(Some(SYSTEM_NAMESPACE), ROOTS_CONFIG_MAP);
    let watch = Watch::new(cluster.clone(), core::CONFIG_MAP, published);
    let noted = problems.clone();
    tasks.spawn(async move {
        let hear = |events| tell_roots.send_modify(|roots| hear_roots(roots, events));
        match follow(watch, "the webhook's caBundle stays as it is", &noted, hear).await {}
    });
    let ours = Selection::named(None, CONFIGURATION);
    let watch = Watch::new(cluster.clone(), core::MUTATING_WEBHOOK_CONFIGURATION, ours);
    let noted = problems.clone();
    tasks.spawn(async move {
        let hear = |events| tell_configuration.send_modify(|seen| hear_configuration(seen, events));
        match follow(watch, "its caBundle isn't looked after meanwhile", &noted, hear).await {}
    });
    let cluster = cluster.clone();
    tasks.spawn(async move { match keep(&cluster, roots, configuration, tell).await {} });
    state
}

/// Writes whenever it is due.
async fn keep(
    cluster: &Cluster,
    mut roots: watch::Receiver<Seen<Roots>>,
    mut configuration: watch::Receiver<Seen<Value>>,
    tell: watch::Sender<CaBundle>,
) -> Infallible {
    loop {
        let (now, written) = (roots.borrow_and_update().clone(), configuration.borrow_and_update().clone());
        let state = write(cluster, now, written).await;
        let again = matches!(state, None | Some(CaBundle::Failed { .. }));
        if let Some(state) = state {
            tell.send_if_modified(|before| {
                let differs = *before != state;
                if differs {
                    report(&state);
                }
                *before = state;
                differs
            });
        }
        tokio::select! {
            // Neither closes: the watches end with this task.
            _ = roots.changed() => {}
            _ = configuration.changed() => {}
            () = sleep(AGAIN), if again => {}
        }
    }
}

/// Writes if it is due, and says how it stands then; `None` if another replica wrote at the same time, most likely the same.
async fn write(cluster: &Cluster, roots: Seen<Roots>, configuration: Seen<Value>) -> Option<CaBundle> {
    let waiting = |reason: String| Some(CaBundle::Waiting { reason });
    let (roots, configuration) = match (roots, configuration) {
        (Seen::NotYet, _) | (_, Seen::NotYet) => return Some(CaBundle::Unknown),
        (Seen::Absent, _) => {
            return waiting(format!(
                "ConfigMap {SYSTEM_NAMESPACE}/{ROOTS_CONFIG_MAP}, which the CA publishes, holds no roots (yet)"
            ));
        }
        (_, Seen::Absent) => {
            return waiting(format!(
                "MutatingWebhookConfiguration {CONFIGURATION} doesn't exist (yet): the API server doesn't ask for sidecars"
            ));
        }
        (Seen::Is(roots), Seen::Is(configuration)) => (roots, configuration),
    };
    let count = roots.certificates().len();
    let written = Some(CaBundle::Written { roots: count });
    match with_bundle(configuration, &STANDARD.encode(roots.to_pem())) {
        (0, _) => waiting(format!(
            "MutatingWebhookConfiguration {CONFIGURATION} calls nothing at Service {SYSTEM_NAMESPACE}/{INJECTOR_SERVICE_ACCOUNT}"
        )),
        (_, None) => written,
        (_, Some(changed)) => match cluster.replace(&core::MUTATING_WEBHOOK_CONFIGURATION, &changed).await {
            Ok(Replaced::Done(_)) => written,
            Ok(Replaced::Outdated) => None,
            Err(error) => Some(CaBundle::Failed { reason: error.to_string() }),
        },
    }
}

/// How many webhooks call us, and the configuration as it should be, if it isn't.
fn with_bundle(mut configuration: Value, bundle: &str) -> (usize, Option<Value>) {
    let (mut ours, mut differ) = (0, false);
    let webhooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        let Some(client) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) else { continue };
        let service =
            |field| client.get("service").and_then(|service| service.get(field)).and_then(Value::as_str);
        if (service("namespace"), service("name")) != (Some(SYSTEM_NAMESPACE), Some(INJECTOR_SERVICE_ACCOUNT))
        {
            continue;
        }
        ours += 1;
        if client.get("caBundle").and_then(Value::as_str) != Some(bundle) {
            client.insert("caBundle".to_owned(), bundle.into());
            differ = true;
        }
    }
    (ours, differ.then_some(configuration))
}

fn report(state: &CaBundle) {
    match state {
        CaBundle::Unknown => {}
        CaBundle::Written { roots } => {
            info!(roots, "the API server knows the webhook by the published roots")
        }
        CaBundle::Waiting { reason } => warn!("{reason}"),
        CaBundle::Failed { reason } => {
            warn!("the caBundle of MutatingWebhookConfiguration {CONFIGURATION} can't be written: {reason}");
        }
    }
}

/// Roots that were good once stay while there are no others: the CA publishes them again.
fn hear_roots(roots: &mut Seen<Roots>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Applied(map) => {
                let pem = map.get("data").and_then(|data| data.get(ROOTS_KEY)).and_then(Value::as_str);
                match Roots::from_pem(pem.unwrap_or_default().as_bytes()) {
                    Ok(read) => *roots = Seen::Is(read),
                    Err(error) => warn!(
                        "ConfigMap {SYSTEM_NAMESPACE}/{ROOTS_CONFIG_MAP}, {ROOTS_KEY}: {error}; the webhook's caBundle stays as it is"
                    ),
                }
            }
            Event::Deleted(_) => {}
            Event::Complete | Event::NotServed if *roots == Seen::NotYet => *roots = Seen::Absent,
            Event::Complete | Event::NotServed => {}
        }
    }
}

fn hear_configuration(configuration: &mut Seen<Value>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Applied(object) => *configuration = Seen::Is(object),
            Event::Deleted(_) => *configuration = Seen::Absent,
            Event::Complete | Event::NotServed if *configuration == Seen::NotYet => {
                *configuration = Seen::Absent;
            }
            Event::Complete | Event::NotServed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use gamut_ca::Authority;
    use gamut_kubernetes::Key;
    use serde_json::json;

    use super::*;

    fn configuration() -> Value {
        let service = json!({"namespace": "gamut-system", "name": "gamut-injector", "path": "/inject"});
        json!({
            "metadata": {"name": CONFIGURATION, "resourceVersion": "7"},
            "webhooks": [
                {"name": "namespace.injector.gamut.mesh", "clientConfig": {"service": service}},
                {"name": "pod.injector.gamut.mesh", "clientConfig": {"service": service, "caBundle": "b2xk"}},
                {"name": "another.example", "clientConfig": {"url": "https://another.example", "caBundle": "dGhlaXJz"}},
            ],
        })
    }

    fn roots_map(pem: &str) -> Event {
        Event::Applied(json!({"metadata": {"name": ROOTS_CONFIG_MAP}, "data": {ROOTS_KEY: pem}}))
    }

    #[test]
    fn each_webhook_of_ours_gets_the_roots_and_a_foreign_one_keeps_its_own() {
        let (ours, changed) = with_bundle(configuration(), "bmV3");
        let changed = changed.unwrap();
        let bundle = |index: usize| &changed["webhooks"][index]["clientConfig"]["caBundle"];
        assert_eq!(
            (ours, bundle(0), bundle(1), bundle(2)),
            (2, &json!("bmV3"), &json!("bmV3"), &json!("dGhlaXJz"))
        );
        assert_eq!(changed["metadata"]["resourceVersion"], "7", "so that nobody's write is undone");
        assert_eq!(with_bundle(changed, "bmV3"), (2, None), "nothing is written that is there");
    }

    #[test]
    fn a_configuration_of_an_odd_shape_is_left_alone() {
        for odd in
            [json!({}), json!({"webhooks": 3}), json!({"webhooks": [null, {"clientConfig": {"service": 1}}]})]
        {
            assert_eq!(with_bundle(odd, "bmV3").0, 0);
        }
    }

    #[test]
    fn roots_stay_when_what_is_published_breaks_or_goes() {
        let pem = Authority::make("cluster.local", SystemTime::now()).unwrap().chain;
        let mut roots = Seen::NotYet;
        hear_roots(&mut roots, vec![Event::Complete]);
        assert_eq!(roots, Seen::Absent);
        hear_roots(&mut roots, vec![roots_map("not PEM")]);
        assert_eq!(roots, Seen::Absent);
        hear_roots(&mut roots, vec![roots_map(&pem)]);
        let good = Seen::Is(Roots::from_pem(pem.as_bytes()).unwrap());
        assert_eq!(roots, good);
        let key = Key { namespace: Some(SYSTEM_NAMESPACE.into()), name: ROOTS_CONFIG_MAP.into() };
        hear_roots(&mut roots, vec![roots_map(""), Event::Deleted(key), Event::Complete]);
        assert_eq!(roots, good);
    }
}
