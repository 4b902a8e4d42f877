//! Reporting what processes of this host connect to.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Network;

/// Places that may be listed.
const MOST: usize = 256;

/// Reporting what processes of this host connect to: the agent on a database's host sees no more of them than an address.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientsConfig {
    /// Report connections of this host's processes to databases of other hosts. It takes no database on this host.
    pub report: bool,
    /// Where such databases are, beside those that the control plane knows: `10.0.0.5:5432`, `10.0.3.0/24:5432`,
    /// `[2001:db8::/32]:5432`.
    pub servers: Vec<Place>,
    /// Ask the control plane where the fleet's databases are.
    pub from_control: bool,
}

impl Default for ClientsConfig {
    fn default() -> Self {
        Self { report: false, servers: Vec::new(), from_control: true }
    }
}

/// A port of an address, or of all addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    network: Network,
    port: u16,
}

impl Place {
    /// Its port.
    pub const fn port(self) -> u16 {
        self.port
    }

    /// Whether that is one of its addresses.
    pub fn has(self, address: SocketAddr) -> bool {
        self.port == address.port() && self.network.contains(address.ip())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no place: write `10.0.0.5:5432`, `10.0.3.0/24:5432` or `[2001:db8::1]:5432`")
        };
        let (network, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = network.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        // Without brackets nobody knows where an IPv6 address ends.
        let network = bare.or((!network.contains(':')).then_some(network)).ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Self { network: network.parse().map_err(|_| wrong())?, port })
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", self.network, self.port)
    }
}

/// The key that is wrong, and what to write.
pub(super) fn check(config: &ClientsConfig) -> Result<(), (String, String)> {
    let wrong = |key: &str, problem: &str| Err((key.to_owned(), problem.to_owned()));
    if config.servers.len() > MOST {
        return wrong(
            "clients.servers",
            "list at most 256: a network such as 10.0.3.0/24:5432 stands for many",
        );
    }
    if config.report && config.servers.is_empty() && !config.from_control {
        return wrong(
            "clients.report",
            "nobody says where databases are: list some in `clients.servers`, or set `clients.from_control = true`",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ClientsConfig, Place, check};

    #[test]
    fn a_place_is_a_port_of_addresses() {
        let has = |place: &str, address: &str| {
            let place: Place = place.parse().unwrap();
            let again: Place = place.to_string().parse().unwrap();
            assert_eq!(again, place);
            place.has(address.parse().unwrap())
        };
        assert!(has("10.0.0.5:5432", "10.0.0.5:5432") && !has("10.0.0.5:5432", "10.0.0.6:5432"));
        assert!(has("10.0.3.0/24:5432", "10.0.3.77:5432") && !has("10.0.3.0/24:5432", "10.0.3.77:5433"));
        assert!(has("[2001:db8::/32]:5432", "[2001:db8::7]:5432") && !has("[::/0]:5432", "10.0.0.1:5432"));
        assert!(has("10.0.0.5:5432", "[::ffff:10.0.0.5]:5432"));
        for text in
            ["", "10.0.0.5", "10.0.0.5:0", "10.0.0.5:x", "db:5432", "2001:db8::1:5432", "[10.0.0.5:5432"]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn to_report_somebody_has_to_say_what() {
        let mut config = ClientsConfig { report: true, ..ClientsConfig::default() };
        assert!(check(&config).is_ok());
        config.from_control = false;
        assert_eq!(check(&config).unwrap_err().0, "clients.report");
        config.servers = vec!["10.0.0.5:5432".parse().unwrap()];
        assert!(check(&config).is_ok());
        config.servers = vec![config.servers[0]; 257];
        assert_eq!(check(&config).unwrap_err().0, "clients.servers");
    }
}
