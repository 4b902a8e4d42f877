//! The kernel side in userspace: loads what this kernel offers, reads the ring buffer, yields typed events.
//!
//! It is the only room with kernel handles. It parses nothing that a database peer wrote.
