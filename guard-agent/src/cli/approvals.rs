//! `guard-agent approvals`: people decide on statements that wait. Who decides is whom the kernel names, so there is
//! nothing to log in to.

mod output;

use std::{io::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use guard_common::api::agent::{
    ApprovalRequest, DecideApprovalRequest, ListApprovalsRequest, ShowApprovalRequest,
};
use tonic::{Code, Status};

use super::{fail, print};
use crate::{
    agent::{self, LocalError},
    config::Config,
};

/// It is over, was decided already, or nobody may decide twice.
const TOO_LATE: u8 = 3;
/// The caller may not decide.
const NOT_YOU: u8 = 4;
/// There is no such request.
const UNKNOWN: u8 = 5;

const AFTER_HELP: &str = "\
Examples:
  guard-agent approvals list                       what waits, and whether you may decide on it
  guard-agent approvals show k3m9x2pa --full       all of it, with literals and parameters
  guard-agent approvals approve k3m9x2pa --reason \"ticket 4711\"
  guard-agent approvals deny k3m9x2pa --reason \"not on a Friday\"

Exit codes: 0 it worked; 1 it did not; 2 the command line is wrong; 3 the request is over or decided already;
4 you may not decide on it; 5 there is no such request that you may see.";

/// List, show, approve and deny statements that wait
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ApprovalsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What waits: what you have asked for, and what you may decide on
    List {
        /// What is over as well
        #[arg(long, short)]
        all: bool,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Everything about one request
    Show {
        /// Its id
        id: String,
        /// With literals and parameters: for whoever may decide on it
        #[arg(long)]
        full: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Let it run
    Approve(DecideArgs),
    /// Refuse it
    Deny(DecideArgs),
}

#[derive(Debug, Args)]
struct DecideArgs {
    /// Its id
    id: String,
    /// Why: it stands in the record
    #[arg(long, short, default_value = "", hide_default_value = true)]
    reason: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Agent(#[from] LocalError),
    #[error("{}", .0.message())]
    Said(#[from] Status),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Agent(_) => ExitCode::FAILURE,
            Self::Said(status) => match status.code() {
                Code::FailedPrecondition => ExitCode::from(TOO_LATE),
                Code::PermissionDenied => ExitCode::from(NOT_YOU),
                Code::NotFound => ExitCode::from(UNKNOWN),
                _ => ExitCode::FAILURE,
            },
        }
    }
}

/// Runs `guard-agent approvals`.
pub(super) fn run(args: &ApprovalsArgs, config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(ask(&args.command, config)) {
        Ok(text) => print(|out| out.write_all(text.as_bytes())),
        Err(failure) => {
            let code = failure.exit_code();
            fail(failure);
            code
        }
    }
}

async fn ask(command: &Command, config: &Config) -> Result<String, Failure> {
    let mut agent = agent::connect_approvals(&config.paths.run).await?;
    Ok(match command {
        Command::List { all, json } => {
            let requests = agent.list(ListApprovalsRequest { all: *all }).await?.into_inner().requests;
            if *json { requests.iter().map(line).collect() } else { output::table(&requests, *all) }
        }
        Command::Show { id, full, json } => {
            let asked = ShowApprovalRequest { id: id.clone(), full: *full };
            let request = agent.show(asked).await?.into_inner();
            if *json { line(&request) } else { output::describe(&request, *full) }
        }
        Command::Approve(args) => decide(&mut agent, args, true).await?,
        Command::Deny(args) => decide(&mut agent, args, false).await?,
    })
}

type Client = guard_common::api::agent::approvals_client::ApprovalsClient<tonic::transport::Channel>;

async fn decide(agent: &mut Client, args: &DecideArgs, approve: bool) -> Result<String, Failure> {
    let asked = DecideApprovalRequest { id: args.id.clone(), approve, reason: args.reason.clone() };
    let request = agent.decide(asked).await?.into_inner();
    Ok(if args.json { line(&request) } else { output::decided(&request) })
}

fn line(request: &ApprovalRequest) -> String {
    // A message of plain fields has a JSON form.
    let mut text = serde_json::to_string(request).unwrap_or_default();
    text.push('\n');
    text
}
