//! End to end: real servers, real clients, the real kernel. One module per scenario.

mod harness;
