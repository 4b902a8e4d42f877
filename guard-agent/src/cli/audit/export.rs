//! `audit export`: records in the form that can be verified elsewhere.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use guard_common::audit::export::{FORM, Header, Line};

use super::CommandError;
use crate::audit::{self as journal, Reader};

/// How often the progress is said.
const PROGRESS: Duration = Duration::from_secs(2);

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The first record
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// The last record; the newest one where it is not said
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    /// Write here instead of to standard output; only its owner may read the file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the records.
pub fn run(args: &ExportArgs, folder: &Path) -> Result<(), CommandError> {
    let written = match &args.output {
        None => export(args, folder, &mut BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let file = file.map_err(|error| CommandError::File { path: path.clone(), error })?;
            let mut out = BufWriter::new(file);
            let written = export(args, folder, &mut out)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            written
        }
    };
    if io::stderr().is_terminal() || args.output.is_some() {
        eprintln!(
            "guard-agent: {written} records written; `guard-verify --key KEY FILE` proves them anywhere"
        );
    }
    Ok(())
}

fn export(args: &ExportArgs, folder: &Path, out: &mut impl Write) -> Result<u64, CommandError> {
    let header = Header {
        guard_audit_export: FORM,
        agent_id: journal::agent_id(folder)?.map(|id| id.to_string()).unwrap_or_default(),
        public_key: journal::public_key(folder).ok().map(|key| key.to_string()),
    };
    line(out, &header)?;
    let last = args.to.unwrap_or(u64::MAX);
    let mut reader = Reader::open(folder, args.from)?;
    let (mut written, mut told) = (0_u64, Instant::now());
    while reader.position() <= last
        && let Some(sealed) = reader.next_record()?
    {
        // The first record that is still there may come behind the last that is wanted.
        if sealed.sequence > last {
            break;
        }
        line(out, &Line::of(&sealed))?;
        written += 1;
        if told.elapsed() >= PROGRESS && io::stderr().is_terminal() {
            eprintln!("guard-agent: record {} ..", sealed.sequence);
            told = Instant::now();
        }
    }
    out.flush()?;
    Ok(written)
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
