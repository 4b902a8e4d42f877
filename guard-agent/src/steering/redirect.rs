//! Steering by nftables, for kernels without sk_lookup: a table of its own in the server's network namespace redirects new
//! connections to the proxy's port, and the proxy asks the kernel where they were going.
//!
//! The proxy's own connections carry the mark and pass. The table stays when the agent is gone: connections are refused
//! then. That they pass instead takes a table that goes with its owner (`flags owner`, Linux 5.12).

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

use super::{SteeringError, namespace::Namespace};

/// Where the proxy listens for one server, and what is redirected there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// The server's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The proxy's port for IPv4 and for IPv6.
    pub ports: (u16, Option<u16>),
}

/// The name of the table: letters, digits and underscores.
pub fn table_name(instance: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    format!("guard_{}", instance.chars().map(letter).collect::<String>())
}

/// Puts the whole table in place, in one step.
pub fn install(
    namespace: &Namespace,
    table: &str,
    mark: u32,
    servers: &[Redirected],
) -> Result<(), SteeringError> {
    nft(namespace, &script(table, mark, servers)).map_err(SteeringError::Redirect)
}

/// Removes the table; false where it was not there.
pub fn remove(namespace: &Namespace, table: &str) -> io::Result<bool> {
    match nft(namespace, &format!("delete table inet {table}\n")) {
        Ok(()) => Ok(true),
        Err(error) if error.to_string().contains("No such file") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this host can do it at all.
pub fn probe() -> io::Result<()> {
    let name = format!("guard_probe_{}", std::process::id());
    let namespace = Namespace::of(None).map_err(io::Error::other)?;
    let text = script(&name, 1, &[Redirected { addresses: Vec::new(), ports: (1, None) }]);
    nft(&namespace, &text)?;
    remove(&namespace, &name).map(|_| ())
}

fn script(table: &str, mark: u32, servers: &[Redirected]) -> String {
    // Made and deleted first, so that it is replaced in the same transaction, whether it was there or not.
    let mut text = format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    for (chain, hook) in [("incoming", "prerouting"), ("local", "output")] {
        let _ = writeln!(text, "  chain {chain} {{\n    type nat hook {hook} priority -105; policy accept;");
        let _ = writeln!(text, "    meta mark {mark:#x} return");
        for server in servers {
            for address in &server.addresses {
                let (family, port) =
                    if address.is_ipv4() { ("ip", Some(server.ports.0)) } else { ("ip6", server.ports.1) };
                let Some(port) = port else { continue };
                let destination = if address.ip().is_unspecified() {
                    let protocol = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                    format!("meta nfproto {protocol} fib daddr type local")
                } else {
                    format!("{family} daddr {}", address.ip())
                };
                let _ = writeln!(text, "    {destination} tcp dport {} redirect to :{port}", address.port());
            }
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

/// Runs `nft -f -` inside.
fn nft(namespace: &Namespace, script: &str) -> io::Result<()> {
    let script = script.to_owned();
    namespace.inside(move || {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::other("`nft` is not installed: it comes with the package nftables")
                }
                _ => error,
            })?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(said.lines().next().unwrap_or("nft failed").to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_redirects_what_is_steered_and_spares_the_proxy() {
        let addresses = ["10.0.0.1:5432", "[::]:5432"].map(|address| address.parse().unwrap()).to_vec();
        let text = script("guard_agent", 0x67_0001, &[Redirected { addresses, ports: (4001, Some(6001)) }]);
        for part in [
            "table inet guard_agent\ndelete table inet guard_agent\n",
            "type nat hook prerouting",
            "type nat hook output",
            "meta mark 0x670001 return",
            "ip daddr 10.0.0.1 tcp dport 5432 redirect to :4001",
            "meta nfproto ipv6 fib daddr type local tcp dport 5432 redirect to :6001",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn names_take_what_nftables_takes() {
        assert_eq!(table_name("a-b.c"), "guard_a_b_c");
    }
}
