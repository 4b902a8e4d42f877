//! TLS in the configuration: what the proxy offers its clients, and how it reaches the server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, ServerConfig};

/// TLS towards clients. With nothing set the proxy presents the server's own certificate, so that channel binding holds
/// from the client to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Whether clients may, or must, talk TLS.
    pub mode: TlsMode,
    /// Certificate chain, PEM, the proxy's own certificate first. The server's where it is not set.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM. Nobody but its owner and group may read it.
    pub key: Option<PathBuf>,
    /// Authorities that sign clients' certificates, PEM. With it clients are asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// Certificates that these authorities have revoked, PEM.
    pub client_crl: Option<PathBuf>,
    /// Whether clients that talk TLS have to present a certificate.
    pub client_certificate: ClientCertificateMode,
    /// Oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
}

/// Whether clients may, or must, talk TLS. Unix sockets never do, as with PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Requests for TLS are declined.
    Off,
    /// As the client likes.
    #[default]
    Allow,
    /// Clients in clear are refused.
    Require,
}

/// Whether clients that talk TLS have to present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificateMode {
    /// One that is presented has to be valid.
    #[default]
    Optional,
    /// There has to be one.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// TLS between the proxy and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTlsMode {
    /// Where channel binding needs it, and where the server lets nobody in without it.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Where the server offers it.
    Prefer,
    /// Always, whatever certificate the server presents.
    Require,
    /// Always, with a certificate that an authority of `upstream_ca` has signed.
    VerifyCa,
    /// The same, and the certificate has to name the server.
    VerifyFull,
}

impl UpstreamTlsMode {
    /// The server's certificate is checked.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// A session without TLS is none.
    pub fn demands(self) -> bool {
        self == Self::Require || self.verifies()
    }
}

impl Config {
    /// TLS towards the clients of a server: its own settings, or those of all.
    pub fn tls<'a>(&'a self, server: Option<&'a ServerConfig>) -> &'a TlsConfig {
        server.and_then(|server| server.tls.as_ref()).unwrap_or(&self.proxy.tls)
    }

    /// TLS towards a server: its own setting, or that of all.
    pub fn upstream_tls(&self, server: Option<&ServerConfig>) -> UpstreamTlsMode {
        server.and_then(|server| server.upstream_tls).unwrap_or(self.proxy.upstream_tls)
    }
}

/// Checks the settings together: the key's last part and what is wrong.
pub(super) fn check(tls: &TlsConfig) -> Result<(), (&'static str, &'static str)> {
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => return Err(("key", "name the certificate's private key too")),
        (None, Some(_)) => return Err(("certificate", "name the key's certificate too")),
        _ => {}
    }
    if tls.client_crl.is_some() && tls.client_ca.is_none() {
        return Err(("client_ca", "`client_crl` says what is revoked, `client_ca` whose certificates count"));
    }
    if tls.client_certificate == ClientCertificateMode::Required && tls.mode == TlsMode::Off {
        return Err(("mode", "clients present certificates in TLS only: choose \"allow\" or \"require\""));
    }
    Ok(())
}

/// Checks a server's way to its database server.
pub(super) fn check_upstream(
    server: &ServerConfig,
    mode: UpstreamTlsMode,
) -> Result<(), (&'static str, &'static str)> {
    if mode.verifies() && server.upstream_ca.is_none() {
        return Err(("upstream_ca", "name the authorities that have signed the server's certificate"));
    }
    if mode.demands() && server.unix_socket.is_some() {
        return Err(("unix_socket", "there is no TLS on unix sockets: take this out, or `upstream_tls`"));
    }
    if let Some(name) = &server.upstream_name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        return Err(("upstream_name", "write a host name or an IP address as the certificate has it"));
    }
    Ok(())
}
