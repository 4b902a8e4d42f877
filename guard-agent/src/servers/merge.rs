//! Configured and discovered servers become one list, each server once. Pure.

use std::collections::HashSet;

use super::Server;
use crate::config::{Environment, ServerConfig};

/// The configured servers, with `environment` where they have none of their own.
pub fn configured(servers: &[ServerConfig], environment: &Environment) -> Vec<Server> {
    servers
        .iter()
        .map(|server| Server {
            name: server.name.clone(),
            engine: server.engine,
            environment: server.environment.clone().unwrap_or_else(|| environment.0.clone()),
            addresses: vec![server.address],
            unix_sockets: server.unix_socket.iter().cloned().collect(),
            pid: None,
            elsewhere: None,
        })
        .collect()
}

/// Adds to the `configured` servers what was `discovered`: a server that is configured keeps its name and gains
/// pid, addresses and sockets; any other is added in `environment`, under a name of its own.
pub fn merge(configured: Vec<Server>, discovered: Vec<Server>, environment: &Environment) -> Vec<Server> {
    let mut servers = configured;
    let mut taken: HashSet<String> = servers.iter().map(|server| server.name.clone()).collect();
    let fixed = servers.len();
    for found in discovered {
        if let Some(known) = servers[..fixed].iter_mut().find(|known| same(known, &found)) {
            known.pid = found.pid;
            known.elsewhere.clone_from(&found.elsewhere);
            if let Some(elsewhere) = &mut known.elsewhere {
                elsewhere.configured.clone_from(&known.addresses);
            }
            for address in found.addresses {
                if !known.addresses.contains(&address) {
                    known.addresses.push(address);
                }
            }
            for path in found.unix_sockets {
                if !known.unix_sockets.contains(&path) {
                    known.unix_sockets.push(path);
                }
            }
            continue;
        }
        let mut added = found;
        added.environment.clone_from(&environment.0);
        let name = added.name.clone();
        let mut number = 2;
        while !taken.insert(added.name.clone()) {
            added.name = format!("{name}-{number}");
            number += 1;
        }
        servers.push(added);
    }
    servers
}

/// A configured server and a discovered one are the same where they share a socket or an address, or where one
/// listens on every address and the other on the same port.
///
/// In another network namespace the same address is another one: there, a configured server is one that is reached at
/// an address of that namespace. The same holds for paths.
fn same(known: &Server, found: &Server) -> bool {
    if let Some(elsewhere) = &found.elsewhere
        && elsewhere.namespace.is_some()
    {
        let reached = elsewhere.outside(&found.addresses);
        return known.addresses.iter().any(|own| reached.contains(own));
    }
    let socket = known.unix_sockets.iter().any(|path| found.unix_sockets.contains(path));
    let address = known.addresses.iter().any(|own| {
        found.addresses.iter().any(|other| {
            own.port() == other.port()
                && (own.ip().to_canonical() == other.ip().to_canonical()
                    || own.ip().is_unspecified()
                    || other.ip().is_unspecified())
        })
    });
    socket || address
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Elsewhere, Engine},
        Environment, Server, merge,
    };

    fn server(name: &str, addresses: &[&str], sockets: &[&str], pid: Option<u32>) -> Server {
        Server {
            name: name.to_owned(),
            engine: Engine::Postgresql,
            environment: "staging".to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            unix_sockets: sockets.iter().map(Into::into).collect(),
            pid,
            elsewhere: None,
        }
    }

    fn in_container(name: &str, address: &str) -> Server {
        Server {
            name: name.to_owned(),
            elsewhere: Some(Elsewhere {
                namespace: Some(4711),
                pid: 8,
                own_addresses: vec!["127.0.0.1".parse().unwrap(), "172.17.0.2".parse().unwrap()],
                configured: Vec::new(),
                label: "web".to_owned(),
            }),
            ..server(name, &[address], &["/run/s"], Some(8))
        }
    }

    #[test]
    fn the_same_address_in_a_container_is_another_server() {
        let known = server("orders", &["127.0.0.1:5432"], &["/run/s"], None);
        let found = in_container("postgresql-5432@web", "0.0.0.0:5432");
        let servers = merged(vec![known], vec![found.clone()]);
        assert_eq!((servers.len(), servers[0].pid), (2, None));
        let by_bridge = server("orders", &["172.17.0.2:5432"], &[], None);
        let servers = merged(vec![by_bridge], vec![found]);
        assert_eq!((servers.len(), servers[0].pid), (1, Some(8)));
        let first = servers[0].reachable_addresses().next().map(|address| address.to_string());
        assert_eq!(first.as_deref(), Some("172.17.0.2:5432"));
        assert!(servers[0].reachable_sockets().is_empty());
    }

    fn merged(configured: Vec<Server>, discovered: Vec<Server>) -> Vec<Server> {
        merge(configured, discovered, &Environment("production".to_owned()))
    }

    #[test]
    fn a_configured_server_keeps_its_name_and_gains_the_rest() {
        let known = server("orders", &["127.0.0.1:5432"], &[], None);
        let found = server("postgresql-5432", &["0.0.0.0:5432", "[::]:5432"], &["/run/s"], Some(7));
        let servers = merged(vec![known], vec![found]);
        let expected = ["127.0.0.1:5432", "0.0.0.0:5432", "[::]:5432"];
        assert_eq!(servers, [server("orders", &expected, &["/run/s"], Some(7))]);
    }

    #[test]
    fn the_socket_alone_is_enough() {
        let known = server("orders", &["127.0.0.1:9999"], &["/run/s"], None);
        let found = server("postgresql-5432", &[], &["/run/s"], Some(7));
        assert_eq!(merged(vec![known], vec![found])[0].pid, Some(7));
    }

    #[test]
    fn the_same_port_on_another_address_is_another_server() {
        let known = server("orders", &["10.0.0.1:5432"], &[], None);
        let found = server("postgresql-5432", &["10.0.0.2:5432"], &[], Some(7));
        let servers = merged(vec![known], vec![found]);
        assert_eq!(servers.len(), 2);
        assert_eq!(servers[1].environment, "production");
    }

    #[test]
    fn names_stay_unique() {
        let known = server("postgresql-5432", &["127.0.0.1:1"], &[], None);
        let found = |ip: &str| server("postgresql-5432", &[&format!("{ip}:5432")], &[], None);
        let names: Vec<String> = merged(vec![known], vec![found("10.0.0.1"), found("10.0.0.2")])
            .into_iter()
            .map(|server| server.name)
            .collect();
        assert_eq!(names, ["postgresql-5432", "postgresql-5432-2", "postgresql-5432-3"]);
    }

    #[test]
    fn two_discovered_servers_on_one_port_stay_two() {
        // In two network namespaces.
        let found = |pid| server("postgresql-5432", &["0.0.0.0:5432"], &[], Some(pid));
        assert_eq!(merged(Vec::new(), vec![found(7), found(8)]).len(), 2);
    }
}
