//! What ends a session early, and what the client is told of it.

use std::io;

use crate::mask::rewrite::RewriteError;
use crate::wire::{
    postgres::{ErrorResponse, WireError},
    proxy_protocol::HeaderError,
};

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The client's bytes are no protocol.
    #[error("protocol violation by the client: {0}")]
    Client(#[from] WireError),
    /// The server's bytes are no protocol.
    #[error("protocol violation by the server: {0}")]
    Server(WireError),
    /// The server answered what nobody asked.
    #[error("the server sent `{0}` out of turn")]
    OutOfTurn(&'static str),
    /// The client closed in the middle of a message.
    #[error("the client closed in the middle of a message")]
    ClientVanished,
    /// What should say where the connection comes from does not.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// TLS with the client did not come about.
    #[error("TLS handshake with the client: {0}")]
    Handshake(io::Error),
    /// The client talks in clear and must not.
    #[error("the client does not use TLS, which is required")]
    InClear,
    /// Too many clients of one address are logging in.
    #[error("limit of {0} logins at a time from one address reached")]
    TooManyLogins(usize),
    /// It did nothing for too long.
    #[error("idle for too long")]
    Idle,
    /// It took too long to log in.
    #[error("login timeout")]
    LoginTimeout,
    /// Policy does not let it connect.
    #[error("refused by policy {0}")]
    Refused(String, ErrorResponse),
    /// Too many connections.
    #[error("connection limit of {0} reached")]
    TooMany(usize),
    /// The server cannot be reached.
    #[error("cannot reach the server at {endpoint}: {error}")]
    Upstream {
        /// Where it was looked for.
        endpoint: String,
        /// Why not.
        error: io::Error,
    },
    /// The connection to the client broke.
    #[error("connection to the client: {0}")]
    Io(#[from] io::Error),
    /// A row came that guard does not know how to mask.
    #[error("a row came of a result that the server has not described")]
    NotDescribed,
    /// A row is too long to be rewritten.
    #[error("a row that has to be masked is longer than {0} bytes")]
    LongRow(usize),
    /// COPY data whose form is not known.
    #[error("COPY data that has to be masked is written in a way that guard cannot follow")]
    UnknownCopy,
    /// A row cannot be rewritten.
    #[error("a row cannot be masked: {0}")]
    Unmaskable(RewriteError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

impl SessionError {
    /// What the client may read. `None`: there is nobody left to tell.
    pub(super) fn for_client(&self) -> Option<ErrorResponse> {
        Some(match self {
            Self::Client(WireError::Version(major, minor)) => {
                let message =
                    format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
                ErrorResponse::fatal("0A000", message)
            }
            Self::Client(error) => ErrorResponse::fatal("08P01", format!("guard: {error}"))
                .with_hint("the client sent bytes that are not PostgreSQL's protocol"),
            Self::Server(_) | Self::OutOfTurn(_) => ErrorResponse::fatal(
                "08P01",
                "guard: the server broke the protocol; the connection was closed",
            )
            .with_hint("the agent's log has the details"),
            Self::Header(error) => ErrorResponse::fatal("08P01", format!("guard: {error}"))
                .with_hint("see `proxy.proxy_protocol_from` in the agent's configuration"),
            Self::InClear => {
                ErrorResponse::fatal("28000", "guard: this server takes connections with TLS only")
                    .with_hint("connect with sslmode=require, or better with sslmode=verify-full")
            }
            Self::TooManyLogins(limit) => ErrorResponse::fatal(
                "53300",
                format!("guard: too many clients of this address are logging in, the limit is {limit}"),
            )
            .with_hint(
                "connect more slowly, or raise proxy.max_logins_per_address in the agent's configuration",
            ),
            Self::Idle => {
                ErrorResponse::fatal("57P05", "guard: terminating connection due to idle-session timeout")
                    .with_hint(
                        "connect again; the limit is proxy.idle_timeout_seconds in the agent's configuration",
                    )
            }
            Self::LoginTimeout => ErrorResponse::fatal("08006", "guard: login timeout"),
            Self::NotDescribed | Self::UnknownCopy | Self::Unmaskable(_) => {
                ErrorResponse::fatal("58000", format!("guard: {self}; the connection was closed")).with_hint(
                    "what cannot be masked is not shown; use a policy that reveals it, or another form of the \
                     statement",
                )
            }
            Self::LongRow(limit) => ErrorResponse::fatal(
                "54000",
                format!("guard: a row that has to be masked is longer than {limit} bytes; the connection was closed"),
            )
            .with_hint("leave out its large columns, or raise masking.max_row_mib in the agent's configuration"),
            Self::Refused(_, response) => response.clone(),
            Self::TooMany(limit) => {
                ErrorResponse::fatal("53300", format!("guard: too many connections, the limit is {limit}"))
                    .with_hint(
                        "close connections, or raise proxy.max_connections in the agent's configuration",
                    )
            }
            Self::Upstream { endpoint, error } => ErrorResponse::fatal(
                "08001",
                format!("guard cannot reach PostgreSQL at {endpoint}: {error}"),
            )
            .with_hint(
                "check that the server runs and listens there; `guard-agent status` shows its addresses",
            ),
            Self::Stopping => {
                ErrorResponse::fatal("57P01", "guard: terminating connection: the agent is stopping")
                    .with_hint("connect again")
            }
            Self::ClientVanished | Self::Handshake(_) | Self::Io(_) => return None,
        })
    }
}
