//! Files of columns by day: `date=YYYY-MM-DD/part-<id>.parquet`, for whatever reads Parquet.
//!
//! Enters: records. Leaves: whole files, written aside and moved into place once they are on disk, so that nobody reads half a
//! file. Until then they are held, and come again after a failure; what lies there half written after a crash is removed.

mod part;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use guard_common::audit::flat::{Flat, time};

use self::part::{Part, PartError};
use super::{Given, Outlet, OutletError, Taken, config};
use crate::store::now;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// 2000-01-01: a clock before that is none.
const OLDEST: i64 = 946_684_800_000_000;
/// What lies in here is not finished; readers leave out names with a dot.
const ASIDE: &str = ".guard-writing";

/// A folder of files.
pub(super) struct Parquet {
    settings: config::Parquet,
    aside: PathBuf,
    /// Nothing unfinished is left by a crash or a failure.
    clean: bool,
    held: Held,
}

/// What is not in place yet.
#[derive(Default)]
struct Held {
    parts: BTreeMap<String, Part>,
    bytes: usize,
    since: Option<Instant>,
}

impl Parquet {
    /// The folder need not be there.
    pub(super) fn open(settings: &config::Parquet, name: &str) -> Self {
        let aside = settings.folder.join(ASIDE).join(name);
        Self { settings: settings.clone(), aside, clean: false, held: Held::default() }
    }

    fn failed(&self, error: &PartError) -> OutletError {
        OutletError::Receiver {
            address: self.settings.folder.display().to_string(),
            problem: error.to_string(),
        }
    }

    /// Works on what is held, on a thread that may wait for the disk.
    async fn with_held(
        &mut self,
        work: impl FnOnce(&Path, &Path, &mut Held) -> Result<(), PartError> + Send + 'static,
    ) -> Result<(), OutletError> {
        // What a failure leaves is removed with the next attempt.
        let clean = std::mem::take(&mut self.clean);
        let (folder, aside) = (self.settings.folder.clone(), self.aside.clone());
        let mut held = std::mem::take(&mut self.held);
        let worked = tokio::task::spawn_blocking(move || {
            let prepared = if clean { Ok(()) } else { prepare(&aside) };
            let done = prepared.map_err(PartError::from).and_then(|()| work(&folder, &aside, &mut held));
            done.map(|()| held)
        });
        // Where it fails, what was held is dropped, and with it its files.
        let worked = worked.await.map_err(|error| self.failed(&PartError::Interrupted(error.to_string())))?;
        self.held = worked.map_err(|error| self.failed(&error))?;
        self.clean = true;
        Ok(())
    }
}

#[tonic::async_trait]
impl Outlet for Parquet {
    async fn take(&mut self, batch: &[Given]) -> Result<Taken, OutletError> {
        let rows: Vec<Flat> = batch.iter().map(|given| given.flat.clone()).collect();
        self.with_held(move |_, aside, held| {
            held.since.get_or_insert_with(Instant::now);
            for row in rows {
                let part = held.parts.entry(date(&row)).or_insert_with(|| Part::new(aside));
                held.bytes += part.add(row)?;
            }
            Ok(())
        })
        .await?;
        Ok(Taken::Held)
    }

    fn is_due(&self) -> bool {
        let age = Duration::from_secs(self.settings.part_seconds);
        let full = self.held.bytes
            >= usize::try_from(self.settings.part_mib).unwrap_or(usize::MAX).saturating_mul(1024 * 1024);
        full || self.held.since.is_some_and(|since| since.elapsed() >= age)
    }

    async fn settle(&mut self) -> Result<(), OutletError> {
        self.with_held(|folder, _, held| put_in_place(folder, std::mem::take(held).parts)).await
    }

    async fn forget(&mut self) {
        self.held = Held::default();
    }
}

/// The day under which a row is filed: by its own time, or today where that is none.
fn date(row: &Flat) -> String {
    let now = now();
    let at = row.occurred_at.filter(|at| (OLDEST..now.saturating_add(DAY)).contains(at)).unwrap_or(now);
    time(at)[..10].to_owned()
}

/// Makes the folder for what is not finished, empty.
fn prepare(aside: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(aside)?;
    for left in fs::read_dir(aside)? {
        let left = left?.path();
        tracing::warn!(file = %left.display(), "removed what was not finished; its records come again");
        fs::remove_file(left)?;
    }
    Ok(())
}

/// All files, or none of them.
fn put_in_place(folder: &Path, parts: BTreeMap<String, Part>) -> Result<(), PartError> {
    let mut finished = Vec::with_capacity(parts.len());
    for (date, part) in parts {
        if let Some(part) = part.finish()? {
            finished.push((folder.join(format!("date={date}")), part));
        }
    }
    let mut placed: Vec<PathBuf> = Vec::with_capacity(finished.len());
    for (day, part) in finished {
        let moved =
            DirBuilder::new().recursive(true).mode(0o750).create(&day).and_then(|()| part.place(&day));
        match moved {
            Ok(path) => placed.push(path),
            Err(error) => {
                // They come again, and would be there twice.
                placed.iter().for_each(|path| _ = fs::remove_file(path));
                return Err(error.into());
            }
        }
    }
    // The names are on disk before anybody relies on them.
    for path in &placed {
        if let Some(day) = path.parent() {
            File::open(day)?.sync_all()?;
        }
    }
    Ok(File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_none_files_under_today() {
        let row = |at| Flat { occurred_at: at, ..Flat::default() };
        assert_eq!(date(&row(Some(1_709_251_199_999_999))), "2024-02-29");
        let today = time(now())[..10].to_owned();
        for at in [None, Some(0), Some(i64::MIN), Some(i64::MAX), Some(now() + 2 * DAY)] {
            assert_eq!(date(&row(at)), today);
        }
    }
}
