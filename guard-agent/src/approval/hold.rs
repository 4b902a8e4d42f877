//! One statement that waits, in the hands of its session. Dropped, it is withdrawn: what nobody waits for never runs.

use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{Approvals, Claim, ClaimError};

/// What a session that waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is approved, or over: [`Hold::claim`] says which.
    Settled,
    /// Its own client has cancelled it.
    Cancelled,
    /// Time to tell the client that it still waits.
    Remind,
}

/// A statement that waits.
#[derive(Debug)]
pub struct Hold {
    approvals: Approvals,
    id: String,
    words: mpsc::Receiver<Word>,
    /// It goes on to wait without a session.
    kept: bool,
}

impl Hold {
    pub(super) fn new(approvals: Approvals, id: String, words: mpsc::Receiver<Word>) -> Self {
        Self { approvals, id, words, kept: false }
    }

    /// The request's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next word about it. After its end: `Settled`.
    pub fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        self.words.poll_recv(cx).map(|word| word.unwrap_or(Word::Settled))
    }

    /// Leave to run it, once, if it is approved and nothing has ended it meanwhile.
    pub async fn claim(&self) -> Result<Claim, ClaimError> {
        self.approvals.claim(&self.id).await
    }

    /// Nobody waits for it any more.
    pub fn withdraw(self, why: &str) {
        self.approvals.withdraw(&self.id, why);
    }

    /// It must not run any more, whatever was said of it.
    pub fn refuse(self, why: &str) {
        self.approvals.refuse(&self.id, why);
    }

    /// It waits on without a session.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing happens to what has run or is over.
            self.approvals.withdraw(&self.id, "its session has ended");
        }
    }
}
