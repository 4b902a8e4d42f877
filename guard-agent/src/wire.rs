//! Bytes enter, messages leave, and the other way round. No sockets, no policy, no waiting.

pub mod postgres;
pub mod proxy_protocol;
