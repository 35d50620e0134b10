//! The session of a request: what its tokens say, and where they lead.
//!
//! Tokens are opened with the installation's own keys. Whoever can ask for those may know what a token says: of a running
//! instance that is root (the control socket answers nobody else), of manifests whoever has the Secret.

use std::time::SystemTime;

use gamut_controller::index::Index;
use gamut_controller_api::{Body, Endpoint, Key};
use gamut_route::{
    BackendId,
    session::{
        Affinity, cookie,
        token::{Opened, Placement, Unusable},
    },
    table::{Backend, BackendTarget, Carrier, Outcome, Rule, Session},
};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;

use crate::output::Age;

/// What becomes of a session that the request brings nothing for.
const BEGINS: &str = "begins with the answer, which brings a token";

/// A session that the request meets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Effect {
    /// The rule's (route scope), or one backend's (backend scope).
    pub(super) of: String,
    /// The cookie or header that carries it.
    pub(super) carrier: String,
    /// What its tokens are bound to.
    pub(super) scope: String,
    /// What the request brought, in its order.
    pub(super) tokens: Vec<Token>,
    /// What becomes of it.
    pub(super) effect: String,
    /// True if it says where the request goes.
    pub(super) decides: bool,
}

/// A token that the request brought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Token {
    /// Whether it is honoured, or why not: `good`, `malformed`, `foreign`, `expired`.
    pub(super) verdict: &'static str,
    /// The Service or XBackend and the pod that it names, as far as they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) says: Option<String>,
    /// How old it is, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age: Option<i64>,
    /// The id of the key that it was sealed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<u8>,
}

/// Who asks what.
pub(super) struct Request<'a> {
    pub(super) index: &'a Index,
    pub(super) namespace: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) now: SystemTime,
}

/// The sessions that a rule's requests meet: the rule's first, as the sidecar looks at it first.
pub(super) fn effects(request: &Request<'_>, rule: &Rule) -> anyhow::Result<Vec<Effect>> {
    let Outcome::Forward(split) = &rule.outcome else { return Ok(Vec::new()) };
    let mut effects = Vec::new();
    if let Some(session) = &rule.session {
        effects.push(request.effect("the rule", session, &split.backends, &|at, endpoint| match endpoint {
            Some(pod) => format!("goes to {pod} of {at}, whatever the weights"),
            None => format!("its pod is gone: goes to another of {at}, or by the weights where there is none, with a new token"),
        })?);
    }
    for backend in &split.backends {
        let (Some(session), BackendTarget::Endpoints { id, .. }) = (&backend.session, &backend.target) else {
            continue;
        };
        let own = std::slice::from_ref(backend);
        effects.push(request.effect(&id.to_string(), session, own, &|at, endpoint| match endpoint {
            Some(pod) => format!("goes to {pod} whenever the split chooses {at}"),
            None => {
                format!("its pod is gone: goes to any of {at} when the split chooses it, with a new token")
            }
        })?);
    }
    if let [first, others @ ..] = effects.as_mut_slice()
        && first.decides
        && rule.session.is_some()
    {
        others.iter_mut().for_each(|other| other.decides = false);
    }
    Ok(effects)
}

/// Whether a request has anything where a session's tokens are.
fn brings(headers: &HeaderMap, carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Cookie { name, .. } => cookie::values(headers, name).next().is_some(),
        Carrier::Header { name } => headers.contains_key(name.as_str()),
    }
}

impl Request<'_> {
    fn effect(
        &self,
        of: &str,
        session: &Session,
        backends: &[Backend],
        words: &dyn Fn(&BackendId, Option<String>) -> String,
    ) -> anyhow::Result<Effect> {
        let mut effect = Effect {
            of: of.to_owned(),
            carrier: match &session.carrier {
                Carrier::Cookie { name, .. } => format!("cookie {name}"),
                Carrier::Header { name } => format!("header {name}"),
            },
            scope: session.scope.clone(),
            tokens: Vec::new(),
            effect: String::new(),
            decides: false,
        };
        let key =
            Key::SessionKeys { client_namespace: self.namespace.to_owned(), scope: session.scope.clone() };
        let keys = match self.index.body(&key) {
            Body::SessionKeys(keys) if !keys.keys.is_empty() => keys,
            // The Secret is read only if there is something to open.
            _ if !brings(self.headers, &session.carrier) => {
                effect.effect = BEGINS.to_owned();
                return Ok(effect);
            }
            _ => {
                effect.effect = "tokens can't be opened here: Secret gamut-system/gamut-session-keys isn't among the objects, or can't be read".to_owned();
                return Ok(effect);
            }
        };
        let examined = Affinity::new(session, &keys.keys)?.examine(self.headers, self.now);
        effect.tokens = examined.iter().map(|token| self.token(token, backends)).collect();

        let good = examined.iter().filter_map(|token| Some(token.as_ref().ok()?.placement));
        let known: Vec<(&BackendId, Placement)> =
            good.filter_map(|at| Some((id_of(backends, &at)?, at))).collect();
        let there = known.iter().find_map(|(id, at)| Some((*id, self.endpoint(id, at)?.pod?.name)));
        (effect.effect, effect.decides) = match (there, known.first()) {
            (Some((id, pod)), _) => (words(id, Some(pod)), true),
            (None, Some((id, _))) => (words(id, None), false),
            (None, None) if examined.is_empty() => (BEGINS.to_owned(), false),
            (None, None) => ("none of its tokens is honoured: routed as new, and gets one".to_owned(), false),
        };
        Ok(effect)
    }

    fn token(&self, token: &Result<Opened, Unusable>, backends: &[Backend]) -> Token {
        match token {
            Err(why) => Token { verdict: why.as_str(), says: None, age: None, key: None },
            Ok(opened) => {
                let Placement { backend, pod } = opened.placement;
                let says = match id_of(backends, &opened.placement) {
                    None => format!("a backend that the rule doesn't have (uid {backend}), pod uid {pod}"),
                    Some(id) => {
                        match self.endpoint(id, &opened.placement).and_then(|endpoint| endpoint.pod) {
                            Some(pod) => format!("pod {} of {id}", pod.name),
                            None => format!("a pod of {id} that is gone (uid {pod})"),
                        }
                    }
                };
                let seconds = self.now.duration_since(opened.issued).unwrap_or_default().as_secs();
                Token {
                    verdict: "good",
                    says: Some(says),
                    age: i64::try_from(seconds).ok(),
                    key: Some(opened.key),
                }
            }
        }
    }

    /// The endpoint that a placement leads to, as long as it answers.
    fn endpoint(&self, id: &BackendId, at: &Placement) -> Option<Endpoint> {
        let Body::EndpointSet(set) = self.index.body(&Key::EndpointSet(id.clone())) else { return None };
        let is = |endpoint: &&Endpoint| {
            (endpoint.ready || endpoint.serving) && endpoint.pod.as_ref().is_some_and(|pod| pod.uid == at.pod)
        };
        set.endpoints.iter().find(is).cloned()
    }
}

fn id_of<'b>(backends: &'b [Backend], at: &Placement) -> Option<&'b BackendId> {
    backends.iter().find_map(|backend| match &backend.target {
        BackendTarget::Endpoints { id, uid } if *uid == at.backend => Some(id),
        _ => None,
    })
}

impl Token {
    /// The token in one line.
    pub(super) fn in_words(&self) -> String {
        let Self { verdict, says, age, key } = self;
        let mut words = (*verdict).to_owned();
        if let Some(says) = says {
            words.push_str(&format!(": {says}"));
        }
        if let Some(age) = age {
            words.push_str(&format!(", {} old", Age::between(Timestamp::UNIX_EPOCH, at(*age))));
        }
        if let Some(key) = key {
            words.push_str(&format!(", key {key}"));
        }
        words
    }
}

/// So many seconds after the beginning of time.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use gamut_controller::{index::Settings, source::SourceEvent};
    use gamut_manifest::{Object, Origin};
    use gamut_route::{RouteTable, Uid, session::token};
    use serde_json::{Value, json};

    use super::*;

    const V2: &str = "00000000-0000-0000-0000-0000000000b2";
    const POD: &str = "00000000-0000-0000-0000-0000000000c1";

    fn index(secret: bool, backend_scope: bool) -> Index {
        let service = |name: &str, uid: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "uid": uid},
                   "spec": {"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}})
        };
        let scope = if backend_scope { "backend" } else { "route" };
        let mut objects = vec![
            service("web", "00000000-0000-0000-0000-0000000000b0"),
            service("v1", "00000000-0000-0000-0000-0000000000b1"),
            service("v2", V2),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "v2-a", "namespace": "shop", "uid": POD},
                   "spec": {"containers": [{"name": "app"}]},
                   "status": {"podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                   "metadata": {"name": "v2", "namespace": "shop", "labels": {"kubernetes.io/service-name": "v2"}},
                   "ports": [{"name": "http", "port": 8080}],
                   "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "v2-a", "namespace": "shop", "uid": POD}}]}),
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                   "metadata": {"name": "web", "namespace": "shop", "uid": "11111111-1111-1111-1111-111111111111", "annotations": {"gamut.mesh/session-scope": scope}},
                   "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{
                       "name": "split", "sessionPersistence": {"cookie": {"name": "stay"}},
                       "backendRefs": [{"name": "v1", "port": 80, "weight": 90}, {"name": "v2", "port": 80, "weight": 10}]}]}}),
        ];
        if secret {
            objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gamut-session-keys", "namespace": "gamut-system"},
                                "data": {"current": "MQ==", "key-1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}));
        }
        let origin = Origin { file: Arc::new("test".into()), document: 0, line: 1 };
        let applied =
            |value: Value| SourceEvent::Applied(Box::new(Object::from_value(value, &origin).unwrap()));
        let mut index = Index::new(Settings::default());
        index.apply(objects.into_iter().map(applied).chain([SourceEvent::Synced]).collect());
        index
    }

    fn table(index: &Index) -> Arc<RouteTable> {
        let key =
            Key::RouteTable { client_namespace: "shop".to_owned(), service: "shop/web:80".parse().unwrap() };
        let Body::RouteTable(table) = index.body(&key) else { panic!("{key}") };
        table
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400)
    }

    /// A cookie of a session that began three minutes ago.
    fn cookie(session: &Session, pod: &str) -> String {
        let keys = [(1, token::derive(&[0; 32], &session.scope))];
        let mut answer = HeaderMap::new();
        let placement = Placement { backend: Uid::of(V2), pod: Uid::of(pod) };
        let issued = now() - Duration::from_secs(180);
        Affinity::new(session, &keys).unwrap().write(&placement, issued, false, &mut answer).unwrap();
        answer["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn explained(index: &Index, cookies: &[String]) -> Vec<Effect> {
        let headers: HeaderMap = cookies.iter().map(|c| (http::header::COOKIE, c.parse().unwrap())).collect();
        let request = Request { index, namespace: "shop", headers: &headers, now: now() };
        effects(&request, &table(index).http.rules[0]).unwrap()
    }

    #[test]
    fn a_token_is_said_to_name_its_pod_since_when_and_where_it_leads() {
        let index = index(true, false);
        let session = table(&index).http.rules[0].session.clone().unwrap();
        let [effect] =
            explained(&index, &["stay=junk".to_owned(), cookie(&session, POD)]).try_into().unwrap();
        assert_eq!(effect.scope, "route/11111111-1111-1111-1111-111111111111/split");
        assert_eq!(effect.carrier, "cookie stay");
        let words: Vec<String> = effect.tokens.iter().map(Token::in_words).collect();
        assert_eq!(words, ["malformed", "good: pod v2-a of service/shop/v2:80, 3m old, key 1"]);
        assert_eq!(effect.effect, "goes to v2-a of service/shop/v2:80, whatever the weights");
        assert!(effect.decides);
    }

    #[test]
    fn a_pod_that_is_gone_a_foreign_token_and_none_at_all_decide_nothing() {
        let index = index(true, false);
        let session = table(&index).http.rules[0].session.clone().unwrap();
        let foreign = Session { scope: "route/x/other".to_owned(), ..session.clone() };
        for (cookies, verdict, effect) in [
            (
                vec![cookie(&session, "gone")],
                Some("good"),
                "its pod is gone: goes to another of service/shop/v2:80",
            ),
            (vec![cookie(&foreign, POD)], Some("foreign"), "none of its tokens is honoured"),
            (Vec::new(), None, "begins with the answer"),
        ] {
            let [said] = explained(&index, &cookies).try_into().unwrap();
            assert_eq!(said.tokens.first().map(|token| token.verdict), verdict);
            assert!(said.effect.starts_with(effect) && !said.decides, "{said:?}");
        }
    }

    #[test]
    fn in_backend_scope_the_split_comes_first() {
        let index = index(true, true);
        let Outcome::Forward(split) = table(&index).http.rules[0].outcome.clone() else {
            panic!("forwarded")
        };
        let session = split.backends[1].session.clone().unwrap();
        let [v1, v2] = explained(&index, &[cookie(&session, POD)]).try_into().unwrap();
        assert_eq!((v1.of.as_str(), v1.decides), ("service/shop/v1:80", false));
        assert_eq!(v2.effect, "goes to v2-a whenever the split chooses service/shop/v2:80");
    }

    #[test]
    fn without_the_keys_nothing_is_told_and_who_brings_nothing_isnt_told_of_keys() {
        let index = index(false, false);
        for nothing in [vec![], vec!["other=x".to_owned()]] {
            let [said] = explained(&index, &nothing).try_into().unwrap();
            assert_eq!(said.effect, BEGINS);
        }
        let [said] = explained(&index, &["stay=x".to_owned()]).try_into().unwrap();
        assert!(said.tokens.is_empty() && said.effect.contains("gamut-session-keys"), "{said:?}");
    }
}
