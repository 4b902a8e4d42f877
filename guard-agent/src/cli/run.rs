//! `guard-agent run`.

use std::{io::IsTerminal, process::ExitCode};

use tracing_subscriber::EnvFilter;

use super::fail;
use crate::{agent, config::Loaded};

/// Runs the agent with this configuration.
pub(super) fn run(loaded: Loaded) -> ExitCode {
    // To standard error: journald adds time and unit, a terminal gets colours.
    let filter = EnvFilter::try_from_env("GUARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match &loaded.file {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::info!("no configuration file: monitoring what is found, refusing nothing"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(Box::pin(agent::run(loaded.config)));
            runtime.shutdown_background();
            result
        }
        Err(error) => return fail(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}
