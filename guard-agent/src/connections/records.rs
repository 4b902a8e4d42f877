//! Connections as records.

use std::net::SocketAddr;

use guard_common::audit::v1::{
    Completeness, ConnectionClosed, ConnectionOpened, DatabaseServer, Decision, Enforcement,
    connection_opened::Access,
};

use super::{ConnectionId, Opening, Transport, table::Followed};
use crate::{
    sensor::{Accepted, Closed, Endpoint, Refused, SocketId, Way},
    servers::Server,
};

/// An access that the kernel told of.
pub fn opened(
    id: &ConnectionId,
    access: Access,
    accepted: &Accepted,
    server: &Server,
    decision: Decision,
) -> ConnectionOpened {
    let mut record = ConnectionOpened {
        connection_id: id.to_string(),
        access: access.into(),
        server: Some(database_server(server)),
        socket_cookie: match accepted.socket {
            SocketId::Cookie(cookie) => cookie,
            SocketId::Inode(_) | SocketId::Serial(_) => 0,
        },
        workload: Some(accepted.workload.as_ref().clone()),
        decision: Some(decision),
        preexisting: accepted.preexisting,
        ..ConnectionOpened::default()
    };
    match &accepted.endpoint {
        Endpoint::Tcp { client, server } => {
            record.set_transport(Transport::Tcp);
            record.client_address = client.to_string();
            record.server_address = server.to_string();
        }
        Endpoint::Unix { path, .. } => {
            record.set_transport(Transport::Unix);
            record.unix_path = path.to_string_lossy().into_owned();
        }
    }
    record
}

/// A connection that the kernel has refused: it never existed.
pub fn refused(
    id: &ConnectionId,
    refused: &Refused,
    server: &Server,
    decision: Decision,
    enforcement: Enforcement,
) -> ConnectionOpened {
    let mut record = ConnectionOpened {
        connection_id: id.to_string(),
        access: Access::NonProxied.into(),
        server: Some(database_server(server)),
        workload: Some(refused.workload.as_ref().clone()),
        decision: Some(decision),
        enforcement: Some(enforcement),
        ..ConnectionOpened::default()
    };
    match &refused.way {
        Way::Connect { server } => {
            record.set_transport(Transport::Tcp);
            record.server_address = server.to_string();
        }
        Way::Listener { client, server } => {
            record.set_transport(Transport::Tcp);
            record.client_address = client.to_string();
            record.server_address = server.to_string();
        }
        Way::ConnectUnix { path } => {
            record.set_transport(Transport::Unix);
            record.unix_path = path.to_string_lossy().into_owned();
        }
    }
    record
}

/// A connection through the proxy.
pub fn opened_proxied(id: &ConnectionId, opening: &Opening) -> ConnectionOpened {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let path = opening.unix_path.as_ref();
    ConnectionOpened {
        connection_id: id.to_string(),
        access: Access::Proxied.into(),
        server: Some(database_server(&opening.server)),
        transport: opening.transport.into(),
        client_address: text(opening.client_address),
        server_address: text(opening.server_address),
        unix_path: path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        workload: Some(opening.workload.as_ref().clone()),
        decision: Some(opening.decision.as_ref().clone()),
        ..ConnectionOpened::default()
    }
}

/// The end of an access that the kernel told of.
/// `lost`: events lost up to now.
pub fn closed_non_proxied(followed: &Followed, closed: &Closed, lost: u64) -> ConnectionClosed {
    let bytes = closed.bytes.unwrap_or_default();
    let duration = closed.at.saturating_sub(followed.at).as_micros();
    ConnectionClosed {
        connection_id: followed.id.to_string(),
        bytes_from_client: bytes.from_client,
        bytes_to_client: bytes.to_client,
        bytes_source: if closed.bytes.is_some() { "kernel" } else { "none" }.to_owned(),
        duration_us: u64::try_from(duration).unwrap_or(u64::MAX),
        reason: if followed.cut { "cut: refused by policy" } else { "closed" }.to_owned(),
        statements: 0,
        completeness: Some(completeness(followed, closed, lost)),
    }
}

fn completeness(followed: &Followed, closed: &Closed, lost: u64) -> Completeness {
    let lost_meanwhile = lost.saturating_sub(followed.lost_before);
    let reasons = [
        (followed.preexisting, "it was open before guard-agent watched"),
        (
            !followed.by_kernel && !followed.preexisting,
            "its beginning was seen in /proc, not told by the kernel",
        ),
        (closed.bytes.is_none(), "the kernel did not count its bytes"),
        (closed.late, "its first bytes may have passed before the kernel counted them"),
        (lost_meanwhile > 0, "events were lost on this host while it was open"),
    ];
    let missing: Vec<String> =
        reasons.into_iter().filter(|(applies, _)| *applies).map(|(_, reason)| reason.to_owned()).collect();
    Completeness { whole: missing.is_empty(), missing, lost_meanwhile }
}

fn database_server(server: &Server) -> DatabaseServer {
    DatabaseServer {
        name: server.name.clone(),
        engine: server.engine.as_str().to_owned(),
        environment: server.environment.clone(),
    }
}
