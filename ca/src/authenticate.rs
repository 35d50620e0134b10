//! Who a token speaks for: a service account token in, a [`Workload`] out.
//!
//! On a cluster the API server answers that (TokenReview); on one machine [`LocalTokens`] checks what a
//! [`LocalIssuer`](crate::LocalIssuer) signed. Either way a token counts only if it was made for us (audience), is fresh, and
//! is bound to a pod: a token that isn't could be taken from anywhere and prove nothing about who shows it.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gamut_ca_api::AUDIENCE;
use gamut_identity::{Clock, SpiffeError, SpiffeId};
use gamut_route::{NamespacedName, Uid};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far a token's times may be off our clock.
const LEEWAY: Duration = Duration::from_secs(60);

/// What every Kubernetes service account's subject begins with.
pub(crate) const SUBJECT: &str = "system:serviceaccount:";

/// Who is asking, as the token's issuer vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The service account.
    pub id: SpiffeId,
    /// The UID of the pod that the token is bound to.
    pub pod: Uid,
    /// That pod's name, for the audit log.
    pub name: NamespacedName,
}

/// Says who a token speaks for.
pub trait TokenReview: Send + Sync + 'static {
    /// Checks a token: genuine, for the audience `gamut.mesh/ca`, valid now, bound to a pod.
    fn review(&self, token: &str) -> impl Future<Output = Result<Workload, Rejected>> + Send;
}

/// Why a token isn't believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// Not a token of our issuer, or changed on the way.
    #[error("the token isn't one of this cluster's: {0}")]
    NotGenuine(String),
    /// Made by somebody else, with our key.
    #[error("the token's issuer is {0:?}; expected {LOCAL:?}", LOCAL = crate::local_issuer::ISSUER)]
    Issuer(String),
    /// Made for somebody else.
    #[error("the token's audience is {0:?}; expected {AUDIENCE:?}")]
    Audience(Vec<String>),
    /// Too old.
    #[error("the token expired {0} s ago by this machine's clock")]
    Expired(u64),
    /// Not valid yet.
    #[error("the token is valid in {0} s from now by this machine's clock")]
    NotYet(u64),
    /// Not bound to a pod.
    #[error("the token isn't bound to a pod; it must come from a pod's projected volume")]
    NotBound,
    /// Subject and claims contradict each other.
    #[error(
        "the token's subject is {subject:?}, which is not service account {service_account} of namespace {namespace}"
    )]
    Subject {
        /// `sub`.
        subject: String,
        /// `kubernetes.io.namespace`.
        namespace: String,
        /// `kubernetes.io.serviceaccount.name`.
        service_account: String,
    },
    /// A service account that can't be an identity.
    #[error("the token's service account can't be an identity: {0}")]
    Spiffe(#[from] SpiffeError),
    /// Nobody could be asked. The asker may try again.
    #[error("the token can't be checked now: {0}")]
    Unavailable(String),
}

/// A service account token's claims, as Kubernetes shapes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Bound,
}

/// What a token is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    pub(crate) serviceaccount: Reference,
}

/// An object, named twice so that a successor of the same name isn't taken for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Checks the tokens of one local issuer by its public key.
pub struct LocalTokens {
    key: DecodingKey,
    trust_domain: String,
    clock: Clock,
}

impl LocalTokens {
    /// Believes the issuer with this public key (PEM, ECDSA P-256).
    ///
    /// # Errors
    /// If it isn't such a key.
    pub fn new(
        public_key: &[u8],
        trust_domain: &str,
        clock: Clock,
    ) -> Result<Self, jsonwebtoken::errors::Error> {
        Ok(Self { key: DecodingKey::from_ec_pem(public_key)?, trust_domain: trust_domain.to_owned(), clock })
    }

    fn check(&self, token: &str) -> Result<Workload, Rejected> {
        // One algorithm, ours: what the header says is compared with it, not obeyed. The claims are judged below, by our
        // own clock.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = decode::<Claims>(token, &self.key, &validation)
            .map_err(|error| Rejected::NotGenuine(error.to_string()))?
            .claims;
        if claims.iss != crate::local_issuer::ISSUER {
            return Err(Rejected::Issuer(claims.iss));
        }
        if !claims.aud.iter().any(|audience| audience == AUDIENCE) {
            return Err(Rejected::Audience(claims.aud));
        }
        check_times(&claims, self.clock.now())?;

        let Bound { namespace, pod, serviceaccount } = claims.kubernetes;
        if claims.sub != format!("{SUBJECT}{namespace}:{}", serviceaccount.name) {
            return Err(Rejected::Subject {
                subject: claims.sub,
                namespace,
                service_account: serviceaccount.name,
            });
        }
        let pod = pod.filter(|pod| !pod.uid.is_empty()).ok_or(Rejected::NotBound)?;
        Ok(Workload {
            id: SpiffeId::new(&self.trust_domain, &namespace, &serviceaccount.name)?,
            pod: Uid::of(&pod.uid),
            name: NamespacedName::new(namespace, pod.name),
        })
    }
}

impl TokenReview for LocalTokens {
    async fn review(&self, token: &str) -> Result<Workload, Rejected> {
        self.check(token)
    }
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), Rejected> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let leeway = LEEWAY.as_secs();
    if now > claims.exp.saturating_add(leeway) {
        return Err(Rejected::Expired(now - claims.exp));
    }
    if claims.nbf > now.saturating_add(leeway) {
        return Err(Rejected::NotYet(claims.nbf - now));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};

    use super::*;
    use crate::local_issuer::{LocalIssuer, TokenRequest};

    const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";
    const HOUR: Duration = Duration::from_secs(3600);

    fn request() -> TokenRequest<'static> {
        TokenRequest {
            namespace: "shop",
            service_account: "web",
            service_account_uid: "8d3f",
            pod: "web-0",
            pod_uid: POD,
            audience: AUDIENCE,
            lifetime: HOUR,
        }
    }

    fn tokens(issuer: &LocalIssuer, clock: Clock) -> LocalTokens {
        LocalTokens::new(issuer.public_key().as_bytes(), "cluster.local", clock).unwrap()
    }

    fn check(request: &TokenRequest<'_>) -> Result<Workload, Rejected> {
        let issuer = LocalIssuer::generate().unwrap();
        let token = issuer.mint(request, SystemTime::now()).unwrap();
        tokens(&issuer, Clock::system()).check(&token)
    }

    /// Signs claims that the local issuer itself wouldn't.
    fn check_claims(spoil: impl FnOnce(&mut Claims)) -> Result<Workload, Rejected> {
        let key = rcgen::KeyPair::generate().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let reference = |name: &str| Reference { name: name.to_owned(), uid: POD.to_owned() };
        let mut claims = Claims {
            iss: crate::local_issuer::ISSUER.to_owned(),
            sub: "system:serviceaccount:shop:web".to_owned(),
            aud: vec![AUDIENCE.to_owned()],
            iat: now,
            nbf: now,
            exp: now + 3600,
            kubernetes: Bound {
                namespace: "shop".to_owned(),
                pod: Some(reference("web-0")),
                serviceaccount: reference("web"),
            },
        };
        spoil(&mut claims);
        let signing = EncodingKey::from_ec_der(key.serialized_der());
        let token = encode(&Header::new(Algorithm::ES256), &claims, &signing).unwrap();
        LocalTokens::new(key.public_key_pem().as_bytes(), "cluster.local", Clock::system())
            .unwrap()
            .check(&token)
    }

    #[test]
    fn a_pods_own_token_speaks_for_its_service_account_and_pod() {
        let workload = check(&request()).unwrap();
        assert_eq!(workload.id.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(workload.pod, Uid::of(POD));
        assert_eq!(workload.name.to_string(), "shop/web-0");
        assert_eq!(check_claims(|_| {}), Ok(workload));
    }

    #[test]
    fn a_token_for_somebody_else_is_rejected() {
        for audience in ["https://kubernetes.default.svc", "gamut.mesh", "gamut.mesh/ca2", ""] {
            let rejected = check(&TokenRequest { audience, ..request() }).unwrap_err();
            assert_eq!(rejected, Rejected::Audience(vec![audience.to_owned()]));
        }
    }

    #[test]
    fn a_token_is_good_for_its_time_and_a_minute_around_it() {
        let issuer = LocalIssuer::generate().unwrap();
        let token = issuer.mint(&request(), SystemTime::now()).unwrap();
        let at = |clock: Clock| tokens(&issuer, clock).check(&token);
        let (minute, clock) = (Duration::from_secs(60), Clock::system());
        assert!(at(clock.ahead_by(HOUR)).is_ok());
        assert!(at(clock.behind_by(minute / 2)).is_ok());
        assert!(matches!(at(clock.ahead_by(HOUR + 2 * minute)), Err(Rejected::Expired(_))));
        assert!(matches!(at(clock.behind_by(2 * minute)), Err(Rejected::NotYet(_))));
    }

    #[test]
    fn a_token_that_isnt_bound_to_a_pod_is_rejected() {
        assert_eq!(check_claims(|claims| claims.kubernetes.pod = None), Err(Rejected::NotBound));
        let without_uid = |claims: &mut Claims| {
            claims.kubernetes.pod = Some(Reference { name: "web-0".to_owned(), uid: String::new() });
        };
        assert_eq!(check_claims(without_uid), Err(Rejected::NotBound));
    }

    #[test]
    fn claims_that_contradict_each_other_are_rejected() {
        for sub in ["system:serviceaccount:shop:admin", "system:serviceaccount:kube-system:web", "web", ""] {
            let rejected = check_claims(|claims| claims.sub = sub.to_owned()).unwrap_err();
            assert!(matches!(rejected, Rejected::Subject { .. }), "{rejected}");
        }
        let rejected = check_claims(|claims| claims.iss = "https://elsewhere".to_owned()).unwrap_err();
        assert_eq!(rejected, Rejected::Issuer("https://elsewhere".to_owned()));
    }

    #[test]
    fn names_that_cant_be_an_identity_are_rejected() {
        let hostile = |claims: &mut Claims| {
            claims.kubernetes.serviceaccount.name = "web/../admin".to_owned();
            claims.sub = "system:serviceaccount:shop:web/../admin".to_owned();
        };
        assert!(matches!(check_claims(hostile), Err(Rejected::Spiffe(_))));
    }

    #[test]
    fn a_foreign_or_changed_token_is_rejected() {
        let (ours, theirs) = (LocalIssuer::generate().unwrap(), LocalIssuer::generate().unwrap());
        let tokens = tokens(&ours, Clock::system());
        let foreign = theirs.mint(&request(), SystemTime::now()).unwrap();
        assert!(matches!(tokens.check(&foreign), Err(Rejected::NotGenuine(_))));

        let token = ours.mint(&request(), SystemTime::now()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let other = ours.mint(&TokenRequest { namespace: "bank", ..request() }, SystemTime::now()).unwrap();
        let other_claims = other.split('.').nth(1).unwrap();
        for changed in [
            format!("{header}.{other_claims}.{signature}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}"),
            format!("{token}.{signature}"),
            String::new(),
        ] {
            assert!(matches!(tokens.check(&changed), Err(Rejected::NotGenuine(_))), "{changed}");
        }
    }

    #[test]
    fn another_algorithm_is_rejected_even_with_our_public_key_as_its_secret() {
        let issuer = LocalIssuer::generate().unwrap();
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(
            issuer.mint(&request(), SystemTime::now()).unwrap(),
        );
        let secret = EncodingKey::from_secret(issuer.public_key().as_bytes());
        let confused = encode(&Header::new(Algorithm::HS256), &claims.unwrap(), &secret).unwrap();
        let tokens = tokens(&issuer, Clock::system());
        assert!(matches!(tokens.check(&confused), Err(Rejected::NotGenuine(_))));

        let (_, rest) = confused.split_once('.').unwrap();
        // {"alg":"none"}
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", rest.split('.').next().unwrap());
        assert!(matches!(tokens.check(&unsigned), Err(Rejected::NotGenuine(_))));
    }
}
