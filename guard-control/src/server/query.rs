//! Questions about what is stored enter, answers leave. It changes nothing.

use guard_common::api::control::{
    AgentsRequest, AgentsResponse, DecisionsRequest, DecisionsResponse, query_server::Query,
};
use tonic::{Request, Response, Status};

use super::sessions::Sessions;
use crate::store::{Store, StoreError};

/// The query service.
pub struct QueryService {
    store: Store,
    sessions: Sessions,
}

impl QueryService {
    /// Answers from `store`, and from `sessions` who is connected.
    pub fn new(store: Store, sessions: Sessions) -> Self {
        Self { store, sessions }
    }
}

#[tonic::async_trait]
impl Query for QueryService {
    async fn decisions(
        &self,
        request: Request<DecisionsRequest>,
    ) -> Result<Response<DecisionsResponse>, Status> {
        self.store.decisions(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn agents(&self, _: Request<AgentsRequest>) -> Result<Response<AgentsResponse>, Status> {
        let mut agents = self.store.agents().await.map_err(status)?;
        for agent in &mut agents {
            agent.connected = self.sessions.is_connected(&agent.agent_id);
        }
        Ok(Response::new(AgentsResponse { agents }))
    }
}

fn status(error: StoreError) -> Status {
    match error {
        StoreError::Request(reason) => Status::invalid_argument(reason),
        StoreError::TooSlow => Status::deadline_exceeded(error.to_string()),
        error => Status::unavailable(error.to_string()),
    }
}
