//! `audit export`: records in a form that can be verified elsewhere, or in one that query engines read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use guard_common::audit::{
    columns::ColumnsWriter,
    export::{FORM, Header, Line},
    flat::Flat,
    v1::{Record, SealedRecord, record::Body},
};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use prost::Message;

use super::CommandError;
use crate::{
    agent,
    audit::{self as journal, Reader},
};

/// How often the progress is said.
const PROGRESS: Duration = Duration::from_secs(2);
/// As a file of columns names what has written it.
const WRITER: &str = concat!("guard-agent ", env!("CARGO_PKG_VERSION"));

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The first record
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// The last record; the newest one where it is not said
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    /// `jsonl` can be verified by `guard-verify`; `parquet` is for query engines, with the columns of docs/outlets.md
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write here instead of to standard output; only its owner may read the file, which appears when it is whole
    #[arg(short, long, value_name = "FILE", required_if_eq("format", "parquet"))]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Jsonl,
    Parquet,
}

/// Writes the records.
pub fn run(args: &ExportArgs, folder: &Path) -> Result<(), CommandError> {
    let written = match &args.output {
        None => lines(args, folder, &mut BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let failed = |error| CommandError::File { path: path.clone(), error };
            let (aside, file) = Aside::beside(path).map_err(failed)?;
            let mut out = BufWriter::new(file);
            let written = match args.format {
                Format::Jsonl => lines(args, folder, &mut out)?,
                Format::Parquet => columns(args, folder, path, &mut out)?,
            };
            let file = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            aside.place(path).map_err(failed)?;
            written
        }
    };
    if io::stderr().is_terminal() || args.output.is_some() {
        match args.format {
            Format::Jsonl => eprintln!(
                "guard-agent: {written} records written; `guard-verify --key KEY FILE` proves them anywhere"
            ),
            Format::Parquet => eprintln!("guard-agent: {written} records written"),
        }
    }
    Ok(())
}

/// A file that is not in its place yet. Dropped, it is removed.
struct Aside(PathBuf);

impl Aside {
    /// One beside `path`, where nothing may be.
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.writing", std::process::id()));
        let aside = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        Ok((Self(aside), file))
    }

    /// Moves it to its place, whole, and sees that on disk.
    fn place(self, path: &Path) -> io::Result<()> {
        match renameat2(AT_FDCWD, &self.0, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems cannot promise that nothing is replaced; a moment ago nothing was there.
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) => fs::rename(&self.0, path)?,
            renamed => renamed?,
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone already where it was moved.
        let _ = fs::remove_file(&self.0);
    }
}

/// One JSON object per line, behind a header.
fn lines(args: &ExportArgs, folder: &Path, out: &mut impl Write) -> Result<u64, CommandError> {
    let header = Header {
        guard_audit_export: FORM,
        agent_id: owner(folder)?,
        public_key: journal::public_key(folder).ok().map(|key| key.to_string()),
    };
    line(out, &header)?;
    let written = each(args, folder, |sealed| Ok(line(out, &Line::of(&sealed))?))?;
    out.flush()?;
    Ok(written)
}

/// A file of columns.
fn columns(
    args: &ExportArgs,
    folder: &Path,
    path: &Path,
    out: &mut (impl Write + Send),
) -> Result<u64, CommandError> {
    let failed = |error| CommandError::File { path: path.to_owned(), error: io::Error::other(error) };
    let agent_id = owner(folder)?;
    // As the journal itself names it, from the first start on that it tells of.
    let mut host = agent::hostname();
    let mut file = ColumnsWriter::new(out, WRITER).map_err(failed)?;
    let written = each(args, folder, |sealed| {
        if let Ok(Record { body: Some(Body::AgentStarted(started)), .. }) = Record::decode(&*sealed.payload) {
            host = started.host;
        }
        file.add(Flat::of(&agent_id, &host, &sealed)).map_err(failed).map(|_| ())
    })?;
    file.finish().map_err(failed)?.flush()?;
    Ok(written)
}

fn owner(folder: &Path) -> Result<String, CommandError> {
    Ok(journal::agent_id(folder)?.map(|id| id.to_string()).unwrap_or_default())
}

/// Hands out the records that are asked for; how many.
fn each(
    args: &ExportArgs,
    folder: &Path,
    mut take: impl FnMut(SealedRecord) -> Result<(), CommandError>,
) -> Result<u64, CommandError> {
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
        let sequence = sealed.sequence;
        take(sealed)?;
        written += 1;
        if told.elapsed() >= PROGRESS && io::stderr().is_terminal() {
            eprintln!("guard-agent: record {sequence} ..");
            told = Instant::now();
        }
    }
    Ok(written)
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use guard_common::audit::v1::AgentStopped;
    use guard_tests::{receivers::duckdb, skip};

    use super::*;
    use crate::{
        audit::AuditLog,
        config::{JournalConfig, Sync},
    };

    fn journal(folder: &Path, records: u64) {
        let config = JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() };
        let (log, handle) = AuditLog::open(&config, folder).unwrap();
        for n in 0..records {
            log.record(Body::AgentStopped(AgentStopped { reason: format!("reason {n}") }));
        }
        drop((log, handle));
    }

    fn args(format: Format, output: &Path) -> ExportArgs {
        ExportArgs { from: 1, to: None, format, output: Some(output.to_owned()) }
    }

    #[test]
    fn an_independent_reader_finds_every_record_in_a_file_of_columns() {
        if skip::without(&[skip::Need::DuckDb]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("journal"), dir.path().join("records.parquet"));
        journal(&folder, 20_000);
        run(&args(Format::Parquet, &file), &folder).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let ask = |query: &str| duckdb(&query.replace("ALL", &format!("'{}'", file.display()))).unwrap();
        assert_eq!(
            ask("select count(*), count(distinct key), min(sequence), max(sequence) from ALL"),
            ["[20000, 20000, 1, 20000]"]
        );
        assert_eq!(
            ask("select kind, detail, length(hash) from ALL where sequence = 4712"),
            ["[\"agent-stopped\", \"reason 4711\", 64]"]
        );
        let some = dir.path().join("some.parquet");
        run(&ExportArgs { from: 11, to: Some(20), ..args(Format::Parquet, &some) }, &folder).unwrap();
        let count = format!("select count(*), min(sequence) from '{}'", some.display());
        assert_eq!(duckdb(&count).unwrap(), ["[10, 11]"]);
    }

    #[test]
    fn a_file_is_whole_or_not_there_and_nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("journal");
        journal(&folder, 50);
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        for format in [Format::Jsonl, Format::Parquet] {
            let file = out.join("records");
            run(&args(format, &file), &folder).unwrap();
            let before = fs::read(&file).unwrap();
            let again = run(&args(format, &file), &folder).unwrap_err();
            assert!(matches!(again, CommandError::File { .. }), "{again}");
            assert_eq!(fs::read(&file).unwrap(), before);
            fs::remove_file(&file).unwrap();
        }
        let segment = folder.join("journal-00000000000000000001.seg");
        let mut bytes = fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, bytes).unwrap();
        for format in [Format::Jsonl, Format::Parquet] {
            run(&args(format, &out.join("records")), &folder).unwrap_err();
            assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "half a file is left");
        }
        let nowhere = run(&args(Format::Parquet, Path::new("/nonexistent/records")), &folder).unwrap_err();
        assert!(nowhere.to_string().contains("/nonexistent/records"), "{nowhere}");
    }
}
