//! The console's API, asked from a terminal: with a token, over TLS.

use std::path::PathBuf;

use anyhow::Context;
use axum::http::{Method, Request, header};
use clap::Args;
use serde_json::Value;
use url::Url;

use crate::http::outward::Outward;

/// Where the API is, and with which token to come.
#[derive(Debug, Args)]
pub struct Program {
    /// The console's address
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "GUARD_CONTROL_CONSOLE_URL",
        default_value = "https://localhost:7480"
    )]
    console: Url,
    /// A file with an API token, as `Your account` in the console makes them
    #[arg(long, global = true, value_name = "FILE", env = "GUARD_CONTROL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// A certificate to trust besides the system's: `console.crt` in the data folder, where the console made its own
    #[arg(long, global = true, value_name = "FILE", env = "GUARD_CONTROL_CONSOLE_CA")]
    ca: Option<PathBuf>,
}

impl Program {
    /// Asks for something.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, Vec::new())
    }

    /// Does something.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?)
    }

    fn token(&self) -> anyhow::Result<String> {
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token in `{}`", path.display()))?,
            None => std::env::var("GUARD_CONTROL_TOKEN").map_err(|_| {
                anyhow::anyhow!(
                    "no token: make one under `Your account` in the console, and name its file with --token-file, or put \
                     it into GUARD_CONTROL_TOKEN"
                )
            })?,
        };
        Ok(token.trim().to_owned())
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
        let address = self.console.join(&format!("/api/v1{path}"))?;
        let request = Request::builder()
            .method(method)
            .uri(address.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token()?))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .context("the token has letters that no token has")?;
        let outward = Outward::new(self.ca.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(outward.send(request)).with_context(|| {
            format!(
                "no console answers at {}: name another with --console, and its certificate with --ca",
                self.console
            )
        })?;
        let status = answer.status();
        let value: Value = serde_json::from_slice(answer.body())
            .with_context(|| format!("{} answers {status}, and not as guard's console does", self.console))?;
        match status.is_success() || value.get("counted").is_some() {
            true => Ok(value),
            false => anyhow::bail!("{}", value["error"].as_str().unwrap_or("it did not work")),
        }
    }
}
