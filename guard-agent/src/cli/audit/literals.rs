//! `audit literals-key` and `audit open`: what statements were sent with, for whoever may read it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use guard_common::audit::{
    display::visible,
    export::{Header, Line, MAX_LINE},
    v1::{
        AsSent, Parameter, Record, SealedRecord, Statement, literals::Kept, parameter::Value, record::Body,
    },
};
use serde_json::json;

use super::{CommandError, output::open};
use crate::audit::{NotOpened, Opener, Reader};

/// Longest key file in bytes.
const MAX_KEY_FILE: u64 = 4_096;

/// Options of `literals-key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Write the private key here: a new file, for its owner alone. Keep it off the hosts whose records it opens
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

/// Makes a pair: the private key goes to a file, the public one is printed.
pub fn make_key(args: &KeyArgs) -> Result<(), CommandError> {
    let pair = Opener::generate();
    let failed = |error| CommandError::File { path: args.output.clone(), error };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.output).map_err(failed)?;
    file.write_all(pair.to_file().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let key = pair.public();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "public_key": key.to_string(), "key_id": key.id() }))?;
    } else {
        writeln!(out, "[journal]\nliterals = \"encrypted\"\nliterals_key = \"{key}\"")?;
    }
    Ok(out.flush()?)
}

/// Options of `open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// File of the private key, for what is sealed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Read an export of `audit export` instead of this host's journal; `-` is standard input
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// The first record
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// The last record; the newest one where it is not said
    #[arg(long, value_name = "SEQUENCE", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// As JSON lines
    #[arg(long)]
    json: bool,
}

impl OpenArgs {
    /// True where the journal of this host is read.
    pub fn reads_journal(&self) -> bool {
        self.export.is_none()
    }
}

/// Prints what statements were sent with.
pub fn run(args: &OpenArgs, folder: &Path) -> Result<(), CommandError> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    let mut shown = Shown { out: BufWriter::new(io::stdout().lock()), json: args.json, key, unopened: None };
    match &args.export {
        None => {
            let mut reader = Reader::open(folder, args.from)?;
            while reader.position() <= args.to
                && let Some(sealed) = reader.next_record()?
            {
                shown.record(&sealed, args)?;
            }
        }
        Some(path) if path == Path::new("-") => lines(io::stdin().lock(), args, &mut shown)?,
        Some(path) => {
            let file =
                File::open(path).map_err(|error| CommandError::Unread { path: path.clone(), error })?;
            lines(BufReader::new(file), args, &mut shown)?;
        }
    }
    shown.out.flush()?;
    match shown.unopened {
        None => Ok(()),
        Some((records, first)) => Err(CommandError::Sealed(records, first)),
    }
}

fn lines(mut input: impl BufRead, args: &OpenArgs, shown: &mut Shown) -> Result<(), CommandError> {
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        let wrong = |reason: String| CommandError::Line(number, reason);
        // One byte more than what is taken shows that there is more.
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
        let read =
            input.by_ref().take(limit).read_line(&mut line).map_err(|error| wrong(error.to_string()))?;
        if read > MAX_LINE {
            return Err(wrong("it is longer than any record".to_owned()));
        }
        let text = line.trim_end();
        if read == 0 {
            break;
        }
        if number == 1 {
            Header::read(text).map_err(|error| wrong(error.to_string()))?;
        } else {
            shown.record(&Line::read(text).map_err(|error| wrong(error.to_string()))?, args)?;
        }
    }
    Ok(())
}

fn read_key(path: &Path) -> Result<Opener, CommandError> {
    let unread = |error| CommandError::Unread { path: path.to_owned(), error };
    let mut text = String::new();
    File::open(path).map_err(unread)?.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(unread)?;
    text.parse().map_err(|_| CommandError::NoPrivateKey(path.to_owned()))
}

/// What has been shown, and what could not be.
struct Shown {
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    key: Option<Opener>,
    /// How many stayed sealed, and why the first of them did.
    unopened: Option<(u64, String)>,
}

impl Shown {
    fn record(&mut self, sealed: &SealedRecord, args: &OpenArgs) -> Result<(), CommandError> {
        let Record { at, body: Some(Body::Statement(statement)), .. } = open(sealed) else { return Ok(()) };
        let Some(kept) = statement.literals.as_ref().and_then(|literals| literals.kept.as_ref()) else {
            return Ok(());
        };
        if !(args.from..=args.to).contains(&sealed.sequence) {
            return Ok(());
        }
        let opened = match kept {
            Kept::Clear(clear) => Ok(clear.clone()),
            Kept::Withheld(why) => Err(why.clone()),
            Kept::Sealed(sealed) => {
                let opened = match &self.key {
                    Some(key) => key.open(sealed, &statement.fingerprint),
                    None => Err(NotOpened::OtherKey(sealed.key_id.clone())),
                };
                opened.map_err(|error| {
                    let (records, _) = self.unopened.get_or_insert_with(|| (0, error.to_string()));
                    *records += 1;
                    error.to_string()
                })
            }
        };
        if self.json {
            self.json(sealed.sequence, at.as_ref(), &statement, &opened)?;
        } else {
            self.text(sealed.sequence, &statement, &opened)?;
        }
        Ok(())
    }

    fn json(
        &mut self,
        sequence: u64,
        at: Option<&pbjson_types::Timestamp>,
        statement: &Statement,
        opened: &Result<AsSent, String>,
    ) -> io::Result<()> {
        let mut line = json!({
            "sequence": sequence,
            "at": at,
            "connection_id": statement.connection_id,
            "ordinal": statement.ordinal.to_string(),
            "db_user": statement.db_user,
            "database": statement.database,
            "redacted": statement.text,
        });
        match opened {
            Ok(sent) => line["sent"] = serde_json::to_value(sent)?,
            Err(why) => line["unopened"] = why.as_str().into(),
        }
        writeln!(self.out, "{line}")
    }

    fn text(
        &mut self,
        sequence: u64,
        statement: &Statement,
        opened: &Result<AsSent, String>,
    ) -> io::Result<()> {
        let (user, database) = (visible(&statement.db_user), visible(&statement.database));
        write!(self.out, "{sequence:>8}  {user}@{database}: ")?;
        match opened {
            Err(why) => writeln!(self.out, "{}\n{:>10}-- {}", visible(&statement.text), "", visible(why)),
            Ok(sent) => {
                writeln!(
                    self.out,
                    "{}{}",
                    visible(&sent.text),
                    more(sent.text.len() as u64, sent.text_bytes)
                )?;
                for (number, parameter) in sent.parameters.iter().enumerate() {
                    writeln!(self.out, "{:>10}${} = {}", "", number + 1, value(parameter))?;
                }
                if sent.parameters_left_out > 0 {
                    writeln!(self.out, "{:>10}-- {} parameters more", "", sent.parameters_left_out)?;
                }
                Ok(())
            }
        }
    }
}

fn value(parameter: &Parameter) -> String {
    match &parameter.value {
        _ if parameter.null => "NULL".to_owned(),
        Some(Value::Text(text)) => {
            format!("'{}'{}", visible(&text.replace('\'', "''")), more(0, parameter.bytes))
        }
        Some(Value::Binary(bytes)) => format!("\\x{}{}", hex::encode(bytes), more(0, parameter.bytes)),
        None => "''".to_owned(),
    }
}

/// That it is not all.
fn more(shown: u64, bytes: u64) -> String {
    if bytes > shown { format!(" .. ({bytes} bytes)") } else { String::new() }
}
