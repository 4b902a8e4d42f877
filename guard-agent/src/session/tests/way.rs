//! Ways to a scripted server.
