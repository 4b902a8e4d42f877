//! Where the control plane is. A configured URL enters; an endpoint leaves, or why it can't be used.

use std::{net::IpAddr, time::Duration};

use tonic::transport::{Endpoint, Uri};

use super::UplinkError;

/// How often a silent control plane is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Plaintext, therefore only on this host.
pub fn parse(address: &str) -> Result<Endpoint, UplinkError> {
    let wrong = || UplinkError::Endpoint(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    match uri.scheme_str() {
        Some("http") if is_loopback(host) => {}
        Some("http" | "https") => return Err(UplinkError::Plaintext(address.to_owned())),
        _ => return Err(wrong()),
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
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
        assert!(matches!(parse("https://127.0.0.1:7400"), Err(UplinkError::Plaintext(_))));
        for nonsense in ["127.0.0.1:7400", "", "http://", "ftp://127.0.0.1", "/run/socket"] {
            assert!(matches!(parse(nonsense), Err(UplinkError::Endpoint(_))), "{nonsense}");
        }
    }
}
