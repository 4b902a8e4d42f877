//! Processes that may connect some day: told before they do, so that the kernel can refuse their first connect.
//!
//! Nothing here has to succeed: who is not told of, or not decided on in time, is decided on when a server accepts.

use std::sync::Arc;

use guard_common::kernel::process::TaskInfo;

use super::event::{Candidate, Candidates, Client, Enforced};
use crate::identity::Workload;

/// Processes of a round that are told of at once: events and questions come first.
const AT_ONCE: usize = 64;

/// What is refused, and who has still to be told of.
#[derive(Debug)]
pub struct Enforcing {
    /// What is refused.
    pub enforced: Enforced,
    candidates: Candidates,
    /// The rest of a round over all processes.
    pending: Vec<TaskInfo>,
}

impl Enforcing {
    /// Nobody has been told of yet.
    pub fn new(enforced: Enforced, candidates: Candidates) -> Self {
        Self { enforced, candidates, pending: Vec::new() }
    }

    /// Whether anything can be refused.
    pub fn is_on(&self) -> bool {
        self.enforced.epoch != 0
    }

    /// Begins a round over these processes.
    pub fn begin_round(&mut self, processes: Vec<TaskInfo>) {
        self.pending = processes;
    }

    /// Whether a round is under way.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next processes of the round; none while the queue is full.
    pub fn next_of_round(&mut self) -> Vec<TaskInfo> {
        let room = self.candidates.capacity().min(AT_ONCE);
        self.pending.split_off(self.pending.len().saturating_sub(room))
    }

    /// Whether `task` can be told of at all.
    pub fn takes(&self, task: &TaskInfo) -> bool {
        self.is_on() && task.pid != std::process::id() && Client::of(task).is_some()
    }

    /// Tells of a process.
    pub fn offer(&self, task: &TaskInfo, workload: Arc<Workload>) {
        if let Some(client) = Client::of(task) {
            let _ = self.candidates.try_send(Candidate { client, workload });
        }
    }
}
