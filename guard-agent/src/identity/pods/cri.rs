//! The runtime's own list of pods, by the CRI on its unix socket: what there is where kubelet does not tell.
//!
//! It knows labels, and neither service accounts nor owners. Bounded in size and time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::KnownPod;
use crate::identity::containers;

const WITHIN: Duration = Duration::from_secs(5);
const LIMIT: usize = 64 * 1024 * 1024;
/// Where runtimes listen.
const SOCKETS: [&str; 4] = [
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/k3s/containerd/containerd.sock",
    "run/cri-dockerd.sock",
];

/// Why the runtime has told nothing.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// There is no socket of a runtime.
    #[error("no socket of a container runtime is where they usually are")]
    NoSocket,
    /// It does not answer.
    #[error("`{socket}`: {reason}")]
    NoAnswer {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
}

/// `runtime.v1.ListPodSandboxRequest`, without a filter.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListPodSandboxRequest {}

/// `runtime.v1.ListPodSandboxResponse`, as far as it is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<PodSandbox>,
}

/// `runtime.v1.PodSandbox`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandbox {
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: HashMap<String, String>,
}

/// `runtime.v1.PodSandboxMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

/// The pods of this node, by uid. Waits: for threads that may.
pub fn pods(root: &Path) -> Result<HashMap<String, Arc<KnownPod>>, CriError> {
    let socket = SOCKETS.iter().map(|socket| root.join(socket)).find(|socket| socket.exists());
    let socket = socket.ok_or(CriError::NoSocket)?;
    let no_answer = |reason: String| CriError::NoAnswer { socket: socket.clone(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| no_answer(error.to_string()))?;
    let asking = async { tokio::time::timeout(WITHIN, ask(socket.clone())).await };
    let answer = runtime.block_on(asking).map_err(|_| no_answer("no answer in time".to_owned()))?;
    let answer = answer.map_err(|status| no_answer(status.message().to_owned()))?;
    Ok(answer.items.into_iter().filter_map(known).collect())
}

async fn ask(socket: PathBuf) -> Result<ListPodSandboxResponse, tonic::Status> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let failed = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    // The address is not used: the connector knows the socket.
    let channel: Channel =
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.map_err(failed)?;
    let mut client = Grpc::new(channel).max_decoding_message_size(LIMIT);
    client.ready().await.map_err(failed)?;
    let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
    let codec = ProstCodec::default();
    Ok(client.unary(tonic::Request::new(ListPodSandboxRequest {}), path, codec).await?.into_inner())
}

fn known(sandbox: PodSandbox) -> Option<(String, Arc<KnownPod>)> {
    let PodSandboxMetadata { name, uid, namespace } = sandbox.metadata?;
    // kubelet's own labels say again what the metadata says.
    let labels = sandbox.labels.iter().filter(|(name, _)| !name.starts_with("io.kubernetes."));
    let pod = KnownPod {
        namespace,
        name,
        labels: containers::labels(labels),
        known_by: "cri",
        ..KnownPod::default()
    };
    Some((uid, Arc::new(pod)))
}
