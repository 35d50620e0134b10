//! What a route says that is allowed and hardly meant. Nothing refuses it, so nobody would hear of it.

use gamut_route::NamespacedName;

use super::{
    GROUP,
    http::HttpFilter,
    route::{BackendRef, ParentRef, Route, Rules},
};

/// A parentRef that names no Service, though one was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedService {
    /// The Service that was meant.
    pub service: NamespacedName,
    /// The field, what is wrong, what to do.
    pub message: String,
}

/// A rule that is in force, and whose requests are answered 500.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutileRule {
    /// Its place in the manifest.
    pub index: usize,
    /// The field, what is wrong, what to do.
    pub message: String,
}

impl Route {
    /// Everything of the kind, a line each; nothing about a route that is for Gateways. `is_service` and `is_gateway` as in
    /// [`Route::missed_services`].
    pub fn doubts(
        &self,
        is_service: impl Fn(&NamespacedName) -> bool,
        is_gateway: impl Fn(&NamespacedName) -> bool,
    ) -> Vec<String> {
        let missed = self.missed_services(is_service, is_gateway).into_iter().map(|missed| missed.message);
        let futile = if self.service_parents().is_empty() { Vec::new() } else { self.futile_rules() };
        missed.chain(futile.into_iter().map(|rule| rule.message)).collect()
    }

    /// The parentRefs whose author meant a Service and named something else: a parentRef without `group` and `kind` is
    /// about a Gateway. An API server fills these in, so that there it must be a Gateway that nobody has made, of a Service's
    /// name. `is_service` says which Services there are, `is_gateway` which Gateways, or yes where that isn't known.
    pub fn missed_services(
        &self,
        is_service: impl Fn(&NamespacedName) -> bool,
        is_gateway: impl Fn(&NamespacedName) -> bool,
    ) -> Vec<MissedService> {
        let parents = self.parents.ok().map(Vec::as_slice).unwrap_or_default();
        let has_service = parents.iter().any(ParentRef::is_service);
        let missed = |(index, parent): (usize, &ParentRef)| {
            let service = parent.target(&self.reference.name.namespace);
            let field = format!("spec.parentRefs[{index}]");
            let message = match (parent.group.as_deref(), parent.kind.as_deref()) {
                _ if parent.is_service() => return None,
                (group, Some("Service")) => format!(
                    "{field}: kind Service of group {} is no Service; write group: \"\" to attach the route to Service {service}",
                    group.unwrap_or(GROUP)
                ),
                (Some(""), None | Some("Gateway")) => format!(
                    "{field}: group \"\" has no Gateways, which kind defaults to; write kind: Service to attach the route to Service {service}"
                ),
                (None | Some(GROUP), None) if !has_service && is_service(&service) => format!(
                    "{field}: without a kind it names a Gateway; write group: \"\" and kind: Service to attach the route to Service {service}"
                ),
                (None | Some(GROUP), Some("Gateway"))
                    if !has_service && is_service(&service) && !is_gateway(&service) =>
                {
                    format!(
                        "{field}: it names a Gateway, which group and kind default to, and there is no Gateway {service}; write group: \"\" \
                         and kind: Service to attach the route to Service {service}"
                    )
                }
                _ => return None,
            };
            Some(MissedService { service, message })
        };
        parents.iter().enumerate().filter_map(missed).collect()
    }

    /// The rules that lead nowhere. "If all entries in BackendRefs are invalid, and there are also no filters specified":
    /// 500, and nothing is wrong with the route (HTTPRouteRule.backendRefs).
    pub fn futile_rules(&self) -> Vec<FutileRule> {
        match &self.rules {
            // The CRD's default is a rule that matches everything.
            Rules::Http(rules) if rules.is_empty() => {
                let message =
                    "spec.rules is empty, so every request is answered 500; write a rule with backendRefs";
                vec![FutileRule { index: 0, message: message.to_owned() }]
            }
            Rules::Http(rules) => {
                let rules = rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.ok()?)));
                let answers = |filter: &HttpFilter| filter.kind == "RequestRedirect";
                let rules = rules.filter(|(_, rule)| !rule.filters.iter().any(answers));
                rules.filter_map(|(index, rule)| futile(index, &rule.backend_refs)).collect()
            }
            Rules::Grpc(rules) => {
                let rules = rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.ok()?)));
                rules.filter_map(|(index, rule)| futile(index, &rule.backend_refs)).collect()
            }
            Rules::Stream(_) | Rules::Unreadable => Vec::new(),
        }
    }
}

fn futile<F>(index: usize, references: &[BackendRef<F>]) -> Option<FutileRule> {
    let message = match references {
        [] => format!(
            "rules[{index}] has no backendRefs and no filter that answers, so requests that it matches are answered 500; name a backend"
        ),
        all if all.iter().all(|reference| reference.weight == Some(0)) => format!(
            "rules[{index}].backendRefs all have weight 0, so requests that it matches are answered 500, except those of sessions; give one a weight"
        ),
        _ => return None,
    };
    Some(FutileRule { index, message })
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::{Object, Origin};
    use gamut_route::RouteKind;
    use serde_json::{Value, json};

    use super::*;

    /// What is doubtful where there are Services shop/web and shop/api.
    fn doubts(parents: Value, rules: Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"parentRefs": parents, "rules": rules},
        });
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
        let route = Route::read(RouteKind::Http, &Object::from_value(object, &origin).unwrap());
        // There is a Gateway that is called as a Service is, and one that isn't.
        let gateways = ["shop/web", "shop/edge"];
        let is_service = |service: &NamespacedName| ["shop/web", "shop/api"].contains(&&*service.to_string());
        route.doubts(is_service, |gateway| gateways.contains(&&*gateway.to_string()))
    }

    #[test]
    fn a_parent_that_was_meant_to_be_a_service_is_told_with_what_to_write() {
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let of = |parents: Value| doubts(parents, rules.clone());
        let kind = "spec.parentRefs[0]: kind Service of group gateway.networking.k8s.io is no Service; write group: \"\" to attach the route to Service shop/web";
        assert_eq!(of(json!([{"name": "web", "kind": "Service"}])), [kind]);
        assert_eq!(of(json!([{"name": "web", "kind": "Service", "group": GROUP}])), [kind]);
        assert!(of(json!([{"name": "web"}]))[0].contains("write group: \"\" and kind: Service"));
        for parent in
            [json!({"name": "nobody", "group": ""}), json!({"name": "web", "group": "", "kind": "Gateway"})]
        {
            let said = of(json!([parent]));
            assert!(said[0].starts_with("spec.parentRefs[0]: group \"\" has no Gateways"), "{said:?}");
        }
    }

    #[test]
    fn a_gateway_that_nobody_made_and_that_is_called_as_a_service_is_was_filled_in_by_the_api_server() {
        let rules = json!([{"backendRefs": [{"name": "api", "port": 80}]}]);
        let filled_in =
            |name: &str| doubts(json!([{"name": name, "group": GROUP, "kind": "Gateway"}]), rules.clone());
        let said = filled_in("api");
        assert!(
            said[0].contains("there is no Gateway shop/api; write group: \"\" and kind: Service"),
            "{said:?}"
        );
        assert!(filled_in("web").is_empty(), "there is one");
        assert!(filled_in("unknown").is_empty(), "there is no such Service");
    }

    #[test]
    fn a_route_for_a_gateway_is_nothing_to_doubt() {
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let service = json!({"group": "", "kind": "Service", "name": "web"});
        for parents in [
            json!([{"name": "edge"}]),
            json!([{"name": "web", "kind": "Gateway", "group": GROUP}]),
            json!([{"name": "web"}, service]),
            json!([service]),
        ] {
            assert!(doubts(parents.clone(), rules.clone()).is_empty(), "{parents}");
        }
    }

    #[test]
    fn a_rule_that_leads_nowhere_is_told_and_a_redirect_leads_somewhere() {
        let of = |rules: Value| doubts(json!([{"group": "", "kind": "Service", "name": "web"}]), rules);
        assert!(of(json!([]))[0].starts_with("spec.rules is empty"));
        let to = |weight: u64| json!({"name": "web", "port": 80, "weight": weight});
        let redirect = json!([{"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}}]);
        let said = of(
            json!([{"filters": redirect}, {}, {"backendRefs": [to(0), to(0)]}, {"backendRefs": [to(0), to(1)]}]),
        );
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("rules[1] has no backendRefs"), "{said:?}");
        assert!(said[1].starts_with("rules[2].backendRefs all have weight 0"), "{said:?}");
    }
}
