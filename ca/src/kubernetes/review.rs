//! TokenReview by the API server: it alone knows which pods and service accounts exist.

use gamut_ca_api::AUDIENCE;
use gamut_identity::SpiffeId;
use gamut_kubernetes::{Cluster, Created, core};
use gamut_route::{NamespacedName, Uid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authenticate::{Rejected, SUBJECT, TokenReview, Workload};

/// Where the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks the API server.
pub(crate) struct ClusterTokens {
    cluster: Cluster,
    trust_domain: String,
}

/// `status` of a TokenReview.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl ClusterTokens {
    pub(crate) fn new(cluster: Cluster, trust_domain: &str) -> Self {
        Self { cluster, trust_domain: trust_domain.to_owned() }
    }
}

impl TokenReview for ClusterTokens {
    async fn review(&self, token: &str) -> Result<Workload, Rejected> {
        let review = json!({
            "apiVersion": core::TOKEN_REVIEW.api_version(),
            "kind": core::TOKEN_REVIEW.kind,
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let answered = self.cluster.create(&core::TOKEN_REVIEW, &review).await;
        match answered.map_err(|error| Rejected::Unavailable(error.to_string()))? {
            Created::New(mut review) => judge(review["status"].take(), &self.trust_domain),
            Created::Existed => Err(Rejected::Unavailable("the API server stores TokenReviews".to_owned())),
        }
    }
}

/// From the API server's answer to whom the token speaks for.
fn judge(status: Value, trust_domain: &str) -> Result<Workload, Rejected> {
    let answer = Answer::deserialize(status)
        .map_err(|error| Rejected::Unavailable(format!("TokenReview: {error}")))?;
    if !answer.authenticated {
        let reason = answer.error.unwrap_or_else(|| "the API server doesn't know it".to_owned());
        return Err(Rejected::NotGenuine(reason));
    }
    // An authenticator that doesn't look at audiences answers without any: then nobody has checked (TokenReviewStatus).
    if !answer.audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(Rejected::Audience(answer.audiences));
    }
    let User { username, extra } = answer.user;
    let account = username.strip_prefix(SUBJECT).and_then(|account| account.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return Err(Rejected::NotGenuine(format!("it is {username:?}'s, who is no service account")));
    };
    let one = |name: &str| match extra.get(name).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value),
        _ => Err(Rejected::NotBound),
    };
    Ok(Workload {
        id: SpiffeId::new(trust_domain, namespace, service_account)?,
        pod: Uid::of(one(POD_UID)?),
        name: NamespacedName::new(namespace, one(POD_NAME)?.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "uid": "1",
                "groups": ["system:serviceaccounts"],
                "extra": {POD_NAME: ["web-0"], POD_UID: [POD]},
            },
        })
    }

    fn judged(spoil: impl FnOnce(&mut Value)) -> Result<Workload, Rejected> {
        let mut status = good();
        spoil(&mut status);
        judge(status, "cluster.local")
    }

    #[test]
    fn a_pods_own_token_speaks_for_its_service_account_and_pod() {
        let workload = judged(|_| {}).unwrap();
        assert_eq!(workload.id.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(workload.pod, Uid::of(POD));
        assert_eq!(workload.name.to_string(), "shop/web-0");
    }

    #[test]
    fn what_the_api_server_refuses_is_rejected_with_its_reason() {
        let rejected = judged(|status| *status = json!({"error": "token expired"})).unwrap_err();
        assert_eq!(rejected, Rejected::NotGenuine("token expired".to_owned()));
        assert!(matches!(judged(|status| *status = json!({})), Err(Rejected::NotGenuine(_))));
        assert!(matches!(judged(|status| *status = Value::Null), Err(Rejected::Unavailable(_))));
    }

    #[test]
    fn an_audience_that_nobody_checked_is_rejected() {
        for audiences in [json!([]), json!(["https://kubernetes.default.svc"])] {
            let rejected = judged(|status| status["audiences"] = audiences);
            assert!(matches!(rejected, Err(Rejected::Audience(_))), "{rejected:?}");
        }
        let rejected = judged(|status| {
            status.as_object_mut().unwrap().remove("audiences");
        });
        assert!(matches!(rejected, Err(Rejected::Audience(_))));
    }

    #[test]
    fn a_token_that_isnt_bound_to_one_pod_is_rejected() {
        for extra in [
            json!({}),
            json!({POD_NAME: ["web-0"]}),
            json!({POD_UID: [POD]}),
            json!({POD_NAME: ["web-0"], POD_UID: [""]}),
            json!({POD_NAME: ["web-0"], POD_UID: [POD, "other"]}),
        ] {
            assert_eq!(
                judged(|status| status["user"]["extra"] = extra.clone()),
                Err(Rejected::NotBound),
                "{extra}"
            );
        }
    }

    #[test]
    fn users_and_names_that_cant_be_an_identity_are_rejected() {
        let named = |name: &str| judged(|status| status["user"]["username"] = name.into());
        for name in ["admin", "", "system:serviceaccount:shop", "system:node:a"] {
            assert!(matches!(named(name), Err(Rejected::NotGenuine(_))), "{name}");
        }
        assert!(matches!(named("system:serviceaccount:shop:web/../admin"), Err(Rejected::Spiffe(_))));
    }
}
