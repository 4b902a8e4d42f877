//! Policies, on the stream to the control plane: signed versions enter, what runs leaves. Whether a version is taken is
//! decided elsewhere.

use guard_common::api::control::{PolicyStatus, SignedPolicy};
use tokio::sync::{mpsc, watch};

/// Versions that may wait to be looked at: only the newest counts in the end.
const OFFERS: usize = 4;

/// The door between the uplink and whoever decides by policies; cheap to clone.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Whether offers are wanted at all.
    pub(super) wanted: bool,
    offers: mpsc::Sender<SignedPolicy>,
    running: watch::Sender<PolicyStatus>,
}

impl Policies {
    /// A door, and what comes through it.
    pub fn new(wanted: bool) -> (Self, mpsc::Receiver<SignedPolicy>) {
        let (offers, offered) = mpsc::channel(OFFERS);
        (Self { wanted, offers, running: watch::channel(PolicyStatus::default()).0 }, offered)
    }

    /// Tells the control plane what runs, where that is news.
    pub fn tell(&self, status: PolicyStatus) {
        self.running.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }

    /// What was told last of a version that was not taken.
    pub fn error(&self) -> String {
        self.running.borrow().error.clone()
    }

    /// What runs, from now on.
    pub(super) fn running(&self) -> watch::Receiver<PolicyStatus> {
        let mut running = self.running.subscribe();
        running.mark_changed();
        running
    }

    pub(super) fn offer(&self, signed: SignedPolicy) {
        // One that does not fit comes again with the next connection.
        let _ = self.offers.try_send(signed);
    }
}
