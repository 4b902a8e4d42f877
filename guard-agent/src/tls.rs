//! TLS towards clients and servers: files and settings enter, what rustls needs for a handshake leaves.
//!
//! Being on the host, guard presents the server's own certificate where nothing else is configured: the channel binding
//! of SCRAM then holds from the client to the server. Files are read when the agent starts and when they change, never on
//! a session's way. No key, and nothing made from one, reaches a log.

mod certificate;
mod connector;
mod files;
mod keys;
mod offer;
mod own;
mod presented;
mod settings;

use std::sync::{Arc, PoisonError, RwLock};

pub use self::{
    certificate::client_certificate,
    connector::{Connector, ConnectorError},
    files::FileError,
    offer::{Offer, Origin, TlsError},
    presented::presented,
};
use crate::config::{TlsConfig, TlsMode};

/// What the proxy of one server offers its clients. It follows the files: sessions that begin later get the new ones.
#[derive(Debug, Default)]
pub struct ClientTls {
    config: TlsConfig,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    offer: Result<Arc<Offer>, Arc<TlsError>>,
}

impl Default for State {
    fn default() -> Self {
        Self { offer: Err(Arc::new(TlsError::Off)) }
    }
}

impl ClientTls {
    /// Offers nothing until [`ClientTls::refresh`] has found certificate and key.
    pub fn new(config: TlsConfig) -> Self {
        Self { config, state: RwLock::default() }
    }

    /// Whether clients may, or must, talk TLS.
    pub fn mode(&self) -> TlsMode {
        self.config.mode
    }

    /// Certificate and key are the configuration's.
    pub fn is_configured(&self) -> bool {
        self.config.certificate.is_some()
    }

    /// What is offered now, or why nothing is.
    pub fn offer(&self) -> Result<Arc<Offer>, Arc<TlsError>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).offer.clone()
    }

    /// Looks at the files again; `pid` is the server's. Where they cannot be used, what was offered stays, and the error
    /// says why. True: something else is offered from now on. Reads files: not for a session's thread.
    pub fn refresh(&self, pid: Option<u32>) -> Result<bool, Arc<TlsError>> {
        if self.config.mode == TlsMode::Off {
            return Ok(false);
        }
        let before = self.offer();
        let found = match &before {
            Ok(offer) if offer.is_current(&self.config, pid) => return Ok(false),
            _ => Offer::find(&self.config, pid),
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(offer) => {
                state.offer = Ok(Arc::new(offer));
                Ok(true)
            }
            // The server is down or has switched TLS off: its certificate is not ours to present then. A file that is
            // just being replaced is another matter.
            Err(error) => {
                let error = Arc::new(error);
                if before.is_err() || error.withdraws() {
                    state.offer = Err(Arc::clone(&error));
                }
                Err(error)
            }
        }
    }
}
