//! Proxy listeners: a listening socket per server enters, accepted clients leave for the session threads.
//!
//! Sessions run on threads of their own, each with its own runtime and caches, so that they share no lock. The stacks of
//! these threads are large: reading a deeply nested statement takes stack, and must not end the process.

mod counters;
mod logins;
mod precedence;
mod sockets;
mod threads;

pub use counters::{Counters, Counts};
pub use logins::{Login, Logins};
pub use sockets::{ListenError, Listener};
pub use threads::SessionThreads;
