//! What goes wrong, as people read it: a page with the way on. What only operators should know goes to the log.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use crate::{
    console::page,
    people::{PeopleError, Right},
    policy::PublishError,
    proof::ProveError,
    reading::ReadingError,
    server::approvals::Unanswered,
    store::StoreError,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody has signed in; the page that they wanted.
    #[error("sign in first")]
    NotSignedIn(String),
    /// A password has to be chosen before anything else.
    #[error("choose a password of your own first")]
    MustChange,
    /// They may not.
    #[error("you may not do this: it is for {}", .0.held_by())]
    Forbidden(Right),
    /// The form is not one that this session was given.
    #[error("this form is too old, or not from here: go back, reload the page and send it again")]
    Form,
    /// There is no such thing.
    #[error("there is no {0} here")]
    NotFound(&'static str),
    /// It makes no sense.
    #[error("{0}")]
    Bad(String),
    /// Too often.
    #[error("too many requests from your address: wait a moment")]
    TooMany,
    /// The store can't.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record can't be read.
    #[error(transparent)]
    Reading(#[from] ReadingError),
    /// People's book can't.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// The agent can't.
    #[error(transparent)]
    Agent(#[from] Unanswered),
    /// Policies are not published or handed out.
    #[error(transparent)]
    Policy(PublishError),
    /// There is no proof.
    #[error(transparent)]
    Proof(ProveError),
    /// The identity provider can't, or said no.
    #[error("signing in elsewhere has failed: {0}")]
    Elsewhere(String),
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(error) => Self::Store(error),
            error => Self::Policy(error),
        }
    }
}

impl From<ProveError> for Fault {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Store(error) => Self::Store(error),
            error => Self::Proof(error),
        }
    }
}

impl Fault {
    /// As HTTP says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotSignedIn(_) => StatusCode::UNAUTHORIZED,
            Self::MustChange | Self::Forbidden(_) | Self::Form => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Bad(_) | Self::Store(StoreError::Request(_)) | Self::People(PeopleError::Request(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Policy(PublishError::Unknown(_))
            | Self::Proof(ProveError::Empty | ProveError::Absent(_) | ProveError::Unknown(_)) => {
                StatusCode::NOT_FOUND
            }
            Self::Policy(PublishError::Same(_) | PublishError::Raced) | Self::Proof(_) => {
                StatusCode::CONFLICT
            }
            Self::Policy(_) => StatusCode::BAD_REQUEST,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Agent(Unanswered::Absent) => StatusCode::NOT_FOUND,
            Self::Agent(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Elsewhere(_) => StatusCode::BAD_GATEWAY,
            Self::Store(_) | Self::Reading(_) | Self::People(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the peer may read: the store's own words stay here.
    pub fn told(&self) -> String {
        match self {
            Self::Store(StoreError::Request(_) | StoreError::TooSlow)
            | Self::Reading(ReadingError::TooSlow)
            | Self::People(PeopleError::Request(_)) => self.to_string(),
            Self::Store(_) | Self::Reading(_) | Self::People(_) => {
                "the control plane cannot do this right now: its log says why".to_owned()
            }
            _ => self.to_string(),
        }
    }

    /// Tells the log what only operators should know.
    pub fn log(&self) {
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(error = %self, "a page of the console cannot be made");
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        self.log();
        match &self {
            Self::NotSignedIn(wanted) => return Redirect::to(&page::sign_in_address(wanted)).into_response(),
            Self::MustChange => return Redirect::to("/account").into_response(),
            _ => {}
        }
        let mut response = (self.status(), page::alone("That did not work", &self.told())).into_response();
        if matches!(self, Self::TooMany) {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        }
        response
    }
}
