use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use guard_common::audit::v1::Pod;

use super::{Endpoint, Pods, kubelet};
use crate::config::IdentityConfig;

const UID: &str = "1c2e3d4f-1111-2222-3333-444455556666";

/// As a kubelet 1.20 has answered, cut down to what is read.
const PODS: &str = include_str!("testdata/pods.json");

/// Answers every request with `answer`, and counts them.
fn serve(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /pods HTTP/1.0\r\n"));
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")
}

fn config(address: SocketAddr) -> IdentityConfig {
    IdentityConfig { kubelet: format!("http://{address}"), ..IdentityConfig::default() }
}

fn pod() -> Pod {
    Pod { uid: UID.to_owned(), ..Pod::default() }
}

#[test]
fn kubelet_tells_names_labels_account_and_owner() {
    let (address, _) = serve(ok(PODS));
    let root = tempfile::tempdir().unwrap();
    let mut pods = Pods::new(root.path(), &config(address));
    let deadline = Instant::now() + Duration::from_secs(10);
    let complete = loop {
        let mut pod = pod();
        pods.complete(&mut pod, "4b9f1d0e6a7c");
        if !pod.name.is_empty() {
            break pod;
        }
        assert!(Instant::now() < deadline, "kubelet was not asked");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((complete.namespace.as_str(), complete.name.as_str()), ("shop", "web-5d9c7b-x2x4z"));
    assert_eq!((complete.owner_kind.as_str(), complete.owner_name.as_str()), ("ReplicaSet", "web-5d9c7b"));
    assert_eq!((complete.service_account.as_str(), complete.container.as_str()), ("orders", "web"));
    let labels: Vec<_> =
        complete.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
    assert_eq!(labels, ["app=web", "pod-template-hash=5d9c7b"]);
    assert_eq!(complete.known_by, ["kubelet"]);
}

/// A runtime's socket that answers `ListPodSandbox`.
mod runtime {
    use std::{collections::HashMap, convert::Infallible, path::PathBuf, task};

    use tonic::{body::Body, codegen::http, server::NamedService};
    use tonic_prost::ProstCodec;

    use super::super::cri::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata};

    #[derive(Clone)]
    struct Runtime;

    impl NamedService for Runtime {
        const NAME: &'static str = "runtime.v1.RuntimeService";
    }

    impl tower::Service<http::Request<Body>> for Runtime {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
            task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            Box::pin(async move {
                let answer = tower::service_fn(|_: tonic::Request<ListPodSandboxRequest>| async {
                    Ok::<_, tonic::Status>(tonic::Response::new(list()))
                });
                Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(answer, request).await)
            })
        }
    }

    fn list() -> ListPodSandboxResponse {
        let labels = [("app", "web"), ("io.kubernetes.pod.name", "web-0")];
        let labels: HashMap<_, _> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let metadata = PodSandboxMetadata {
            name: "web-0".to_owned(),
            uid: super::UID.to_owned(),
            namespace: "shop".to_owned(),
        };
        ListPodSandboxResponse { items: vec![PodSandbox { metadata: Some(metadata), labels }] }
    }

    pub fn serve(socket: PathBuf) {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
                let server = tonic::transport::Server::builder().add_service(Runtime);
                server.serve_with_incoming(incoming).await.unwrap();
            });
        });
    }
}

#[test]
fn without_kubelet_the_runtime_tells_the_labels() {
    let root = tempfile::tempdir().unwrap();
    runtime::serve(root.path().join("run/containerd/containerd.sock"));
    let listed = super::cri::pods(root.path()).unwrap();
    let pod = &listed[UID];
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.known_by), ("shop", "web-0", "cri"));
    let labels: Vec<_> = pod.labels.iter().map(|label| label.name.as_str()).collect();
    assert_eq!(labels, ["app"]);
    // As what there is where kubelet is asked in vain.
    let config =
        IdentityConfig { kubelet_token: root.path().join("no such token"), ..IdentityConfig::default() };
    let endpoint = Endpoint::new(&config, root.path()).unwrap();
    let (listed, complaint) = super::list(endpoint.as_ref(), root.path()).unwrap();
    assert!(listed.contains_key(UID) && complaint.contains("no such token"), "{complaint}");
    std::fs::remove_file(root.path().join("run/containerd/containerd.sock")).unwrap();
    assert!(super::list(endpoint.as_ref(), root.path()).is_err());
}

#[test]
fn static_pods_are_found_by_the_hash_in_their_cgroup() {
    let pods = kubelet::parse(PODS.as_bytes()).unwrap();
    let by_hash = &pods["0123456789abcdef0123456789abcdef"];
    assert_eq!((by_hash.name.as_str(), by_hash.owner_kind.as_str()), ("etcd-node1", "Node"));
    assert_eq!(pods.len(), 3);
}

#[test]
fn without_kubelet_the_log_folder_tells_the_name() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join(format!("var/log/pods/shop_web-0_{UID}/web"))).unwrap();
    let nowhere = IdentityConfig { kubelet: String::new(), ..IdentityConfig::default() };
    let mut pods = Pods::new(root.path(), &nowhere);
    let mut pod = pod();
    pods.complete(&mut pod, "");
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web-0"));
    assert_eq!(pod.known_by, ["log-folder"]);
}

#[test]
fn kubelet_is_not_asked_more_often_than_needed() {
    let (address, asked) = serve(ok(r#"{"items":[]}"#));
    let mut pods = Pods::new(tempfile::tempdir().unwrap().path(), &config(address));
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        pods.complete(&mut pod(), "");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(asked.load(Ordering::SeqCst) <= 1, "{asked:?}");
}

#[test]
fn what_is_no_list_of_pods_is_an_error() {
    let forbidden = "HTTP/1.0 403 Forbidden\r\n\r\nForbidden (user=system:anonymous)".to_owned();
    for answer in [forbidden, ok("<html>"), "nonsense".to_owned(), String::new(), ok("{\"items\":[{}]}")] {
        let (address, _) = serve(answer.clone());
        let endpoint = Endpoint::new(&config(address), "/".as_ref()).unwrap().unwrap();
        let error = endpoint.pods().unwrap_err().to_string();
        assert!(answer.contains("403") == error.contains("nodes/proxy"), "{error}");
    }
    for address in ["127.0.0.1:10250", "ftp://127.0.0.1:1", "https://localhost", "https://"] {
        let wrong = IdentityConfig { kubelet: address.to_owned(), ..IdentityConfig::default() };
        assert!(Endpoint::new(&wrong, "/".as_ref()).is_err(), "{address}");
    }
}

/// Whoever answers on kubelet's port and is not kubelet gets no token.
#[test]
fn the_token_goes_to_the_holder_of_kubelets_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "a-token").unwrap();
    let make = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["node1".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate, key)
    };
    let (kubelets, other) = (make(), make());
    let pinned = folder.path().join("kubelet.crt");
    fs::write(&pinned, kubelets.0.pem()).unwrap();
    for ((certificate, key), right) in [(&kubelets, true), (&other, false)] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(server)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap_or(0);
            let _ = stream.write_all(ok(PODS).as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let config = IdentityConfig {
            kubelet: format!("https://{address}"),
            kubelet_token: token.clone(),
            kubelet_certificate: Some(pinned.clone()),
            ..IdentityConfig::default()
        };
        let endpoint = Endpoint::new(&config, "/".as_ref()).unwrap().unwrap();
        assert_eq!(endpoint.pods().is_ok(), right);
        assert_eq!(heard.join().unwrap().contains("a-token"), right);
    }
}
