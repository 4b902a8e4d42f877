//! What people do here goes into the control plane's own chain, beside the agents' records.
//!
//! It is written before it is done: what cannot be recorded does not happen. Never holds a password, a token or a cookie.

use std::time::Duration;

use guard_common::audit::v1::{PersonAction, person_action::Outcome, record::Body};

use tokio::sync::watch;

use super::People;
use crate::{
    http::fault::Fault,
    store::{Store, StoreError},
};

/// How often what the command line did is taken over.
const TAKEN_OVER: Duration = Duration::from_secs(5);
/// Longest subject and detail in bytes.
const MAX_TEXT: usize = 2_048;

/// Who does something, and from where.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// Their name; as it was typed, where a sign-in failed.
    pub person: String,
    /// password | oidc | token | command-line
    pub by: String,
    /// Name of the token, where there is one.
    pub token: String,
    /// The peer's address.
    pub address: String,
}

/// Writes what people do.
#[derive(Clone)]
pub struct Recorder {
    store: Store,
}

impl Recorder {
    /// Into this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// `actor` is about to do it.
    pub async fn done(
        &self,
        actor: &Actor,
        action: &'static str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.write(actor, action, (subject, detail), Outcome::Done).await
    }

    /// `actor` wanted to, and may not, or it failed.
    pub async fn refused(
        &self,
        actor: &Actor,
        action: &'static str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.write(actor, action, (subject, detail), Outcome::Refused).await
    }

    /// Takes what the command line has left into the record, while the server runs.
    pub async fn take_over(self, people: People, mut stopping: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.take_what_waits(&people).await {
                tracing::error!(%error, "what the command line did cannot be recorded yet");
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(TAKEN_OVER) => {}
            }
        }
    }

    async fn take_what_waits(&self, people: &People) -> Result<(), Fault> {
        loop {
            let waiting = people.with(|book| book.left_for_record()).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            for (id, action) in waiting {
                self.store.note(Body::PersonAction(action)).await?;
                people.with(move |book| book.is_recorded(id)).await?;
            }
        }
    }

    async fn write(
        &self,
        actor: &Actor,
        action: &'static str,
        (subject, detail): (&str, &str),
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let cut = |text: &str| text[..text.floor_char_boundary(MAX_TEXT)].to_owned();
        let written = self.store.note(Body::PersonAction(PersonAction {
            action: action.to_owned(),
            person: cut(&actor.person),
            by: actor.by.clone(),
            token: actor.token.clone(),
            address: actor.address.clone(),
            subject: cut(subject),
            detail: cut(detail),
            outcome: outcome.into(),
        }));
        let written = written.await;
        if let Err(error) = &written {
            tracing::error!(action, person = actor.person, %error, "what a person does cannot be recorded");
        }
        written
    }
}
