//! Where certificates come from: [`Issuer`], and [`CaClient`], which asks the CA over gRPC.

use std::{error::Error as _, future::Future, io, path::PathBuf, sync::Arc};

use gamut_ca_api::{CertificateAuthorityClient, bearer, v1::IssueRequest};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use thiserror::Error;
use tonic::Code;

use crate::{
    certificate::CertificateError,
    clock::Clock,
    csr::RequestError,
    explain::{explain, explain_status},
    grpc,
    roots::{Roots, RootsError},
    spiffe::SpiffeId,
    tls,
    verify::{Callee, Servers},
};

/// Answers certificate requests: the CA over the network ([`CaClient`]), or in the same process for its own certificate.
pub trait Issuer: Send + Sync + 'static {
    /// Asks for a certificate once, without retrying. `trusted` are the roots that this workload trusts so far.
    fn issue(
        &self,
        csr: CertificateSigningRequestDer<'static>,
        trusted: Option<Arc<Roots>>,
    ) -> impl Future<Output = Result<Issued, IssueError>> + Send;
}

/// What an issuer answers with.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots of now.
    pub roots: Roots,
}

/// Why there was no certificate this time.
#[derive(Debug, Error)]
pub enum IssueError {
    /// No key or no request could be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The token that proves who we are isn't there.
    #[error("can't read the service account token {path}: {source}", path = path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why it can't be read.
        source: io::Error,
    },
    /// Without roots nobody can say that it is the CA who answers.
    #[error("can't read the mesh's roots from {path}: {reason}", path = path.display())]
    Roots {
        /// Where they should be.
        path: PathBuf,
        /// Why they can't be used.
        reason: String,
    },
    /// No connection, or no TLS with the CA's own identity.
    #[error("can't connect to the CA at {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// Every cause, outermost first.
        reason: String,
    },
    /// It looked at the request and said no, or could not answer.
    #[error("the CA at {address} refused: {message} ({code:?})")]
    Refused {
        /// Host and port.
        address: String,
        /// gRPC's code.
        code: Code,
        /// Its words.
        message: String,
    },
    /// The in-process authority said no.
    #[error("the CA refused: {0}")]
    Local(String),
    /// It didn't answer within this many seconds.
    #[error("the CA didn't answer within {0} s")]
    Timeout(u64),
    /// The roots in its answer.
    #[error("the CA's answer can't be used: {0}")]
    AnswerRoots(#[from] RootsError),
    /// The certificate in its answer.
    #[error(transparent)]
    Answer(#[from] CertificateError),
}

/// The CA over gRPC: our token goes there, inside TLS that only the CA's own identity can have.
#[derive(Clone, Debug)]
pub struct CaClient {
    /// Host and port.
    pub address: String,
    /// Who the CA is.
    pub ca: SpiffeId,
    /// The service account token for the audience `gamut.mesh/ca`, read again for each try: the kubelet replaces it.
    pub token_file: PathBuf,
    /// PEM, read again for each try. Trusted for the connection to the CA beside the roots that we have: a first start has
    /// no others, and after a long outage these may be the newer ones.
    pub roots_file: PathBuf,
    /// Judges the CA's certificate.
    pub clock: Clock,
}

impl Issuer for CaClient {
    async fn issue(
        &self,
        csr: CertificateSigningRequestDer<'static>,
        trusted: Option<Arc<Roots>>,
    ) -> Result<Issued, IssueError> {
        let connect = |reason: String| IssueError::Connect { address: self.address.clone(), reason };
        let token = self.token().await?;
        let roots = self.roots(trusted).await?;

        let roots = Arc::new(Some(Arc::new(roots)).into());
        let servers = Servers { roots, callee: Callee::Exactly(self.ca.clone()) };
        let config = tls::client(servers, None, grpc::ALPN, &self.clock)
            .map_err(|error| connect(error.to_string()))?;
        let endpoint = grpc::endpoint(&self.address).map_err(|error| connect(error.to_string()))?;
        let channel =
            grpc::connect(endpoint, Arc::new(config)).await.map_err(|error| connect(explain(&error)))?;

        let mut request = tonic::Request::new(IssueRequest { csr: csr.to_vec().into() });
        request.metadata_mut().insert("authorization", token);
        let answer = CertificateAuthorityClient::new(channel)
            .max_decoding_message_size(gamut_ca_api::MAX_MESSAGE)
            .issue(request)
            .await
            .map_err(|status| match status.source() {
                // Nobody has said this: the connection has failed.
                Some(_) => connect(explain_status(&status)),
                None => IssueError::Refused {
                    address: self.address.clone(),
                    code: status.code(),
                    message: status.message().to_owned(),
                },
            })?
            .into_inner();
        let der = |bytes: tonic::codegen::Bytes| CertificateDer::from(bytes.to_vec());
        Ok(Issued {
            chain: answer.chain.into_iter().map(der).collect(),
            roots: Roots::new(answer.roots.into_iter().map(der))?,
        })
    }
}

impl CaClient {
    async fn token(&self) -> Result<tonic::metadata::MetadataValue<tonic::metadata::Ascii>, IssueError> {
        let unreadable = |source| IssueError::Token { path: self.token_file.clone(), source };
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(unreadable)?;
        let no_token = || unreadable(io::Error::new(io::ErrorKind::InvalidData, "it holds no token"));
        match token.trim() {
            "" => Err(no_token()),
            token => bearer(token).ok_or_else(no_token),
        }
    }

    async fn roots(&self, trusted: Option<Arc<Roots>>) -> Result<Roots, IssueError> {
        let unusable = |reason: String| IssueError::Roots { path: self.roots_file.clone(), reason };
        let file = match tokio::fs::read(&self.roots_file).await {
            Ok(pem) => Roots::from_pem(&pem).map_err(|error| unusable(error.to_string())),
            Err(error) => Err(unusable(error.to_string())),
        };
        match (file, trusted) {
            (Ok(file), Some(trusted)) => Ok(file.and(&trusted)?),
            (Ok(file), None) => Ok(file),
            (Err(_), Some(trusted)) => Ok(Roots::clone(&trusted)),
            (Err(error), None) => Err(error),
        }
    }
}
