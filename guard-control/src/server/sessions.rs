//! Which agents are connected. The newer of two streams with one agent id wins: after a crash or a cut cable the old
//! one is a ghost that may linger for a minute.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Streams of agents that may be open at once.
const MAX_SESSIONS: usize = 20_000;

#[derive(Debug, Default)]
struct Table {
    by_agent: HashMap<String, (u64, oneshot::Sender<()>)>,
    last: u64,
}

/// All open streams.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
}

/// One agent's place among the open streams; given up when dropped.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    agent_id: String,
    number: u64,
    /// Ends when a newer stream of the same agent has come.
    pub superseded: oneshot::Receiver<()>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of `agent_id`, if need be from its older stream. Nothing: there are too many.
    pub fn enter(&self, agent_id: &str) -> Option<Session> {
        let mut table = self.lock();
        if table.by_agent.len() >= MAX_SESSIONS && !table.by_agent.contains_key(agent_id) {
            return None;
        }
        let (supersede, superseded) = oneshot::channel();
        table.last += 1;
        let number = table.last;
        // Dropping the older stream's sender is what tells it.
        table.by_agent.insert(agent_id.to_owned(), (number, supersede));
        Some(Session { sessions: self.clone(), agent_id: agent_id.to_owned(), number, superseded })
    }

    /// Whether the agent has an open stream.
    pub fn is_connected(&self, agent_id: &str) -> bool {
        self.lock().by_agent.contains_key(agent_id)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        if table.by_agent.get(&self.agent_id).is_some_and(|(number, _)| *number == self.number) {
            table.by_agent.remove(&self.agent_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_stream_wins_and_the_older_leaves_it_alone() {
        let sessions = Sessions::default();
        let mut old = sessions.enter("a").unwrap();
        let mut new = sessions.enter("a").unwrap();
        assert_eq!(old.superseded.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(new.superseded.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(old);
        assert!(sessions.is_connected("a"));
        drop(new);
        assert!(!sessions.is_connected("a"));
    }
}
