//! Where answers come from: a running control plane, or its store read directly.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use guard_common::api::control::{
    Agent, AgentsRequest, DecisionsRequest, StoredDecision, query_client::QueryClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::store::search::Search;

/// The most that one answer may hold, in bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Decisions that are asked for at once.
const PAGE: usize = 1_000;

/// Where to ask.
#[derive(Debug, Args)]
pub struct Source {
    /// The control plane to ask
    #[arg(long, value_name = "URL", env = "GUARD_CONTROL_SERVER", default_value = "http://127.0.0.1:7400")]
    server: String,
    /// Read the store in this folder directly instead (read-only; the server may be running or not)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Source {
    /// Up to `limit` decisions that match `request`, the newest first.
    pub fn decisions(&self, request: DecisionsRequest, limit: usize) -> anyhow::Result<Vec<StoredDecision>> {
        match &self.data {
            Some(dir) => {
                let search = Search::open(dir)?;
                let mut pages = Pages::new(request, limit);
                while let Some(request) = pages.next_request() {
                    pages.take(search.joined(&request)?);
                }
                Ok(pages.found)
            }
            None => self.ask(async |client| {
                let mut pages = Pages::new(request, limit);
                while let Some(request) = pages.next_request() {
                    pages.take(client.decisions(request).await?.into_inner());
                }
                Ok(pages.found)
            }),
        }
    }

    /// All agents.
    pub fn agents(&self) -> anyhow::Result<Vec<Agent>> {
        match &self.data {
            Some(dir) => Ok(Search::open(dir)?.agents()?),
            None => self.ask(async |client| Ok(client.agents(AgentsRequest {}).await?.into_inner().agents)),
        }
    }

    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut QueryClient<Channel>) -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(self.server.clone()).with_context(|| {
                format!("`--server {}` is no URL such as http://127.0.0.1:7400", self.server)
            })?;
            let channel = endpoint.connect_timeout(Duration::from_secs(5)).connect().await.with_context(|| {
                format!(
                    "no control plane answers at {}: start it with `guard-control serve`, name another with \
                     --server, or read its store with --data",
                    self.server
                )
            })?;
            let mut client = QueryClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            question(&mut client).await.map_err(|status| anyhow::anyhow!("{}", status.message()))
        })
    }
}

/// Gathers decisions over several answers.
struct Pages {
    request: DecisionsRequest,
    limit: usize,
    found: Vec<StoredDecision>,
    more: bool,
}

impl Pages {
    fn new(request: DecisionsRequest, limit: usize) -> Self {
        Self { request, limit, found: Vec::new(), more: true }
    }

    fn next_request(&mut self) -> Option<DecisionsRequest> {
        let left = self.limit - self.found.len().min(self.limit);
        self.request.limit = u32::try_from(left.min(PAGE)).unwrap_or(u32::MAX);
        (self.more && left > 0).then(|| self.request.clone())
    }

    fn take(&mut self, answer: guard_common::api::control::DecisionsResponse) {
        self.more = !answer.next_page.is_empty();
        self.request.page = answer.next_page;
        self.found.extend(answer.decisions);
    }
}
