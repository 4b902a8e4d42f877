use std::{fs, path::Path};

use super::{Containers, Found, is_id};

const ID: &str = "4b9f1d0e6a7c8b5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d";
const UID: &str = "1c2e3d4f-1111-2222-3333-444455556666";

fn find(files: &[(&str, &str)], runtime: &str) -> Option<Found> {
    let root = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let path = root.path().join(path.replace("ID", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents.replace("$ID", ID).replace("$UID", UID)).unwrap();
    }
    Containers::new(root.path().to_owned()).find(runtime, ID).map(|found| (*found).clone())
}

fn label(found: &Found, name: &str) -> Option<String> {
    found.labels.iter().find(|label| label.name == name).map(|label| label.value.clone())
}

#[test]
fn docker_by_its_state_file() {
    let state = r#"{"StreamConfig":{},"State":{"Running":true,"Pid":4711},"ID":"$ID","Created":"2026-11-01T10:00:00Z",
        "Path":"docker-entrypoint.sh","Args":["postgres"],"Config":{"Hostname":"4b9f","Image":"postgres:17",
        "Labels":{"com.docker.compose.service":"db","com.docker.compose.project":"shop"}},
        "Image":"sha256:9e99f6cd0918","NetworkSettings":{},"Name":"/shop-db-1","Driver":"overlay2"}"#;
    let found = find(&[("var/lib/docker/containers/ID/config.v2.json", state)], "docker").unwrap();
    assert_eq!((found.name.as_str(), found.image.as_str()), ("shop-db-1", "postgres:17"));
    assert_eq!((found.image_id.as_str(), found.known_by), ("sha256:9e99f6cd0918", "docker-state"));
    assert_eq!(label(&found, "com.docker.compose.service").as_deref(), Some("db"));
    assert!(found.pod.is_none());
    // Where the daemon was told to keep its files elsewhere.
    let moved = [
        ("etc/docker/daemon.json", r#"{"data-root":"/srv/docker"}"#),
        ("srv/docker/containers/ID/config.v2.json", state),
    ];
    assert_eq!(find(&moved, "docker").unwrap().name, "shop-db-1");
}

#[test]
fn podman_by_the_list_of_its_storage() {
    let list = r#"[{"id":"other","names":["x"]},{"id":"$ID","names":["sleepy_ramanujan"],"image":"97662d24417b",
        "layer":"2115","metadata":"{\"image-name\":\"docker.io/library/nginx:1.27\",\"image-id\":\"97662d24417b\",\"name\":\"sleepy_ramanujan\",\"created-at\":1760200649}",
        "created":"2026-10-11T16:37:29Z","flags":{"MountLabel":"","ProcessLabel":""}}]"#;
    for driver in ["overlay", "vfs"] {
        let path = format!("var/lib/containers/storage/{driver}-containers/containers.json");
        let found = find(&[(&path, list)], "podman").unwrap();
        assert_eq!((found.runtime, found.name.as_str()), ("podman", "sleepy_ramanujan"));
        assert_eq!(
            (found.image.as_str(), found.image_id.as_str()),
            ("docker.io/library/nginx:1.27", "97662d24417b")
        );
        assert_eq!(found.known_by, "podman-state");
    }
}

#[test]
fn containerd_by_the_annotations_of_its_bundle() {
    let config = r#"{"ociVersion":"1.1.0","process":{"args":["web"]},"annotations":{
        "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.container-type":"container",
        "io.kubernetes.cri.image-name":"registry.example.org/web:7","io.kubernetes.cri.sandbox-id":"0a1b",
        "io.kubernetes.cri.sandbox-name":"web-5d9c-x2x","io.kubernetes.cri.sandbox-namespace":"shop",
        "io.kubernetes.cri.sandbox-uid":"$UID"}}"#;
    for folder in ["containerd", "k3s/containerd"] {
        let path = format!("run/{folder}/io.containerd.runtime.v2.task/k8s.io/ID/config.json");
        // The cgroupfs driver does not tell which runtime it is.
        for runtime in ["containerd", "unknown"] {
            let found = find(&[(&path, config)], runtime).unwrap();
            let pod = found.pod.clone().unwrap();
            assert_eq!((found.runtime, found.name.as_str()), ("containerd", "web"));
            assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web-5d9c-x2x"));
            assert_eq!((pod.uid.as_str(), pod.container.as_str()), (UID, "web"));
            assert_eq!(found.image, "registry.example.org/web:7");
        }
    }
}

#[test]
fn crio_by_the_annotations_of_its_bundle() {
    let config = r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.KubeName":"web-0",
        "io.kubernetes.cri-o.Namespace":"shop","io.kubernetes.cri-o.ImageName":"quay.io/shop/web:7",
        "io.kubernetes.cri-o.ImageRef":"97662d24417b","io.kubernetes.cri-o.Name":"k8s_web_web-0_shop",
        "io.kubernetes.cri-o.Labels":"{\"io.kubernetes.container.name\":\"web\",\"io.kubernetes.pod.namespace\":\"shop\",\"io.kubernetes.pod.name\":\"web-0\",\"app\":\"web\",\"io.kubernetes.pod.uid\":\"$UID\"}"}}"#;
    let path = "run/containers/storage/overlay-containers/ID/userdata/config.json";
    let found = find(&[(path, config)], "cri-o").unwrap();
    let pod = found.pod.clone().unwrap();
    assert_eq!(
        (found.runtime, found.name.as_str(), found.image.as_str()),
        ("cri-o", "web", "quay.io/shop/web:7")
    );
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("shop", "web-0", UID));
    assert_eq!(label(&found, "app").as_deref(), Some("web"));
    assert_eq!(found.labels.len(), 1);
}

#[test]
fn what_is_broken_or_hostile_is_not_there() {
    let docker = "var/lib/docker/containers/ID/config.v2.json";
    for contents in ["", "{", "[]", "{\"Name\":7}", "\u{0}\u{0}"] {
        assert_eq!(find(&[(docker, contents)], "docker"), None, "{contents:?}");
    }
    let many: String = (0..10_000).map(|number| format!("\"l{number}\":\"v\",")).collect();
    let state = format!("{{\"Name\":\"/n\",\"Config\":{{\"Labels\":{{{many}\"z\":\"v\"}}}}}}");
    assert_eq!(find(&[(docker, &state)], "docker").unwrap().labels.len(), super::LABELS);
    for id in ["../../../etc", "short", "0123456789abcdef/x", &"a".repeat(129)] {
        assert!(!is_id(id), "{id}");
    }
}

#[test]
fn a_container_that_has_gone_is_what_it_was() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("var/lib/docker/containers").join(ID);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.v2.json"), r#"{"Name":"/once"}"#).unwrap();
    let mut containers = Containers::new(root.path().to_owned());
    assert_eq!(containers.find("docker", ID).unwrap().name, "once");
    fs::remove_dir_all(&folder).unwrap();
    for (at, _) in containers.known.values_mut() {
        *at = at.checked_sub(super::FRESH).unwrap();
    }
    assert_eq!(containers.find("docker", ID).unwrap().name, "once");
}

#[test]
fn the_hosts_root_is_found() {
    assert!(Path::new(&super::host_root()).join("proc").is_dir());
}
