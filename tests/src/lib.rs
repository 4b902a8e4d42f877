//! The harness: real servers on free ports, real clients, guard in front of them.
