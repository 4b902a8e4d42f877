//! NATS JetStream: each record one message, acknowledged by the stream before the cursor moves.
//!
//! Enters: records. Leaves: JSON under `<subject>.<kind>.<agent id>`, with the record's key as `Nats-Msg-Id`, by which the stream
//! leaves out what comes twice within its window. A message that the stream has not acknowledged comes again.

use std::time::Duration;

use async_nats::{
    ConnectOptions, ServerAddr,
    jetstream::{
        context::{Context, ContextBuilder, PublishAckFuture},
        message::PublishMessage,
        stream,
    },
};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{Given, Outlet, OutletError, Taken, address, config, json};

/// How long the servers may take for a batch.
const TIME: Duration = Duration::from_secs(20);
/// Messages that may wait for their acknowledgement: more than a batch has.
const IN_FLIGHT: usize = 4_096;
/// Room for subject and headers in what a server takes at the most.
const HEADERS: usize = 1_024;
/// The largest message, whatever the server takes.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The smallest: what names a record has to fit.
const MIN_MESSAGE: usize = 2 * 1024;
/// How long a new stream remembers which records it has.
const WINDOW: Duration = Duration::from_secs(10 * 60);

/// A stream.
pub(super) struct Nats {
    settings: config::Nats,
    tls: ClientConfig,
    stream: Option<Stream>,
}

struct Stream {
    context: Context,
    room: usize,
}

impl Nats {
    /// Checks what can be checked without the servers.
    pub(super) fn open(settings: &config::Nats) -> Result<Self, OutletError> {
        let own = settings.certificate.as_ref().zip(settings.key.as_ref());
        Ok(Self { settings: settings.clone(), tls: address::tls(settings.ca.as_deref(), own)?, stream: None })
    }

    fn failed(&self, error: impl std::fmt::Display) -> OutletError {
        let address = format!("NATS stream {}", self.settings.stream);
        OutletError::Receiver { address, problem: error.to_string() }
    }

    async fn connect(&self) -> Result<Stream, OutletError> {
        let config::Nats { servers, credentials_file, token_file, .. } = &self.settings;
        let mut options = ConnectOptions::new()
            .name("guard-control")
            .connection_timeout(address::CONNECT_TIME)
            .max_reconnects(1)
            // They could be anywhere, and without TLS.
            .ignore_discovered_servers()
            .tls_client_config(self.tls.clone())
            .require_tls(servers.iter().all(|server| server.scheme() == "tls"));
        if let Some(path) = credentials_file {
            let wrong = |problem: std::io::Error| OutletError::Certificates {
                path: path.clone(),
                problem: problem.to_string(),
            };
            options = options.credentials_file(path).await.map_err(wrong)?;
        }
        if let Some(path) = token_file {
            let token = std::fs::read_to_string(path).map_err(|error| OutletError::Certificates {
                path: path.clone(),
                problem: error.to_string(),
            })?;
            options = options.token(token.trim_end().to_owned());
        }
        let addresses: Vec<ServerAddr> = servers
            .iter()
            .map(|url| ServerAddr::from_url(url.clone()))
            .collect::<Result<_, _>>()
            .map_err(|error| self.failed(error))?;
        let client = options.connect(addresses).await.map_err(|error| self.failed(error))?;
        let taken = client.server_info().max_payload.saturating_sub(HEADERS);
        let context =
            ContextBuilder::new().timeout(TIME).ack_timeout(TIME).max_ack_inflight(IN_FLIGHT).build(client);
        self.prepare(&context).await?;
        Ok(Stream { context, room: taken.clamp(MIN_MESSAGE, MAX_MESSAGE) })
    }

    /// The stream has to be there before anything is given to it.
    async fn prepare(&self, context: &Context) -> Result<(), OutletError> {
        let config::Nats { stream, subject, create, replicas, .. } = &self.settings;
        if !create {
            return context.get_stream(stream).await.map(drop).map_err(|error| self.failed(error));
        }
        let config = stream::Config {
            name: stream.clone(),
            subjects: vec![format!("{subject}.>")],
            description: Some("the record of guard: docs/outlets.md".to_owned()),
            num_replicas: *replicas,
            duplicate_window: WINDOW,
            ..stream::Config::default()
        };
        context.get_or_create_stream(config).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn publish(&self, stream: &Stream, batch: &[Given]) -> Result<(), OutletError> {
        let mut acknowledgements: Vec<PublishAckFuture> = Vec::with_capacity(batch.len());
        for given in batch {
            let flat = &given.flat;
            let key = flat.key.as_deref().unwrap_or_default();
            let message = PublishMessage::build()
                .payload(json::bounded(flat, stream.room, true).into())
                .message_id(key)
                .expected_stream(&self.settings.stream);
            let (kind, agent) =
                (flat.kind.as_deref().unwrap_or("unknown"), flat.agent_id.as_deref().unwrap_or("unknown"));
            let subject = format!("{}.{}.{}", self.settings.subject, token(kind), token(agent));
            acknowledgements.push(
                stream.context.send_publish(subject, message).await.map_err(|error| self.failed(error))?,
            );
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Outlet for Nats {
    async fn take(&mut self, batch: &[Given]) -> Result<Taken, OutletError> {
        let late =
            || OutletError::Late { address: format!("NATS stream {}", self.settings.stream), within: TIME };
        // Left behind by an error, the connection is given up: nothing of it may still be on its way.
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => timeout(TIME, self.connect()).await.map_err(|_| late())??,
        };
        timeout(TIME, self.publish(&stream, batch)).await.map_err(|_| late())??;
        self.stream = Some(stream);
        Ok(Taken::Given)
    }
}

/// One word of a subject: without what separates words, and what stands for others.
fn token(text: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    let token: String = text.chars().take(64).map(letter).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(token("connection-opened"), "connection-opened");
        assert_eq!(token("a.b >*\r\n"), "a_b_____");
        assert_eq!(token(""), "_");
    }
}
