//! The connection table: kernel accepts and proxy sessions enter, one record per connection leaves.
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use guard_common::audit::v1::{Decision, connection_opened::Transport, Workload};
use crate::servers::Server;
#[derive(Clone, Debug)] pub struct Connections;
#[derive(Debug)] pub struct Opening { pub workload: Arc<Workload>, pub server: Arc<Server>, pub transport: Transport, pub client_address: Option<SocketAddr>, pub server_address: Option<SocketAddr>, pub unix_path: Option<PathBuf>, pub decision: Arc<Decision> }
#[derive(Debug)] pub struct ProxiedConnection;
#[derive(Debug)] pub struct Ending { pub reason: String, pub bytes_from_client: u64, pub bytes_to_client: u64, pub statements: u64 }
#[derive(Clone, Debug)] pub enum UpstreamSocket { Tcp{local: SocketAddr, peer: SocketAddr}, Unix{inode: u64} }
impl Connections { pub fn open_proxied(&self, _o: Opening) -> ProxiedConnection { ProxiedConnection } }
impl ProxiedConnection { pub fn id(&self) -> &'static str { "x" } pub fn upstream(&self, _s: UpstreamSocket) {} pub fn close(self, _e: Ending) {} }
