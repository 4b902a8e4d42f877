//! Where the control plane is. A configured URL enters; the way there leaves, or why it can't be used.

use std::{net::IpAddr, time::Duration};

use rustls::pki_types::ServerName;
use tonic::transport::{Endpoint, Uri};

use super::UplinkError;

/// How often a silent control plane is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The way to the control plane.
#[derive(Clone, Debug)]
pub struct Way {
    /// As it was configured.
    pub address: String,
    /// The name that the control plane's certificate must have; nothing for plaintext on this host.
    pub tls: Option<ServerName<'static>>,
    /// Name or address of the host.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) endpoint: Endpoint,
}

/// `https://` with certificates; `http://` on this host alone.
pub fn parse(address: &str) -> Result<Way, UplinkError> {
    let wrong = || UplinkError::Endpoint(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = match uri.scheme_str() {
        Some("http") if is_loopback(host) => None,
        Some("http") => return Err(UplinkError::Plaintext(address.to_owned())),
        Some("https") => Some(ServerName::try_from(bare.clone()).map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    // TLS is this agent's own affair: tonic is told of a plain connection.
    let plain = format!("http://{host}:{port}");
    let endpoint = Endpoint::from_shared(plain)
        .map_err(|_| wrong())?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(Way { address: address.to_owned(), tls, host: bare, port, endpoint })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_reached_in_plaintext() {
        for good in
            ["http://127.0.0.1:7400", "http://localhost:7400", "http://[::1]:7400", "http://127.9.9.9:1"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for remote in [
            "http://10.0.0.1:7400",
            "http://control.example:7400",
            "http://[2001:db8::1]:1",
            "http://localhost.example:1",
        ] {
            assert!(matches!(parse(remote), Err(UplinkError::Plaintext(_))), "{remote}");
        }
        for far in ["https://127.0.0.1:7443", "https://control.example", "https://[2001:db8::1]:7443"] {
            let way = parse(far).unwrap();
            assert!(way.tls.is_some() && !way.host.contains('['), "{way:?}");
        }
        for nonsense in ["127.0.0.1:7400", "", "http://", "ftp://127.0.0.1", "/run/socket"] {
            assert!(matches!(parse(nonsense), Err(UplinkError::Endpoint(_))), "{nonsense}");
        }
    }
}
