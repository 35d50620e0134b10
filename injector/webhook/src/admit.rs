//! What becomes of one pod: [`judge`] decides from what is given, [`admit`] gives it what is known, or what is true now.

use gamut_injector::{Config, InjectError, Injection, KUBE_SYSTEM, Skipped, check_namespace, inject};

use crate::{
    namespaces::{Namespace, Namespaces},
    pod_security,
    review::{Request, Verdict, message},
};

/// Decides about a pod.
///
/// The API server has looked at the labels of pod and namespace before it asked. If what we know of the namespace says that
/// nobody wants a sidecar here, then we are behind, and the namespace is read; if it can't be, the pod is refused.
pub(crate) async fn admit(request: &Request, namespaces: &Namespaces, config: &Config) -> Verdict {
    if let Some(known) = namespaces.get(&request.namespace)
        && let (verdict, Standing::Sure) = judge(request, &known, config)
    {
        return verdict;
    }
    match namespaces.read(&request.namespace).await {
        Ok(namespace) => judge(request, &namespace, config).0,
        Err(reason) => Verdict::Refused(format!(
            "pod {}: whether it gets a sidecar can't be decided, because namespace {} can't be read: {reason}; try again",
            request.name(),
            request.namespace
        )),
    }
}

/// Whether a verdict could be another one in view of a newer namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Sure,
    HangsOnNamespace,
}

/// Decides about a pod of this namespace.
pub(crate) fn judge(request: &Request, namespace: &Namespace, config: &Config) -> (Verdict, Standing) {
    let name = request.name();
    let line = |text: &dyn std::fmt::Display| message(&format!("gamut: pod {name}: {text}"));
    if is_exempt(&request.namespace, config) {
        let reason = match request.namespace.as_str() {
            KUBE_SYSTEM => Skipped::KubeSystem,
            namespace => Skipped::SystemNamespace(namespace.to_owned()),
        };
        return (Verdict::Skipped { reason, warnings: Vec::new() }, Standing::Sure);
    }
    match inject(&request.pod, &namespace.view, config) {
        Ok(Injection::Injected(injected)) => {
            let mut warnings: Vec<String> = injected.warnings.iter().map(|warning| line(warning)).collect();
            warnings.extend(about(namespace).iter().map(|warning| line(warning)));
            (Verdict::Injected { injected: Box::new(injected), warnings }, Standing::Sure)
        }
        Ok(Injection::Skipped(reason)) => {
            let (standing, told) = match reason {
                Skipped::NotSelected(_) | Skipped::Disabled("namespace") => {
                    (Standing::HangsOnNamespace, false)
                }
                Skipped::Disabled(_) | Skipped::SystemNamespace(_) | Skipped::KubeSystem => {
                    (Standing::Sure, false)
                }
                Skipped::StaticPod | Skipped::HostNetwork | Skipped::OperatingSystem(_) => {
                    (Standing::Sure, true)
                }
            };
            let warnings = told.then(|| line(&format_args!("it gets no sidecar: {reason}")));
            (Verdict::Skipped { reason, warnings: warnings.into_iter().collect() }, standing)
        }
        Err(error) => {
            let standing = match error {
                InjectError::Label { object: "namespace", .. } => Standing::HangsOnNamespace,
                _ => Standing::Sure,
            };
            (Verdict::Refused(message(&format!("pod {name}: {error}"))), standing)
        }
    }
}

/// Whether a namespace's pods are left alone: neither one of Kubernetes' own nor one of ours may be kept from starting by us, whatever the webhook's rules or a
/// misspelt label say.
pub(crate) fn is_exempt(namespace: &str, config: &Config) -> bool {
    [KUBE_SYSTEM, &config.system_namespace].contains(&namespace)
}

/// What is odd about a namespace, for who creates a pod with a sidecar in it.
fn about(namespace: &Namespace) -> Vec<String> {
    let name = &namespace.view.name;
    let annotations = check_namespace(&namespace.annotations);
    let annotations = annotations.iter().map(|error| format!("namespace {name}: {error}"));
    annotations.chain(pod_security::warning(name, &namespace.view.labels)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gamut_injector::NamespaceView;
    use serde_json::{Value, json};

    use super::*;
    use crate::review;

    const INJECT: &str = "gamut.mesh/inject";

    fn namespace(labels: &[(&str, &str)]) -> Namespace {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Namespace { view: NamespaceView { name: "shop".to_owned(), labels }, annotations: BTreeMap::new() }
    }

    fn request(pod: Value) -> Request {
        Request { uid: "1".to_owned(), namespace: "shop".to_owned(), dry_run: false, pod }
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web"}]}})
    }

    fn judged(pod: Value, namespace: &Namespace) -> (Verdict, Standing) {
        judge(&request(pod), namespace, &Config::default())
    }

    fn warnings(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Injected { warnings, .. } | Verdict::Skipped { warnings, .. } => warnings,
            Verdict::Refused(message) => panic!("{message}"),
        }
    }

    #[test]
    fn a_pod_of_a_labelled_namespace_gets_its_sidecar() {
        let (verdict, standing) = judged(pod(), &namespace(&[(INJECT, "enabled")]));
        let Verdict::Injected { injected, warnings } = verdict else { panic!("{verdict:?}") };
        assert_eq!((warnings.len(), standing), (0, Standing::Sure));
        assert_eq!(injected.pod["spec"]["initContainers"][1]["name"], "gamut-proxy");
    }

    #[test]
    fn a_no_that_hangs_on_the_namespace_is_looked_at_again_and_the_pods_own_is_not() {
        for labels in [&[][..], &[(INJECT, "disabled")], &[(INJECT, "enalbed")]] {
            assert_eq!(judged(pod(), &namespace(labels)).1, Standing::HangsOnNamespace, "{labels:?}");
        }
        let mut out = pod();
        out["metadata"]["labels"] = json!({INJECT: "disabled"});
        assert_eq!(judged(out, &namespace(&[(INJECT, "enabled")])).1, Standing::Sure);
    }

    #[test]
    fn who_creates_a_pod_without_a_network_of_its_own_is_told_that_it_gets_no_sidecar() {
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = true.into();
        let (verdict, _) = judged(pod, &namespace(&[(INJECT, "enabled")]));
        assert!(matches!(verdict, Verdict::Skipped { reason: Skipped::HostNetwork, .. }));
        let [warning] = &warnings(verdict)[..] else { panic!() };
        assert!(
            warning.starts_with("gamut: pod shop/web: it gets no sidecar: the pod uses the host's network")
        );
    }

    #[test]
    fn what_cant_have_a_sidecar_is_refused_with_pod_field_and_remedy() {
        let mut pod = pod();
        pod["metadata"] =
            json!({"generateName": "web-5d4f-", "annotations": {"gamut.mesh/drain-time": "30"}});
        let (verdict, _) = judged(pod, &namespace(&[(INJECT, "enabled")]));
        let expected = r#"pod shop/web-5d4f-…: annotation gamut.mesh/drain-time: "30" is not a duration such as 30s or 1m30s"#;
        assert_eq!(verdict, Verdict::Refused(expected.to_owned()));
    }

    #[test]
    fn a_refusal_is_short_however_much_the_pod_has_to_say() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({"gamut.mesh/image": "no image \n".repeat(20_000)});
        let (Verdict::Refused(message), _) = judged(pod, &namespace(&[(INJECT, "enabled")])) else {
            panic!()
        };
        assert!(
            message.starts_with("pod shop/web: annotation gamut.mesh/image: ") && message.len() < 1024,
            "{message}"
        );
    }

    #[test]
    fn warnings_name_what_is_odd_about_pod_and_namespace() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({"gamut.mesh/skip-ports": "80"});
        let mut namespace =
            namespace(&[(INJECT, "enabled"), ("pod-security.kubernetes.io/enforce", "restricted")]);
        namespace.annotations = [("gamut.mesh/mtls".to_owned(), "stirct".to_owned())].into();
        let warnings = warnings(judged(pod, &namespace).0);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("annotation gamut.mesh/skip-ports is unknown"));
        assert!(warnings[1].contains("namespace shop: annotation gamut.mesh/mtls: \"stirct\""));
        assert!(warnings[2].contains("enforces Pod Security level restricted"));
    }

    #[test]
    fn kubernetes_own_pods_and_ours_are_never_touched_nor_refused() {
        let mut broken = pod();
        broken["metadata"] = json!({"labels": {INJECT: "oops"}});
        for (namespace_name, pod) in
            [("kube-system", pod()), ("kube-system", broken.clone()), ("gamut-system", broken)]
        {
            let request = Request { namespace: namespace_name.to_owned(), ..request(pod) };
            let (verdict, _) = judge(&request, &namespace(&[(INJECT, "enabled")]), &Config::default());
            let answer = review::answer("1", &verdict);
            assert_eq!(answer["response"], json!({"uid": "1", "allowed": true}));
        }
    }
}
