//! `guard-agent enroll`: joins a control plane.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{fail, print};
use crate::{
    agent,
    config::Config,
    uplink::{
        Fingerprint,
        enrol::{Invitation, enrol},
    },
};

/// Longest file with a token, in bytes.
const MAX_TOKEN: u64 = 4_096;

/// Options of `enroll`.
#[derive(Debug, Args)]
#[command(after_help = "`guard-control token create` on the control plane shows the whole command.\n\
    The key is made on this host and stays here. The agent renews its certificate by itself.")]
pub(super) struct EnrollArgs {
    /// The control plane, such as https://control.example:7443
    #[arg(long, value_name = "URL")]
    control: String,
    /// The join token; others on this host can see it while the command runs: prefer --token-file
    #[arg(long, value_name = "TOKEN", env = "GUARD_ENROLL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the join token; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token", required_unless_present = "token")]
    token_file: Option<PathBuf>,
    /// SHA-256 of the control plane's certificate authority, in hex
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Fingerprint,
    /// Also where this agent has a certificate that is still good
    #[arg(long)]
    again: bool,
}

/// Runs `enroll`.
pub(super) fn run(args: EnrollArgs, config: &Config) -> ExitCode {
    let token = match (args.token, &args.token_file) {
        (Some(token), _) => token,
        (None, Some(file)) => match read(file) {
            Ok(token) => token,
            Err(error) => return fail(format!("cannot read the token from `{}`: {error}", file.display())),
        },
        // clap has seen to it.
        (None, None) => return fail("--token or --token-file is needed"),
    };
    let invitation = Invitation {
        control: args.control,
        token: token.trim().to_owned(),
        fingerprint: args.ca_fingerprint,
        again: args.again,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let enrolled = runtime.block_on(enrol(&invitation, &agent::hostname(), &config.paths.state));
    match enrolled {
        Ok(named) => print(|out| {
            let until = jiff::Timestamp::try_from(named.expires).map(|at| at.to_string()).unwrap_or_default();
            writeln!(out, "enrolled at {} as agent {}", invitation.control, named.agent_id)?;
            writeln!(out, "the certificate is good until {until}; a running agent renews it by itself")?;
            writeln!(out, "a running agent has to be restarted once: systemctl restart guard-agent")
        }),
        Err(error) => fail(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_TOKEN).read_to_string(&mut text)?;
    } else {
        fs::File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
    }
    Ok(text)
}
