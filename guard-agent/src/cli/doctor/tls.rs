//! What TLS each proxy would offer its clients, and whether channel binding would hold.

use super::Check;
use crate::{
    config::{Config, TlsMode, UpstreamTlsMode},
    servers::{self, Server},
    tls::{ClientTls, Connector, Offer, Origin, presented},
};

/// One line for each server of this host. The servers are asked for their certificates.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    servers::find(config).iter().map(|server| check(config, server)).collect()
}

fn check(config: &Config, server: &Server) -> Check {
    let configured = config.servers.iter().find(|configured| configured.name == server.name);
    let tls = ClientTls::new(config.tls(configured).clone());
    if tls.mode() == TlsMode::Off {
        return Check::new(&server.name, true, "off, as configured");
    }
    let refreshed = tls.refresh(server.pid);
    let offer = match (refreshed, tls.offer()) {
        (Err(error), _) | (_, Err(error)) => return Check::new(&server.name, false, error.to_string()),
        (Ok(_), Ok(offer)) => offer,
    };
    let whose = match offer.origin() {
        Origin::Server => "the server's own",
        Origin::Configured => "configured",
    };
    let asks = if offer.asks() { ", asks clients for certificates" } else { "" };
    let by_unix = configured.is_some_and(|configured| configured.unix_socket.is_some());
    let elsewhere = by_unix || config.upstream_tls(configured) == UpstreamTlsMode::Off;
    let (holds, binding) = match elsewhere {
        true => {
            (false, "withheld, since `unix_socket` or `upstream_tls` sends sessions another way".to_owned())
        }
        false => binding(server, &offer),
    };
    Check::new(
        &server.name,
        holds,
        format!("`{}` ({whose}){asks}; SCRAM-SHA-256-PLUS {binding}", offer.file()),
    )
}

/// Whether client and server would see the same certificate.
fn binding(server: &Server, offer: &Offer) -> (bool, String) {
    let Ok(connector) = Connector::new(UpstreamTlsMode::Auto, None, None) else {
        return (false, "withheld: no TLS towards the server".to_owned());
    };
    let Some(address) = server.reachable_addresses().next() else {
        return (false, "withheld: the server does not listen on TCP".to_owned());
    };
    match presented(address, &connector) {
        Ok(Some(certificate)) if certificate == *offer.certificate() => (true, "holds".to_owned()),
        Ok(Some(_)) => (
            false,
            "withheld: the server presents another certificate; leave `tls.certificate` out, or reload the server"
                .to_owned(),
        ),
        Ok(None) => (false, "withheld: the server offers no TLS (`ssl = off`)".to_owned()),
        Err(error) => (false, format!("not known: {address} does not answer: {error}")),
    }
}
