//! What the console can be told: its settings file enters, checked settings leave. Unknown keys are refused.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use url::Url;

use super::HttpError;
use crate::{people::Role, settings};

/// Where the console listens, and with what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
    /// Without TLS.
    pub plaintext: bool,
    /// The rest.
    pub file: File,
}

/// The settings file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// How people reach the console, as `https://guard.example.org`: for links in messages and for signing in elsewhere.
    pub url: Option<Url>,
    /// The certificate with its chain, PEM. Without it the console makes one itself.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Addresses of proxies that say in `X-Forwarded-For` for whom they ask.
    pub trusted_proxies: Vec<IpAddr>,
    /// Signing in elsewhere.
    pub oidc: Option<Oidc>,
    /// Who is told of statements that wait.
    pub webhooks: Vec<Webhook>,
}

/// An identity provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// As its tokens name it; `/.well-known/openid-configuration` is asked for below it.
    pub issuer: String,
    /// The console's name there.
    pub client_id: String,
    /// A file with the console's secret there. Without: a public client, with PKCE alone.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Asked for beside `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim with somebody's name.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// The claim with somebody's groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// What the button says.
    #[serde(default = "label")]
    pub label: String,
    /// A certificate authority to trust besides the system's, PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// For each role the groups that have it.
    pub roles: BTreeMap<String, Vec<String>>,
}

/// Somebody who is told of statements that wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// For logs.
    pub name: String,
    /// Where to.
    pub url: Url,
    /// What it takes.
    #[serde(default)]
    pub kind: WebhookKind,
    /// A file with the secret that signs what is sent: at least 16 bytes. `json` needs one.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// A certificate authority to trust besides the system's, PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// What a webhook takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WebhookKind {
    /// JSON, signed.
    #[default]
    Json,
    /// A message as Slack and its relatives take it.
    Slack,
}

fn scopes() -> Vec<String> {
    ["profile", "email", "groups"].map(str::to_owned).to_vec()
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn label() -> String {
    "Sign in with single sign-on".to_owned()
}

impl File {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, HttpError> {
        let failed = |problem: String| HttpError::Settings { path: path.display().to_string(), problem };
        let file: Self = settings::read(path).map_err(failed)?;
        file.check().map_err(failed)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("`certificate` and `key` come together".to_owned());
        }
        if self.url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https") || url.path() != "/")
        {
            return Err("`url` is the console's own address, as in https://guard.example.org".to_owned());
        }
        if (self.oidc.is_some() || !self.webhooks.is_empty()) && self.url.is_none() {
            return Err("`url` is needed: where people come back to from elsewhere".to_owned());
        }
        if let Some(oidc) = &self.oidc {
            Url::parse(&oidc.issuer).map_err(|error| format!("`oidc.issuer`: {error}"))?;
            for role in oidc.roles.keys() {
                role.parse::<Role>().map_err(|error| format!("`oidc.roles`: {error}"))?;
            }
        }
        for hook in &self.webhooks {
            if !matches!(hook.url.scheme(), "http" | "https") || hook.url.host_str().is_none() {
                return Err(format!("`webhooks` {}: its url begins with https:// or http://", hook.name));
            }
            if hook.kind == WebhookKind::Json && hook.secret_file.is_none() {
                return Err(format!(
                    "`webhooks` {}: `secret_file` is needed to sign what is sent",
                    hook.name
                ));
            }
        }
        Ok(())
    }
}

/// A secret in a file: without the line's end.
pub fn secret(path: &Path) -> Result<String, HttpError> {
    let failed = |problem: String| HttpError::Settings { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    match (1..=4096).contains(&secret.len()) {
        true => Ok(secret.to_owned()),
        false => Err(failed("a secret has 1 to 4096 bytes".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<File>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        check("").unwrap();
        check("url = \"https://guard.example.org\"").unwrap();
        for (text, key) in [
            ("colour = 1", "colour"),
            ("certificate = \"a.pem\"", "key"),
            ("url = \"ftp://x\"", "url"),
            ("[oidc]\nissuer = \"https://i\"\nclient_id = \"g\"\n[oidc.roles]\n", "url"),
            (
                "url = \"https://g\"\n[oidc]\nissuer = \"https://i\"\nclient_id = \"g\"\n[oidc.roles]\nroot = []",
                "root",
            ),
            ("url = \"https://g\"\n[[webhooks]]\nname = \"h\"\nurl = \"https://h/x\"", "secret_file"),
            (
                "url = \"https://g\"\n[[webhooks]]\nname = \"h\"\nkind = \"slack\"\nurl = \"file:///etc\"",
                "https://",
            ),
        ] {
            let problem = check(text).unwrap_err();
            assert!(problem.contains(key), "{text}: {problem}");
        }
    }
}
