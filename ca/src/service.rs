//! The one call, from its token to its answer: authenticate, limit, issue, write the audit line.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use gamut_ca_api::{
    CertificateAuthority, token_of,
    v1::{IssueRequest, IssueResponse},
};
use gamut_identity::{Clock, grpc::Caller};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::{
    authenticate::{Rejected, TokenReview, Workload},
    authority::Authority,
    current::Current,
    issue::{Leaf, Refused},
    limit::Limits,
    metrics::{Metrics, Refusal},
};

/// Where the audit log goes: one line for each certificate and for each refusal.
const AUDIT: &str = "gamut_ca::audit";

pub(crate) struct Service<T> {
    authority: Current,
    tokens: T,
    limits: Limits,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl<T: TokenReview> Service<T> {
    pub(crate) fn new(authority: Current, tokens: T, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { authority, tokens, limits: Limits::default(), clock, metrics }
    }

    async fn workload(&self, request: &Request<IssueRequest>) -> Result<Workload, Status> {
        let token = token_of(request.metadata()).ok_or_else(|| {
            self.metrics.refused(Refusal::Token);
            Status::unauthenticated("the call carries no `authorization: Bearer` token")
        })?;
        self.tokens.review(token).await.map_err(|rejected| match rejected {
            Rejected::Unavailable(_) => {
                self.metrics.refused(Refusal::Review);
                Status::unavailable(rejected.to_string())
            }
            _ => {
                self.metrics.refused(Refusal::Token);
                Status::unauthenticated(rejected.to_string())
            }
        })
    }

    fn leaf(
        &self,
        authority: &Authority,
        request: IssueRequest,
        workload: &Workload,
    ) -> Result<Leaf, Status> {
        self.limits.admit(workload.pod, Instant::now()).map_err(|wait| {
            self.metrics.refused(Refusal::Limit);
            let wait = wait.as_secs().max(1);
            Status::resource_exhausted(format!("pod {} asks too often; again in {wait} s", workload.name))
        })?;
        let csr = CertificateSigningRequestDer::from(request.csr.as_ref());
        authority.issue(&csr, &workload.id, Some(workload.pod), self.clock.now()).map_err(|refused| {
            let signing = matches!(refused, Refused::Sign(_));
            self.metrics.refused(if signing { Refusal::Sign } else { Refusal::Request });
            match refused {
                Refused::Sign(_) => Status::internal(refused.to_string()),
                Refused::NotOwn { .. } | Refused::Ca => Status::permission_denied(refused.to_string()),
                _ => Status::invalid_argument(refused.to_string()),
            }
        })
    }
}

#[tonic::async_trait]
impl<T: TokenReview> CertificateAuthority for Service<T> {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        let from = caller.map(|caller| tracing::field::display(caller.address));
        let workload = match self.workload(&request).await {
            Ok(workload) => workload,
            Err(status) => {
                warn!(target: AUDIT, from, "refused: {}", status.message());
                return Err(status);
            }
        };
        let (id, pod, uid) = (&workload.id, &workload.name, &workload.pod);
        let authority = self.authority.load();
        match self.leaf(&authority, request.into_inner(), &workload) {
            Ok(leaf) => {
                let until = jiff::Timestamp::try_from(leaf.not_after).unwrap_or_default();
                self.metrics.issued.fetch_add(1, Relaxed);
                info!(target: AUDIT, serial = leaf.serial, %id, %pod, %uid, %until, from, "issued");
                let bytes = |der: &CertificateDer<'_>| der.to_vec().into();
                Ok(Response::new(IssueResponse {
                    chain: authority.chain(leaf.der).iter().map(bytes).collect(),
                    roots: authority.roots().certificates().iter().map(bytes).collect(),
                }))
            }
            Err(status) => {
                warn!(target: AUDIT, %id, %pod, %uid, from, "refused: {}", status.message());
                Err(status)
            }
        }
    }
}
