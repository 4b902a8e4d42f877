//! The results of one statement under way: what each is planned to be, what has come of it.

use std::{rc::Rc, sync::Arc};

use smallvec::SmallVec;

use super::{Portal, Source, copies::CopyNow, witnesses::Gathering};
use crate::{
    mask::{
        plan::{Plan, Told},
        rewrite::{Detectors, RowRewriter, Settings, Tally},
    },
    sql::Statement,
};

/// What happens to the next row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// It has to be looked up.
    #[default]
    Ask,
    /// It passes unread.
    Pass,
    /// It is rewritten.
    Rewrite,
}

/// The plan of a result, and what its columns are called.
#[derive(Clone, Debug)]
pub(in super::super) struct Planned {
    pub(super) plan: Rc<Plan>,
    pub(super) names: Rc<[Box<str>]>,
}

/// What a statement's results are made of.
#[derive(Debug, Default)]
pub(in super::super) struct Results {
    /// What the statement may be. `None`: masking is off.
    pub(super) source: Option<Source>,
    /// Which statement of the text answers now.
    pub(super) part: usize,
    pub(super) now: Now,
    told: Option<Box<Told>>,
    /// The portal that it runs.
    pub(super) portal: Option<Rc<Portal>>,
    /// The client has been told.
    noticed: bool,
    /// It goes on with a portal that has run before: its end is on record.
    pub(in super::super) again: bool,
}

/// The result that comes now.
#[derive(Debug, Default)]
pub(super) enum Now {
    /// None, or the server has not described it.
    #[default]
    Undescribed,
    /// Its rows pass.
    Pass(Planned),
    /// Its rows are rewritten.
    Rows(Box<RowsNow>),
    /// COPY data that is rewritten.
    Copy(Box<CopyNow>),
}

/// Rows that are being rewritten.
#[derive(Debug)]
pub(super) struct RowsNow {
    pub(super) planned: Planned,
    pub(super) rewriter: RowRewriter<Detectors>,
    /// Columns of which many values may tell more than one.
    pub(super) gathering: Option<Box<Gathering>>,
    /// The last row was changed: the next one is likely to be as well, and is not looked at beforehand.
    pub(super) changes: bool,
}

impl Results {
    /// Of a simple query.
    pub(super) fn of_query(source: Source) -> Self {
        Self { source: Some(source), ..Self::default() }
    }

    /// Of a portal.
    pub(super) fn of_portal(portal: Rc<Portal>, source: Source) -> Self {
        Self { source: Some(source), portal: Some(portal), ..Self::default() }
    }

    /// The server has described the result that comes now.
    pub(super) fn begin(&mut self, planned: Planned, settings: Settings) {
        self.now = if planned.plan.untouched {
            Now::Pass(planned)
        } else {
            let plan = &planned.plan;
            let rewriter = RowRewriter::new(plan.columns.clone(), plan.rules.clone(), settings, Detectors);
            Now::Rows(Box::new(RowsNow { planned, rewriter, gathering: None, changes: false }))
        };
    }

    /// What the client is told of the result that comes now, once.
    pub(super) fn notice(&mut self) -> Option<String> {
        let Now::Rows(rows) = &self.now else { return None };
        if std::mem::replace(&mut self.noticed, true) {
            return None;
        }
        let names: Vec<String> =
            rows.planned.plan.report.masked_names().map(|(name, rule)| format!("{name} ({rule})")).collect();
        (!names.is_empty()).then(|| format!("guard: masked in this result: {}", names.join(", ")))
    }

    /// The result that came is over: what has come of it.
    pub(super) fn end_result(&mut self) {
        self.part += 1;
        self.noticed = false;
        self.tell();
    }

    fn tell(&mut self) {
        let (planned, tally) = match std::mem::take(&mut self.now) {
            Now::Undescribed => return,
            Now::Pass(planned) if !planned.plan.report.says_something() => return,
            Now::Pass(planned) => (planned, Tally::default()),
            Now::Rows(mut rows) => (rows.planned.clone(), rows.rewriter.take_tally()),
            Now::Copy(mut copy) => copy.take_tally(),
        };
        let name = |at: usize| planned.names.get(at).map_or_else(String::new, ToString::to_string);
        self.told.get_or_insert_default().add(&planned.plan.report, &tally, name);
    }

    /// The record's word on masking; empty where there is nothing to say.
    pub(in super::super) fn record(&mut self, only_recorded: bool) -> Vec<u8> {
        self.tell();
        self.told.as_ref().map_or_else(Vec::new, |told| told.encode(only_recorded))
    }

    /// Values in the text of an error or a notice were masked.
    pub(super) fn masked_in_message(&mut self, values: u64) {
        self.told.get_or_insert_default().in_message(values);
    }

    /// The statements that it may be.
    pub(super) fn texts(&self) -> SmallVec<[Arc<Statement>; 2]> {
        let source = self.source.as_ref().map(Source::all).unwrap_or_default();
        source.iter().map(|looked| Arc::clone(&looked.statement)).collect()
    }

    /// True where the statement has to do with sensitive columns, or may have.
    pub(super) fn touches(&self) -> bool {
        self.source.as_ref().is_some_and(Source::touches)
    }
}
