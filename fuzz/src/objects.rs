//! Objects that somebody wrote: their text, and what becomes of them in sidecars.

use std::sync::LazyLock;

use gamut_controller::{
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_controller_api::{Body, Key, Packed, Resource};
use gamut_manifest::{Object, fuzz::objects};
use gamut_route::{
    ServicePort,
    decide::{Asked, Decider},
};
use http::{HeaderMap, Method, Uri};

/// What the routes of the inputs may refer to.
static BASE: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let text = include_str!("../../controller/tests/golden/base.yaml");
    objects(text, false).into_iter().collect::<Result<_, _>>().expect("good manifests")
});

/// Manifests, YAML or JSON. An object that is taken says the same when it is read again, from YAML and from JSON alike; an
/// error is about a line that is there.
pub(crate) fn manifest(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let is_json = text.starts_with('{');
    // YAML has one more end of a line than everybody else (YAML 1.2, section 5.4).
    let breaks = text.replace("\r\n", "\n").matches(|c| c == '\n' || (c == '\r' && !is_json)).count();
    let lines = u64::try_from(breaks).expect("a short input") + 1;
    for read in objects(text, is_json) {
        match read {
            Err(error) => {
                let message = error.to_string();
                assert!(!message.contains('\n'), "{message:?}");
                assert!(error.at.is_none_or(|(line, _)| line <= lines), "{message}");
            }
            Ok(object) => {
                assert!(object.origin.line <= lines);
                let again = objects(&object.raw.to_string(), true);
                let [Ok(again)] = again.as_slice() else { panic!("{} became {again:?}", object.raw) };
                assert_eq!((again.id(), &again.raw), (object.id(), &object.raw));
            }
        }
    }
}

/// Routes and whatever else. What the controller makes of them is what its sidecars take: every table opens again as it was
/// packed, and can be asked.
pub(crate) fn routes(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let own = objects(text, text.starts_with('{')).into_iter().filter_map(Result::ok);
    let applied = BASE.iter().cloned().chain(own).map(|object| SourceEvent::Applied(Box::new(object)));
    let mut index = Index::new(Settings::default());
    index.apply(applied.chain([SourceEvent::Synced]).collect());

    for (name, port) in [("web", 80), ("web", 8080), ("web-v1", 80)] {
        for namespace in ["shop", "client"] {
            let service = ServicePort::new("shop", name, port);
            let key = Key::RouteTable { client_namespace: namespace.to_owned(), service };
            let body = index.body(&key);
            let packed = Packed::new(key.clone(), &body);
            let opened =
                Resource::open(key, &packed.wire.version, &packed.wire.body).expect("a table of ours");
            assert_eq!(opened.body, body);
            let Body::RouteTable(table) = &body else { panic!("a table's key has another answer") };
            let decider = Decider::new(table).expect("the controller has checked its matches");
            for uri in ["/", "/a/b?x=1&y=2"].map(Uri::from_static) {
                let asked =
                    Asked { method: &Method::GET, uri: &uri, host: "web.shop", headers: &HeaderMap::new() };
                let _ = decider.decide(&asked);
            }
        }
    }
    for (_, conditions) in index.statuses() {
        assert!(conditions.len() <= 64, "more than a route may have parents");
    }
}
