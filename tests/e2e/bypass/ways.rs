//! The ways round the proxy, each as something that somebody does.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    Container, Finished, Folder, Network, Psql, Server, Site, ports,
    records::{self, text},
    run::{self, CLIENT_LIMIT},
    site, wire,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A client that was stopped ends long before its statement would have.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

/// Which process guard has to name.
#[derive(Clone, Debug)]
enum Process {
    Pid(u32),
    Container(String),
}

/// What came of one way.
pub struct Attempt {
    pub way: &'static str,
    process: Process,
    program: &'static str,
    /// Its statement was answered.
    pub got_through: bool,
    pub said: String,
}

impl Attempt {
    fn new(way: &'static str, program: &'static str, client: &Finished) -> Self {
        let said = format!("{:?}\n{}{}", client.code, client.stdout, client.stderr);
        Self { way, process: Process::Pid(client.pid), program, got_through: client.ok(), said }
    }

    fn by(self, process: Process) -> Self {
        Self { process, ..self }
    }

    /// Whether guard means the client of this attempt.
    pub fn is_by(&self, workload: &Value) -> bool {
        match &self.process {
            Process::Pid(pid) => records::number(workload, "pid") == u64::from(*pid),
            Process::Container(id) => text(&workload["container"], "id") == id,
        }
    }

    /// Whether guard knows it as it was.
    pub fn check_workload(&self, workload: &Value) -> Result<()> {
        let executable = text(workload, "executable");
        ensure!(executable.ends_with(self.program), "{}: {workload}", self.way);
        ensure!(text(workload, "evidence") == "ATTESTED", "{}: {workload}", self.way);
        ensure!(!records::objects(workload, "ancestry").is_empty(), "{}: {workload}", self.way);
        Ok(())
    }
}

type Way<'a> = fn(&Ways<'a>) -> Result<Attempt>;

/// Somebody who tries.
pub struct Ways<'a> {
    site: &'a Site,
    network: &'a Network,
    sql: &'static str,
    folder: Folder,
}

impl<'a> Ways<'a> {
    pub fn new(site: &'a Site, network: &'a Network, sql: &'static str) -> Result<Self> {
        let folder = Folder::new("ways")?;
        fs::write(folder.join("startup"), wire::startup(site::USER, site::DATABASE))?;
        Ok(Self { site, network, sql, folder })
    }

    /// All of them.
    pub fn all(&self) -> [Way<'a>; 16] {
        [
            Self::localhost_v4,
            Self::localhost_v6,
            Self::another_loopback_name,
            Self::host_address,
            Self::unix_socket,
            Self::unix_socket_by_a_link,
            Self::abstract_socket,
            Self::tcp_relay,
            Self::unix_relay,
            Self::abstract_relay,
            Self::another_network_namespace,
            Self::container_tcp,
            Self::container_unix_socket,
            Self::inherited_descriptor,
            Self::forward_by_a_service,
            Self::forked_child,
        ]
    }

    fn port(&self) -> u16 {
        self.site.postgres.address().port()
    }

    fn psql(&self, host: &str) -> Psql {
        Psql::unix(host.as_ref(), self.port(), site::USER, site::DATABASE)
    }

    fn query(&self, way: &'static str, psql: &Psql) -> Result<Attempt> {
        let started = Instant::now();
        let client = psql.query(self.sql)?;
        self.in_time(way, started, &client)?;
        Ok(Attempt::new(way, "/psql", &client))
    }

    fn in_time(&self, way: &str, started: Instant, client: &Finished) -> Result<()> {
        let took = started.elapsed();
        ensure!(
            client.ok() || took < run::patience(STOPPED_WITHIN),
            "{way}: stopped after {took:?}: {}",
            client.stderr
        );
        Ok(())
    }

    pub fn localhost_v4(&self) -> Result<Attempt> {
        self.query("localhost, IPv4", &self.psql("127.0.0.1"))
    }

    fn localhost_v6(&self) -> Result<Attempt> {
        self.query("localhost, IPv6", &self.psql("::1"))
    }

    fn another_loopback_name(&self) -> Result<Attempt> {
        self.query("0.0.0.0", &self.psql("0.0.0.0"))
    }

    fn host_address(&self) -> Result<Attempt> {
        self.query("the host's address", &self.psql(&self.network.host().to_string()))
    }

    fn unix_socket(&self) -> Result<Attempt> {
        self.query("the unix socket", &self.site.direct_unix())
    }

    pub fn unix_socket_by_a_link(&self) -> Result<Attempt> {
        let link = self.folder.join("link");
        if !link.exists() {
            std::os::unix::fs::symlink(self.site.postgres.socket_folder(), &link)?;
        }
        self.query("the unix socket by a link", &self.psql(&link.display().to_string()))
    }

    fn abstract_socket(&self) -> Result<Attempt> {
        self.query("the abstract socket", &self.psql(&self.site.postgres.abstract_folder()))
    }

    /// psql through a relay; the relay is who connects.
    fn relayed(&self, way: &'static str, listen: &str, connect: &str, psql: &Psql) -> Result<Attempt> {
        let mut command = Command::new("socat");
        command.args([listen, connect]);
        let relay = Server::start("socat", command, &self.folder.join("socat.log"), Signal::SIGTERM)?;
        let started = Instant::now();
        let mut client = psql.query(self.sql)?;
        // It may not listen yet.
        while !client.ok()
            && (client.stderr.contains("refused") || client.stderr.contains("No such file"))
            && started.elapsed() < STOPPED_WITHIN
        {
            std::thread::sleep(Duration::from_millis(50));
            client = psql.query(self.sql)?;
        }
        self.in_time(way, started, &client)?;
        Ok(Attempt::new(way, "/socat", &client).by(Process::Pid(relay.pid())))
    }

    fn tcp_relay(&self) -> Result<Attempt> {
        let listen = ports::free()?;
        self.relayed(
            "a relay on TCP",
            &format!("TCP4-LISTEN:{},bind=127.0.0.1,reuseaddr", listen.port()),
            &format!("TCP4:127.0.0.1:{}", self.port()),
            &Psql::tcp(listen, site::USER, site::DATABASE),
        )
    }

    fn unix_relay(&self) -> Result<Attempt> {
        let path = self.folder.join(".s.PGSQL.7");
        self.relayed(
            "a relay from one unix socket to another",
            &format!("UNIX-LISTEN:{}", path.display()),
            &format!("UNIX-CONNECT:{}", self.site.postgres.socket().display()),
            &Psql::unix(self.folder.path(), 7, site::USER, site::DATABASE),
        )
    }

    fn abstract_relay(&self) -> Result<Attempt> {
        let name = format!("guard-relay-{}", std::process::id());
        self.relayed(
            "a relay behind an abstract socket",
            &format!("ABSTRACT-LISTEN:{name}/.s.PGSQL.7"),
            &format!("TCP6:[::1]:{}", self.port()),
            &Psql::unix(format!("@{name}").as_ref(), 7, site::USER, site::DATABASE),
        )
    }

    pub fn another_network_namespace(&self) -> Result<Attempt> {
        let way = "another network namespace";
        let psql = self.psql(&self.network.host().to_string());
        let mut command = psql.command();
        command.args(["-A", "-t", "-q", "-c", self.sql]);
        let started = Instant::now();
        // `ip` becomes psql: its pid stays.
        let client = run::run(self.network.wrap(&command), "", CLIENT_LIMIT)?;
        self.in_time(way, started, &client)?;
        Ok(Attempt::new(way, "/psql", &client))
    }

    fn in_container(&self, way: &'static str, host: &str, also: &[PathBuf]) -> Result<Attempt> {
        let container = Container::new(self.network, also)?;
        let mut words = vec!["psql".to_owned()];
        words.extend(self.psql(host).arguments());
        words.extend(["-A", "-t", "-q", "-c", self.sql].map(str::to_owned));
        let started = Instant::now();
        let client = run::run(container.command(&words)?, "", CLIENT_LIMIT)?;
        self.in_time(way, started, &client)?;
        let attempt = Attempt::new(way, "/psql", &client);
        Ok(attempt.by(Process::Container(container.id().to_owned())))
    }

    fn container_tcp(&self) -> Result<Attempt> {
        self.in_container("a container, TCP", &self.network.host().to_string(), &[])
    }

    fn container_unix_socket(&self) -> Result<Attempt> {
        let folder = self.site.postgres.socket_folder();
        let shown = folder.display().to_string();
        self.in_container("a container that sees the unix socket", &shown, &[folder])
    }

    /// A shell connects; a program that it becomes uses the connection.
    fn inherited_descriptor(&self) -> Result<Attempt> {
        let startup = self.folder.join("startup");
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} || exit 9; exec /bin/sh -c 'cat {} >&3; exec timeout 6 cat <&3 >/dev/null'",
            self.port(),
            startup.display()
        );
        let client = run::run(bash(&script), "", CLIENT_LIMIT)?;
        let mut attempt = Attempt::new("an inherited descriptor", "/bash", &client);
        // What counts is whether it lasts.
        attempt.got_through = client.code == Some(124);
        Ok(attempt)
    }

    /// As sshd does for `-L`: a service of another user takes the connection, and a child of it connects.
    fn forward_by_a_service(&self) -> Result<Attempt> {
        let listen = ports::free()?;
        let way = "a forward by a service's child";
        let mut command = Command::new("socat");
        command.arg(format!("TCP4-LISTEN:{},bind=127.0.0.1,reuseaddr,fork", listen.port()));
        command.arg(format!("TCP4:{}:{}", self.network.host(), self.port())).arg0("sshd: forward");
        let service = Server::start("socat", command, &self.folder.join("sshd.log"), Signal::SIGTERM)?;
        run::eventually("the forward", STOPPED_WITHIN, || Ok(listens(listen)))?;
        let attempt = self.query(way, &Psql::tcp(listen, site::USER, site::DATABASE))?;
        drop(service);
        let opened = self.site.wait_for("connection_opened", way, |opened| {
            let ancestry = records::objects(&opened["workload"], "ancestry");
            records::texts(&opened["workload"], "argv").first() == Some(&"sshd: forward")
                && ancestry.first().is_some_and(|parent| text(parent, "executable").ends_with("/socat"))
        })?;
        let pid = u32::try_from(records::workload_pid(&opened))?;
        Ok(Attempt { program: "/socat", ..attempt }.by(Process::Pid(pid)))
    }

    /// A child that never calls exec. It connects faster than anybody can decide on it: what counts is whether its
    /// connection lasts.
    pub fn forked_child(&self) -> Result<Attempt> {
        let script = format!(
            "use IO::Socket::INET; $| = 1; \
             open(F, '<', '{}'); local $/; my $startup = <F>; \
             my $child = fork; if ($child) {{ print \"$child\\n\"; waitpid $child, 0; exit($? >> 8); }} \
             my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => {}, Timeout => 5) or exit 9; \
             $s->autoflush(1); print $s $startup; $SIG{{ALRM}} = sub {{ exit 0 }}; alarm 4; \
             while (read($s, my $answer, 1)) {{}} exit 8;",
            self.folder.join("startup").display(),
            self.port()
        );
        let mut command = Command::new("perl");
        command.args(["-e", &script]);
        let client = run::run(command, "", CLIENT_LIMIT)?;
        let child: u32 = client.stdout.trim().parse()?;
        Ok(Attempt::new("a forked child", "/perl", &client).by(Process::Pid(child)))
    }
}

fn bash(script: &str) -> Command {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", script]);
    command
}

/// Whether somebody listens there, found out without connecting.
fn listens(address: SocketAddr) -> bool {
    let wanted = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
    fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&wanted))
}
