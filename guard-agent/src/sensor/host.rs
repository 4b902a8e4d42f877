//! Facts about this host that the sensor needs: mount points, addresses, its own network namespace.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{self, Read},
    net::{IpAddr, TcpListener},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    time::{ClockId, clock_gettime},
};

/// Where the cgroup v2 hierarchy is mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    mount_of("cgroup2")
}

/// The root of the cgroup v2 hierarchy. Where none is mounted, one that only this process sees: attaching to it reaches
/// every process all the same, and nothing on the host changes.
pub fn cgroup_hierarchy() -> Option<fs::File> {
    match cgroup_root() {
        Some(root) => fs::File::open(root).ok(),
        None => unseen_hierarchy().ok(),
    }
}

/// Mounts the hierarchy nowhere (Linux 5.2).
fn unseen_hierarchy() -> io::Result<fs::File> {
    const CREATE: u32 = 6;
    let opened = |result: libc::c_long| {
        let fd = i32::try_from(result).unwrap_or(-1);
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
    };
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the name lives through the call.
    let context = opened(unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), 1) })?;
    // SAFETY: this command takes no key and no value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, nothing, nothing, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    let mount = opened(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })?;
    Ok(fs::File::from(mount))
}

/// The inode number of this process's network namespace.
pub fn namespace_inode() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino()).unwrap_or(0)
}

/// Where tracefs is mounted; on its own, or where debugfs brings it along.
pub fn tracefs() -> Option<PathBuf> {
    mount_of("tracefs").or_else(|| {
        let inside = mount_of("debugfs")?.join("tracing");
        inside.join("events").is_dir().then_some(inside)
    })
}

/// Mounts tracefs at its usual place. It holds the numbers of tracepoints and nothing private to a user.
pub fn mount_tracefs() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), flags, None::<&str>)?;
    Ok(())
}

/// The first mount point of a file system.
fn mount_of(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, found) = (fields.next()?, fields.next()?);
        // Blanks in paths are written as octal numbers.
        (found == kind).then(|| PathBuf::from(place.replace("\\040", " ")))
    })
}

/// Addresses of this host's interfaces, in this network namespace. Looked up again now and then.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: HashSet<IpAddr>,
    looked_up: Option<Instant>,
}

impl OwnAddresses {
    /// How long a look is good for.
    const FRESH: Duration = Duration::from_secs(5);

    /// Whether `address` is this host's own.
    pub fn contains(&mut self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() {
            return true;
        }
        if self.looked_up.is_none_or(|at| at.elapsed() >= Self::FRESH) {
            self.known = addresses().collect();
            self.looked_up = Some(Instant::now());
        }
        self.known.contains(&address)
    }
}

/// Addresses of the interfaces of this network namespace, loopback aside.
pub fn interface_addresses() -> BTreeSet<IpAddr> {
    addresses().map(|address| address.to_canonical()).filter(|address| !address.is_loopback()).collect()
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    })
}

/// Lets maps take the memory that they need: before Linux 5.11 they count against a limit. Best effort: where it
/// matters and fails, making the maps fails and says so.
pub fn lift_memory_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives through the call.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// A key for hashes that nobody else can compute.
pub fn random_key() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([word(low), word(high)])
}

/// The cookie of this process's network namespace; 0 before Linux 5.14.
pub fn namespace_cookie() -> u64 {
    TcpListener::bind("127.0.0.1:0").map_or(0, |socket| cookie_of_namespace(&socket))
}

/// The cookie of a socket's network namespace; 0 before Linux 5.14.
pub fn cookie_of_namespace(socket: &impl AsRawFd) -> u64 {
    /// Not in libc for every architecture; `asm-generic/socket.h`.
    const SO_NETNS_COOKIE: i32 = 71;
    socket_option(socket, SO_NETNS_COOKIE).unwrap_or(0)
}

/// An option of a socket that is a number of 64 bits.
pub fn socket_option(socket: &impl AsRawFd, option: i32) -> Option<u64> {
    let mut number = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: number and length are as large as the option and live through the call.
    let result = unsafe {
        let value = (&raw mut number).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, &raw mut length)
    };
    (result == 0 && length == 8).then_some(number)
}

/// Time on the clock of the kernel's events.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// What has to be added to a time on the clock of the kernel's events for nanoseconds after boot: the time that the host
/// was suspended.
pub fn suspended_ns() -> u64 {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(boot.saturating_sub(monotonic()).as_nanos()).unwrap_or_default()
}

/// A counter that wakes whoever polls it.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Why this process may attach to no tracepoint and to no probe, and what helps: the kernels of Debian and Ubuntu know more
/// levels of `kernel.perf_event_paranoid` than 2, above which `perf_event_open` takes `CAP_SYS_ADMIN`.
pub fn perf_events_refused() -> Option<String> {
    let level: i32 = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()?;
    let status = procfs::process::Process::myself().and_then(|process| process.status()).ok()?;
    refused_at(level, status.capeff)
}

fn refused_at(level: i32, capabilities: u64) -> Option<String> {
    const SYS_ADMIN: u32 = 21;
    (level > 2 && capabilities & (1 << SYS_ADMIN) == 0).then(|| {
        format!(
            "kernel.perf_event_paranoid is {level}, at which this kernel asks for CAP_SYS_ADMIN: give it to the agent \
             (CapabilityBoundingSet=), or set the level to 2"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::refused_at;

    #[test]
    fn perf_events_are_refused_above_level_2_without_the_capability() {
        const PERFMON: u64 = 1 << 38;
        const SYS_ADMIN: u64 = 1 << 21;
        assert_eq!(refused_at(2, PERFMON), None);
        assert_eq!(refused_at(4, PERFMON | SYS_ADMIN), None);
        assert!(refused_at(3, PERFMON).unwrap().contains("perf_event_paranoid is 3"));
    }
}
