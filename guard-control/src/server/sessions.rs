//! Which agents are connected. The newer of two streams of one running agent wins: after a cut cable the old one is a ghost
//! that may linger for a minute. Another agent with the same id is refused for as long as the first one is there: its
//! journal is a copy.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Streams of agents that may be open at once.
const MAX_SESSIONS: usize = 20_000;

#[derive(Debug, Default)]
struct Table {
    by_agent: HashMap<String, Entry>,
    last: u64,
    /// Agents that are connected to other replicas.
    elsewhere: HashSet<String>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Of the agent's process; empty where it does not say.
    instance: String,
    /// Dropped, it tells the stream.
    _supersede: oneshot::Sender<()>,
}

/// Why there is no place for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// There are too many.
    Full,
    /// Another agent with this id is connected.
    Duplicate,
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

    /// Takes the place of `agent_id`, if need be from an older stream of the same `instance`.
    pub fn enter(&self, agent_id: &str, instance: &str) -> Result<Session, NoPlace> {
        let mut table = self.lock();
        match table.by_agent.get(agent_id) {
            None if table.by_agent.len() >= MAX_SESSIONS => return Err(NoPlace::Full),
            Some(entry) if !entry.instance.is_empty() && entry.instance != instance => {
                return Err(NoPlace::Duplicate);
            }
            _ => {}
        }
        let (supersede, superseded) = oneshot::channel();
        table.last += 1;
        let number = table.last;
        let entry = Entry { number, instance: instance.to_owned(), _supersede: supersede };
        table.by_agent.insert(agent_id.to_owned(), entry);
        Ok(Session { sessions: self.clone(), agent_id: agent_id.to_owned(), number, superseded })
    }

    /// Whether the agent has an open stream, here or at another replica.
    pub fn is_connected(&self, agent_id: &str) -> bool {
        let table = self.lock();
        table.by_agent.contains_key(agent_id) || table.elsewhere.contains(agent_id)
    }

    /// The agents with a stream here.
    pub(super) fn here(&self) -> Vec<String> {
        let mut agents: Vec<String> = self.lock().by_agent.keys().cloned().collect();
        agents.sort_unstable();
        agents
    }

    /// The agents with a stream at other replicas, as of now.
    pub(super) fn set_elsewhere(&self, agents: HashSet<String>) {
        self.lock().elsewhere = agents;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        if table.by_agent.get(&self.agent_id).is_some_and(|entry| entry.number == self.number) {
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
        let mut old = sessions.enter("a", "1").unwrap();
        let mut new = sessions.enter("a", "1").unwrap();
        assert_eq!(old.superseded.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(new.superseded.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(old);
        assert!(sessions.is_connected("a"));
        drop(new);
        assert!(!sessions.is_connected("a"));
    }

    #[test]
    fn a_copy_of_an_agent_is_refused_until_the_first_one_has_gone() {
        let sessions = Sessions::default();
        let first = sessions.enter("a", "1").unwrap();
        assert_eq!(sessions.enter("a", "2").unwrap_err(), NoPlace::Duplicate);
        assert_eq!(sessions.enter("a", "").unwrap_err(), NoPlace::Duplicate);
        drop(first);
        assert!(sessions.enter("a", "2").is_ok());
    }
}
