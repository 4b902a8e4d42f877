//! A cgroup's path enters; systemd unit, container and pod leave. Pure: reads nothing.

use guard_common::audit::v1::{Container, Pod};

/// What a cgroup's path tells about the workload in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The innermost systemd service or scope outside of containers.
    pub unit: Option<String>,
    /// The container.
    pub container: Option<Container>,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
}

impl Place {
    /// Reads a path such as `/system.slice/postgresql@15-main.service`.
    pub fn of(path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let mut container = container(&segments);
        if let Some(container) = &mut container {
            container.claimed_by_uid = delegated_to(&segments);
        }
        let pod =
            segments.iter().find_map(|segment| pod_uid(segment)).map(|uid| Pod { uid, ..Pod::default() });
        Self { unit: unit(&segments), container, pod }
    }
}

/// The user whose service manager makes the cgroups below its own: he may call them what he likes.
fn delegated_to(segments: &[&str]) -> Option<u32> {
    segments.iter().find_map(|segment| segment.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok())
}

/// The innermost unit. A session's manager (`user@1000.service`) is only a wrapper where there is a unit in it,
/// and scopes of container engines are containers, not units.
fn unit(segments: &[&str]) -> Option<String> {
    segments
        .iter()
        .rev()
        .find(|segment| is_unit(segment) && scope_of_engine(segment).is_none() && pod_uid(segment).is_none())
        .map(|segment| unescape(segment))
}

fn is_unit(segment: &str) -> bool {
    segment.len() > 1 && (segment.ends_with(".service") || segment.ends_with(".scope"))
}

/// systemd escapes bytes of unit names as `\x2d`.
fn unescape(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\'
            && after.first() == Some(&b'x')
            && let Some(byte) = after.get(1..3).and_then(hex_byte)
        {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The innermost container: an engine's scope (systemd driver), or an id below the engine's folder (cgroupfs).
fn container(segments: &[&str]) -> Option<Container> {
    let mut found = None;
    for (index, segment) in segments.iter().enumerate() {
        if let Some((runtime, id)) = scope_of_engine(segment) {
            found = Some(container_of(runtime, id));
        } else if is_id(segment) && index > 0 {
            let above = segments[index - 1];
            if let Some(runtime) = engine_folder(above) {
                found = Some(container_of(runtime, segment));
            } else if pod_uid(above).is_some() {
                // With the cgroupfs driver, kubelet's folders do not name the runtime.
                found = Some(container_of("unknown", segment));
            }
        }
    }
    found
}

fn container_of(runtime: &str, id: &str) -> Container {
    Container { runtime: runtime.to_owned(), id: id.to_owned(), ..Container::default() }
}

/// `docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, and the same without a
/// suffix, as nested and cgroupfs set-ups have it.
fn scope_of_engine(segment: &str) -> Option<(&'static str, &str)> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    const PREFIXES: [(&str, &str); 6] = [
        ("cri-containerd-", "containerd"),
        ("containerd-", "containerd"),
        ("docker-", "docker"),
        ("libpod-", "podman"),
        ("crio-", "cri-o"),
        ("nerdctl-", "containerd"),
    ];
    PREFIXES.into_iter().find_map(|(prefix, runtime)| {
        let id = name.strip_prefix(prefix)?;
        is_id(id).then_some((runtime, id))
    })
}

/// Folders whose children are containers, with the cgroupfs driver.
fn engine_folder(segment: &str) -> Option<&'static str> {
    match segment {
        "docker" | "moby" => Some("docker"),
        "libpod_parent" | "libpod" | "machine.slice" => Some("podman"),
        "containerd" | "k8s.io" | "default" => Some("containerd"),
        "crio" => Some("cri-o"),
        _ => None,
    }
}

/// Engines name containers by 64 hexadecimal digits; shorter names are too common to mean one.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `pod1c2e..-..` (cgroupfs) and `kubepods-burstable-pod1c2e.._...slice` (systemd). Static pods have a hash of 32
/// digits in place of a UUID.
fn pod_uid(segment: &str) -> Option<String> {
    let name = match segment.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod").map(|(_, uid)| uid)?,
        Some(_) => return None,
        None => segment.strip_prefix("pod")?,
    };
    let uid = name.replace('_', "-");
    let digits = uid.bytes().filter(|byte| *byte != b'-');
    (digits.clone().count() == 32 && digits.clone().all(|byte| byte.is_ascii_hexdigit())).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::Place;

    const ID: &str = "4b9f1d0e6a7c8b5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d";
    const UID: &str = "1c2e3d4f-1111-2222-3333-444455556666";

    fn unit(path: &str) -> Option<String> {
        Place::of(path).unit
    }

    fn container(path: &str) -> Option<(String, String)> {
        Place::of(path).container.map(|container| (container.runtime, container.id))
    }

    fn pod(path: &str) -> Option<String> {
        Place::of(path).pod.map(|pod| pod.uid)
    }

    #[test]
    fn nothing_in_the_root() {
        assert_eq!(Place::of("/"), Place::default());
        assert_eq!(Place::of(""), Place::default());
        assert_eq!(Place::of("/user.slice"), Place::default());
    }

    #[test]
    fn system_services() {
        assert_eq!(unit("/system.slice/cron.service").as_deref(), Some("cron.service"));
        assert_eq!(
            unit("/system.slice/system-postgresql.slice/postgresql@15-main.service").as_deref(),
            Some("postgresql@15-main.service")
        );
    }

    #[test]
    fn a_cgroup_below_its_service() {
        assert_eq!(unit("/system.slice/app.service/workers/3").as_deref(), Some("app.service"));
    }

    #[test]
    fn the_users_manager_is_a_wrapper() {
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(unit(manager).as_deref(), Some("user@1000.service"));
        let nested = format!("{manager}/app.slice/app-code.scope");
        assert_eq!(unit(&nested).as_deref(), Some("app-code.scope"));
        assert_eq!(unit("/user.slice/user-1000.slice/session-3.scope").as_deref(), Some("session-3.scope"));
    }

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(unit(r"/system.slice/my\x2dapp.service").as_deref(), Some("my-app.service"));
        assert_eq!(unit(r"/system.slice/odd\xzz.service").as_deref(), Some(r"odd\xzz.service"));
        assert_eq!(unit(r"/system.slice/end\x2.service").as_deref(), Some(r"end\x2.service"));
    }

    #[test]
    fn containers_of_the_systemd_driver() {
        for (prefix, runtime) in [
            ("docker-", "docker"),
            ("libpod-", "podman"),
            ("cri-containerd-", "containerd"),
            ("crio-", "cri-o"),
        ] {
            let path = format!("/system.slice/{prefix}{ID}.scope");
            assert_eq!(container(&path), Some((runtime.to_owned(), ID.to_owned())));
            assert_eq!(unit(&path), None, "{path}");
        }
    }

    #[test]
    fn containers_of_the_cgroupfs_driver() {
        assert_eq!(container(&format!("/docker/{ID}")), Some(("docker".to_owned(), ID.to_owned())));
        assert_eq!(
            container(&format!("/libpod_parent/libpod-{ID}")),
            Some(("podman".to_owned(), ID.to_owned()))
        );
        assert_eq!(container(&format!("/default/{ID}")), Some(("containerd".to_owned(), ID.to_owned())));
    }

    #[test]
    fn a_container_inside_of_a_service() {
        let path = format!("/system.slice/app.service/libpod-payload-{ID}");
        assert_eq!(container(&path), None);
        let path =
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container");
        assert_eq!(container(&path), Some(("podman".to_owned(), ID.to_owned())));
        assert_eq!(unit(&path).as_deref(), Some("user@1000.service"));
    }

    #[test]
    fn pods_of_the_cgroupfs_driver() {
        let path = format!("/kubepods/burstable/pod{UID}/{ID}");
        assert_eq!(pod(&path).as_deref(), Some(UID));
        assert_eq!(container(&path), Some(("unknown".to_owned(), ID.to_owned())));
    }

    #[test]
    fn pods_of_the_systemd_driver() {
        let uid = UID.replace('-', "_");
        let path = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{ID}.scope"
        );
        assert_eq!(pod(&path).as_deref(), Some(UID));
        assert_eq!(container(&path), Some(("containerd".to_owned(), ID.to_owned())));
        assert_eq!(unit(&path), None);
    }

    #[test]
    fn guaranteed_and_static_pods() {
        let uid = UID.replace('-', "_");
        assert_eq!(pod(&format!("/kubepods.slice/kubepods-pod{uid}.slice")).as_deref(), Some(UID));
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(pod(&format!("/kubepods/besteffort/pod{hash}/{ID}")).as_deref(), Some(hash));
    }

    #[test]
    fn what_a_user_may_name_is_only_claimed() {
        let claim = |path: &str| Place::of(path).container.and_then(|container| container.claimed_by_uid);
        let rootless = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope");
        assert_eq!(claim(&rootless), Some(1000));
        assert_eq!(claim(&format!("/machine.slice/libpod-{ID}.scope")), None);
    }

    #[test]
    fn lookalikes_are_nothing() {
        assert_eq!(pod("/system.slice/podman.service"), None);
        assert_eq!(pod("/podium"), None);
        assert_eq!(container("/docker/builds"), None);
        assert_eq!(container("/system.slice/docker-registry.service"), None);
        assert_eq!(unit("/system.slice/docker.service").as_deref(), Some("docker.service"));
    }
}
