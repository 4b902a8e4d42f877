//! kubelet's own list of the pods on this node, `GET /pods`: bytes of kubelet enter, pods leave.
//!
//! The token goes to nobody but kubelet: over TLS only to whoever presents a certificate that stands in kubelet's own
//! files on this host, in clear not at all. Bounded in size and time.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::Deserialize;

use super::KnownPod;
use crate::{config::IdentityConfig, identity::containers};

const WITHIN: Duration = Duration::from_secs(5);
/// A node has at most a few hundred pods of a few KiB each.
const LIMIT: u64 = 64 * 1024 * 1024;
/// Files in which kubelet keeps the certificate that it presents.
const CERTIFICATES: [&str; 2] =
    ["var/lib/kubelet/pki/kubelet-server-current.pem", "var/lib/kubelet/pki/kubelet.crt"];

/// Why kubelet has told nothing.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The configuration is not an address.
    #[error("`identity.kubelet` is `{0}`: it must be like `https://127.0.0.1:10250`, or empty")]
    Address(String),
    /// Nobody answers, or not in time.
    #[error("{address}: {error}; set `identity.kubelet` to where kubelet listens, or to \"\"")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// There is no token to ask with.
    #[error("no token in `{path}`: {error}; `identity.kubelet_token` names its file")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// TLS cannot be used.
    #[error("TLS to kubelet: {0}")]
    Tls(#[from] rustls::Error),
    /// kubelet has refused.
    #[error(
        "kubelet answers `{0}`; the service account needs the permission `get` on `nodes/proxy` or `nodes/pods`"
    )]
    Refused(String),
    /// It is not what kubelet says.
    #[error("the answer is no list of pods: {0}")]
    Format(String),
}

/// Where kubelet listens and how it is asked.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    tls: bool,
    token: PathBuf,
    certificates: Vec<PathBuf>,
}

impl Endpoint {
    /// As configured; nothing where nobody is to be asked.
    pub fn new(config: &IdentityConfig, root: &Path) -> Result<Option<Self>, KubeletError> {
        if config.kubelet.is_empty() {
            return Ok(None);
        }
        let wrong = || KubeletError::Address(config.kubelet.clone());
        let (scheme, address) = config.kubelet.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let address = address.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let certificates = match &config.kubelet_certificate {
            Some(path) => vec![path.clone()],
            None => CERTIFICATES.iter().map(|path| root.join(path)).collect(),
        };
        Ok(Some(Self { address, tls, token: config.kubelet_token.clone(), certificates }))
    }

    /// The pods of this node, by uid.
    pub fn pods(&self) -> Result<HashMap<String, Arc<KnownPod>>, KubeletError> {
        let failed = |error| KubeletError::Io { address: self.address, error };
        let connect = || -> io::Result<TcpStream> {
            let socket = TcpStream::connect_timeout(&self.address, WITHIN)?;
            socket.set_read_timeout(Some(WITHIN))?;
            socket.set_write_timeout(Some(WITHIN))?;
            Ok(socket)
        };
        let answer = if self.tls {
            let token = fs::read_to_string(&self.token)
                .map_err(|error| KubeletError::Token { path: self.token.clone(), error })?;
            let name = ServerName::IpAddress(self.address.ip().into());
            let connection = ClientConnection::new(Arc::new(self.config()?), name)?;
            let mut stream = StreamOwned::new(connection, connect().map_err(failed)?);
            exchange(&mut stream, Some(token.trim())).map_err(failed)?
        } else {
            exchange(&mut connect().map_err(failed)?, None).map_err(failed)?
        };
        parse(body(&answer)?)
    }

    fn config(&self) -> Result<ClientConfig, KubeletError> {
        let provider = Arc::new(ring::default_provider());
        let pinned = Pinned {
            // Read each time: kubelet renews its certificate.
            certificates: self.certificates.iter().flat_map(|path| certificates(path)).collect(),
            algorithms: provider.signature_verification_algorithms,
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(pinned)).with_no_client_auth())
    }
}

/// Of a file that may hold a key beside: only the certificates are taken.
fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(found) = CertificateDer::pem_file_iter(path) else { return Vec::new() };
    found.flatten().take(16).collect()
}

/// HTTP/1.0: the answer ends with the connection, in one piece.
fn exchange(stream: &mut (impl Read + Write), token: Option<&str>) -> io::Result<Vec<u8>> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET /pods HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(LIMIT).read_to_end(&mut answer) {
        // Whoever ends TLS without saying so may have cut the answer: what is cut is no JSON.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        Ok(_) | Err(_) => Ok(answer),
    }
}

fn body(answer: &[u8]) -> Result<&[u8], KubeletError> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.ok_or_else(|| KubeletError::Format("no HTTP answer".to_owned()))?);
    let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status: String = String::from_utf8_lossy(status).chars().take(80).collect();
    if status.split(' ').nth(1) != Some("200") {
        return Err(KubeletError::Refused(status));
    }
    Ok(&body[4..])
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    namespace: String,
    name: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    image: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

pub(super) fn parse(json: &[u8]) -> Result<HashMap<String, Arc<KnownPod>>, KubeletError> {
    let list: List = serde_json::from_slice(json).map_err(|error| KubeletError::Format(error.to_string()))?;
    let mut pods = HashMap::new();
    for item in list.items {
        // The cgroup of a static pod is called after the hash of its file, not after the uid of its mirror.
        let hash = item.metadata.annotations.get("kubernetes.io/config.hash").cloned();
        let uid = item.metadata.uid.clone();
        let pod = Arc::new(known(item));
        pods.extend(hash.filter(|hash| *hash != uid).map(|hash| (hash, Arc::clone(&pod))));
        pods.insert(uid, pod);
    }
    Ok(pods)
}

fn known(item: Item) -> KnownPod {
    let Metadata { namespace, name, labels, owner_references: owners, .. } = item.metadata;
    let owner = owners.iter().find(|owner| owner.controller).or(owners.first()).cloned().unwrap_or_default();
    let Status { container_statuses, init_container_statuses, ephemeral_container_statuses } = item.status;
    let statuses =
        container_statuses.into_iter().chain(init_container_statuses).chain(ephemeral_container_statuses);
    let containers = statuses.filter_map(|status| {
        let (_, id) = status.container_id.split_once("://")?;
        Some((id.to_owned(), (status.name, status.image)))
    });
    KnownPod {
        namespace,
        name,
        labels: containers::labels(&labels),
        service_account: item.spec.service_account_name,
        owner_kind: owner.kind,
        owner_name: owner.name,
        containers: containers.collect(),
        known_by: "kubelet",
    }
}

/// Takes no certificate but those that kubelet keeps on this host: they are signed by themselves, or by an authority that
/// only the API server knows.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.iter().any(|known| known.as_ref() == presented.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "its certificate is not in kubelet's files; `identity.kubelet_certificate` names another file"
                .to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
