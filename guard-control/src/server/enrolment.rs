//! Requests for certificates enter, certificates leave.
//!
//! Nobody learns here which tokens exist: a wrong one, a used one and an old one get the same answer, after the same time
//! for every one of them, and only so many at once.

use std::{sync::Arc, time::Duration};

use guard_common::{
    api::control::{EnrolRequest, Enrolled, RenewRequest, enrolment_server::Enrolment},
    audit::checkpoint::PublicKey,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::transport::Peer;
use crate::{
    ca::Issued,
    enrol::{Applicant, EnrolError, Registrar},
    store::Store,
};

/// Requests at the same time.
const AT_ONCE: usize = 32;
/// Largest request for a certificate, in bytes.
const MAX_REQUEST: usize = 16 * 1024;
const MAX_NAME: usize = 256;
/// How long somebody with a wrong token waits.
const PENALTY: Duration = Duration::from_millis(500);

/// The enrolment service.
#[derive(Clone)]
pub struct EnrolmentService {
    store: Store,
    /// Nothing where there is no TLS, and so no authority.
    registrar: Option<Arc<Registrar>>,
    places: Arc<Semaphore>,
}

impl EnrolmentService {
    /// Certificates by `registrar`, known to `store`.
    pub fn new(store: Store, registrar: Option<Arc<Registrar>>) -> Self {
        Self { store, registrar, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn registrar(&self) -> Result<&Registrar, Status> {
        self.registrar.as_deref().ok_or_else(|| {
            Status::failed_precondition("this control plane gives no certificates: it needs --listen-tls")
        })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Enrolled>, Status> {
        let registrar = self.registrar()?;
        if peer(&request) == Peer::Plain {
            return Err(Status::failed_precondition("agents enrol over TLS"));
        }
        let _place = self.places.try_acquire().map_err(|_| {
            Status::resource_exhausted("too many agents enrol at the same time: try again in a moment")
        })?;
        let request = request.into_inner();
        let applicant = applicant(&request)?;
        let enrolled = registrar.enrol(&self.store, &request.token, &applicant, &request.request).await;
        if matches!(enrolled, Err(EnrolError::Token)) {
            tracing::warn!(host = applicant.host, "a join token was refused");
            tokio::time::sleep(PENALTY).await;
        }
        Ok(Response::new(answer(registrar, enrolled.map_err(status)?)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Enrolled>, Status> {
        let registrar = self.registrar()?;
        let Peer::Agent(named) = peer(&request) else {
            return Err(Status::unauthenticated("a certificate is renewed by who shows it"));
        };
        let request = request.into_inner().request;
        if request.len() > MAX_REQUEST {
            return Err(Status::invalid_argument("the request for a certificate is too large"));
        }
        let issued = registrar.renew(&self.store, named.agent_id, &named.serial, &request).await;
        Ok(Response::new(answer(registrar, issued.map_err(status)?)))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    request.extensions().get().cloned().unwrap_or(Peer::Nobody)
}

fn applicant(request: &EnrolRequest) -> Result<Applicant, Status> {
    let agent_id = Uuid::try_parse(&request.agent_id).ok().filter(|id| !id.is_nil());
    let agent_id =
        agent_id.ok_or_else(|| Status::invalid_argument("EnrolRequest.agent_id must be a UUID"))?;
    if request.host.len() > MAX_NAME || request.request.len() > MAX_REQUEST {
        return Err(Status::invalid_argument("a field of EnrolRequest is too long"));
    }
    let signing_key = match &request.signing_key[..] {
        [] => None,
        key => Some(PublicKey::from_bytes(key).map_err(|error| Status::invalid_argument(error.to_string()))?),
    };
    Ok(Applicant { agent_id, host: request.host.clone(), signing_key })
}

fn answer(registrar: &Registrar, issued: Issued) -> Enrolled {
    Enrolled {
        certificate: issued.certificate.to_vec(),
        authorities: registrar.authority().certificates().iter().map(|der| der.to_vec()).collect(),
        policy_keys: registrar.policy_key().iter().map(|key| key.as_bytes().to_vec()).collect(),
    }
}

/// What whoever asks may know.
pub(super) fn status(error: EnrolError) -> Status {
    let text = error.to_string();
    match error {
        EnrolError::Token | EnrolError::Unknown => Status::unauthenticated(text),
        EnrolError::Revoked(_) => Status::permission_denied(text),
        EnrolError::Taken(_) => Status::already_exists(text),
        EnrolError::Request(_) | EnrolError::Authority(crate::ca::CaError::Request(_)) => {
            Status::invalid_argument(text)
        }
        EnrolError::Authority(_) | EnrolError::Random => {
            tracing::error!(error = text, "no certificate could be made");
            Status::internal("no certificate could be made: the control plane's log says why")
        }
        EnrolError::Store(_) => Status::unavailable(text),
    }
}
