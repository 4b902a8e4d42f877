//! OpenTelemetry's logs over HTTP, in protobuf: for collectors, and whatever stands behind them.
//!
//! Enters: records. Leaves: requests of bounded size, one resource for each agent. What the collector refuses for good is counted
//! as missed and said aloud; everything else comes again.

mod message;

use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use prost::Message;
use tokio::time::timeout;

use self::message::ExportLogsServiceResponse;
use super::{Given, Outlet, OutletError, Taken, config};
use crate::http::outward::Outward;

/// Records of one request.
const RECORDS: usize = 500;
/// Bytes of records in one request, unless one alone has more: collectors take 20 MiB, some less.
const BYTES: usize = 2 * 1024 * 1024;
/// Where the protocol has its logs.
const PATH: &str = "/v1/logs";
/// How long a batch may take in all; one request has a limit of its own.
const TIME: Duration = Duration::from_secs(40);

/// A collector.
pub(super) struct Otlp {
    settings: config::Otlp,
    outward: Outward,
    refused: u64,
}

impl Otlp {
    /// Checks what can be checked without the collector.
    pub(super) fn open(settings: &config::Otlp) -> Result<Self, OutletError> {
        let wrong = |problem: String| OutletError::Certificates {
            path: settings.ca.clone().unwrap_or_default(),
            problem,
        };
        let outward = Outward::new(settings.ca.as_deref()).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { settings: settings.clone(), outward, refused: 0 })
    }

    fn failed(&self, problem: String) -> OutletError {
        OutletError::Receiver { address: self.settings.url.to_string(), problem }
    }

    /// Sends one request; how many of its records the collector refuses for good.
    async fn send(&self, batch: &[Given]) -> Result<u64, OutletError> {
        let mut url = self.settings.url.clone();
        if url.path() == "/" {
            url.set_path(PATH);
        }
        let mut request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("guard-control/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.settings.authorization_file {
            // Read each time: such secrets change.
            let secret = std::fs::read_to_string(path).map_err(|error| OutletError::Certificates {
                path: path.clone(),
                problem: error.to_string(),
            })?;
            let mut value = header::HeaderValue::from_str(secret.trim_end()).map_err(|error| {
                OutletError::Certificates { path: path.clone(), problem: error.to_string() }
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .body(message::request(batch).encode_to_vec())
            .map_err(|error| self.failed(error.to_string()))?;
        let answer = self.outward.send(request).await.map_err(|error| self.failed(error.to_string()))?;
        if answer.status() != StatusCode::OK {
            return Err(self.failed(format!("it answers {}", answer.status())));
        }
        let partial =
            ExportLogsServiceResponse::decode(answer.body().as_slice()).unwrap_or_default().partial_success;
        let refused = partial.map_or(0, |partial| partial.rejected_log_records).max(0).cast_unsigned();
        Ok(refused.min(batch.len() as u64))
    }
}

#[tonic::async_trait]
impl Outlet for Otlp {
    async fn take(&mut self, batch: &[Given]) -> Result<Taken, OutletError> {
        let mut refused = 0;
        let all = async {
            for part in parts(batch) {
                refused += self.send(part).await?;
            }
            Ok(())
        };
        let late = OutletError::Late { address: self.settings.url.to_string(), within: TIME };
        timeout(TIME, all).await.map_err(|_| late)??;
        self.refused += refused;
        Ok(Taken::Given)
    }

    fn refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

/// A batch in pieces that a collector takes.
fn parts(batch: &[Given]) -> impl Iterator<Item = &[Given]> {
    let mut bytes = 0;
    let mut many = 0;
    batch.chunk_by(move |before, _| {
        bytes += size(before);
        many += 1;
        let goes_on = bytes < BYTES && many < RECORDS;
        if !goes_on {
            (bytes, many) = (0, 0);
        }
        goes_on
    })
}

fn size(given: &Given) -> usize {
    given.flat.payload.as_ref().map_or(0, Vec::len) * 2
}

#[cfg(test)]
mod tests {
    use guard_common::audit::flat::Flat;

    use super::*;

    #[test]
    fn a_batch_is_sent_in_bounded_pieces_and_whole() {
        let given = |sequence: u64, bytes| {
            let flat = Flat { payload: Some(vec![0; bytes]), ..Flat::default() };
            Given { agent: 1, sequence, flat }
        };
        let many: Vec<_> = (0..1_234).map(|sequence| given(sequence, 10)).collect();
        assert_eq!(parts(&many).map(<[Given]>::len).collect::<Vec<_>>(), [500, 500, 234]);
        let large: Vec<_> = (0..3).map(|sequence| given(sequence, BYTES)).collect();
        assert_eq!(parts(&large).map(<[Given]>::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(parts(&[]).count(), 0);
    }
}
