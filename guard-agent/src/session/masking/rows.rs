//! What the server answers, under its plan: descriptions of results become plans, rows are rewritten by them.
//!
//! INVARIANT: a row whose result has no plan ends the session: it never passes.

use std::{rc::Rc, sync::Arc};

use guard_policy::Column;

use super::super::{
    SessionError,
    backend::MAX_CONTROL,
    pending::{Awaited, Described},
    relay::Relay,
};
use super::{Fate, Masking, Portal, Source, State, results::Now, witnesses::Gathering};
use crate::{
    catalog::Catalog,
    mask::{plan::unplaced, rewrite::Rewritten},
    sql::lineage::{self, Outputs, Part},
    wire::postgres::{Backend, HEADER_BYTES, Header, WireError},
};

/// Rows beyond this length are not looked at where they are only recorded.
pub(super) const MAX_WATCHED: usize = 64 * 1024;

/// What becomes of a message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Step {
    /// It goes on as ever.
    Pass,
    /// More of it is needed.
    Waits,
    /// It and others behind it, so many bytes together, are rows that go on as they are and have been counted.
    Clean(usize),
    /// It has been dealt with: what stands in its place is on its way.
    Done,
}

impl Relay<'_> {
    /// Deals with the message of the server that begins at `at`, where masking has a part in it.
    pub(in super::super) fn mask(
        &mut self,
        kind: Backend,
        header: Header,
        at: usize,
    ) -> Result<Step, SessionError> {
        let Some(masking) = self.masking.as_deref_mut() else { return Ok(Step::Pass) };
        if masking.reading {
            return self.mask_reading(kind, header, at);
        }
        if kind == Backend::DataRow {
            return match masking.fate {
                Fate::Pass => Ok(Step::Pass),
                Fate::Rewrite => match self.clean_rows(at) {
                    0 => self.mask_row(header, at),
                    bytes => Ok(Step::Clean(bytes)),
                },
                Fate::Ask => self.first_row(header, at),
            };
        }
        if kind == Backend::CopyData {
            return self.mask_copy_data(header, at);
        }
        masking.fate = Fate::Ask;
        match kind {
            Backend::RowDescription | Backend::NoData => self.on_description(kind, header, at),
            Backend::CopyOutResponse => self.copy_out_begins(header, at),
            Backend::CopyDone => self.copy_out_ends(header, at),
            Backend::CommandComplete | Backend::EmptyQueryResponse | Backend::PortalSuspended => {
                // Once: a message that has come in part is looked at again with the rest of it.
                if !self.is_here(header, at)? {
                    return Ok(Step::Waits);
                }
                self.result_ends();
                Ok(Step::Pass)
            }
            Backend::ErrorResponse
            | Backend::NoticeResponse
            | Backend::NotificationResponse
            | Backend::ParameterStatus
            | Backend::FunctionCallResponse => self.mask_message(kind, header, at),
            _ => Ok(Step::Pass),
        }
    }

    /// Whether the rows that come now pass unread, all of them.
    pub(in super::super) fn rows_pass(&self) -> bool {
        let pass = |masking: &Masking| masking.fate == Fate::Pass && !masking.reading;
        self.masking.as_deref().is_none_or(pass)
    }

    fn mask_reading(&mut self, kind: Backend, header: Header, at: usize) -> Result<Step, SessionError> {
        if !self.is_here(header, at)? {
            return Ok(Step::Waits);
        }
        Ok(if self.on_catalog(kind, header, at)? { Step::Done } else { Step::Pass })
    }

    /// Whether all of the message is here. One that is longer than any of its kind ends the session.
    pub(super) fn is_here(&self, header: Header, at: usize) -> Result<bool, SessionError> {
        if header.body > MAX_CONTROL {
            return Err(SessionError::Server(WireError::Length {
                tag: header.tag.into(),
                length: i64::try_from(header.body).unwrap_or(i64::MAX),
            }));
        }
        Ok(self.pipe.answers.unread().len() - at >= header.total())
    }

    /// RowDescription or NoData.
    fn on_description(&mut self, kind: Backend, header: Header, at: usize) -> Result<Step, SessionError> {
        if !self.is_here(header, at)? {
            return Ok(Step::Waits);
        }
        let (portal, own) = match self.pending.front() {
            Some(Awaited::Describe(Described::Portal(portal))) => (Some(Rc::clone(portal)), false),
            Some(Awaited::Describe(Described::Own(portal))) => (Some(Rc::clone(portal)), true),
            Some(Awaited::Describe(Described::Statement)) => return Ok(Step::Pass),
            _ => (None, false),
        };
        if kind == Backend::RowDescription {
            self.plan_rows(portal.as_ref(), header, at)?;
        }
        if !own {
            return Ok(Step::Pass);
        }
        self.pending.pop();
        self.pipe.answers.pass(at);
        self.pipe.answers.skip(header.total());
        Ok(Step::Done)
    }

    /// Plans what is done with the rows that the RowDescription at `at` announces.
    fn plan_rows(
        &mut self,
        portal: Option<&Rc<Portal>>,
        header: Header,
        at: usize,
    ) -> Result<(), SessionError> {
        let (source, part) = match (portal, self.pending.front()) {
            (Some(portal), _) => (portal.source.borrow().clone(), 0),
            (None, Some(Awaited::Query(running))) => {
                let results = &running.results;
                (results.source.clone().unwrap_or_default(), results.part)
            }
            (None, _) => return Ok(()),
        };
        let Some(masking) = self.masking.as_deref() else { return Ok(()) };
        let body = &self.pipe.answers.unread()[at + HEADER_BYTES..at + header.total()];
        let planned = match self.worker.known_plan(masking, self.scope, (&source, part), body) {
            Some(planned) => planned,
            None => {
                let parts = self.parts(&source, part);
                let session = (&self.session, self.scope);
                self.worker
                    .plan(masking, session, (&source, part), &parts, body)
                    .map_err(SessionError::Server)?
            }
        };
        let settings = masking.settings;
        match portal {
            Some(portal) => *portal.planned.borrow_mut() = Some(planned),
            None => {
                if let Some(Awaited::Query(running)) = self.pending.front() {
                    running.results.begin(planned, settings);
                }
            }
        }
        Ok(())
    }

    /// What the statement at `part` of a text may do: one for each that it may be. None: nobody knows.
    pub(super) fn parts(&self, source: &Source, part: usize) -> Vec<Part> {
        let mut all = Vec::new();
        for looked in source.all() {
            let parts = &looked.lineage.parts;
            // Of a text of very many statements the last stands for the rest.
            let part = parts.get(part).or(parts.last());
            match part.map(|part| &part.outputs) {
                None => all.extend(self.anything()),
                Some(Outputs::Prepared(name)) => all.extend(self.named(self.prepared_parts(name))),
                Some(Outputs::Cursor(name)) => all.extend(self.named(self.cursor_parts(name))),
                Some(_) => all.extend(part.cloned()),
            }
        }
        if all.is_empty() { self.anything().into_iter().collect() } else { all }
    }

    fn named(&self, parts: Vec<Part>) -> Vec<Part> {
        if parts.is_empty() {
            return self.anything().into_iter().collect();
        }
        let follow = |part: Part| match part.outputs {
            // A name for a name: not followed further.
            Outputs::Prepared(_) | Outputs::Cursor(_) => self.anything().unwrap_or_default(),
            _ => part,
        };
        parts.into_iter().map(follow).collect()
    }

    /// Any column of the database, where some are sensitive.
    fn anything(&self) -> Option<Part> {
        let any = || vec![lineage::Column::any()];
        let sensitive = self.masking.as_ref().is_some_and(|masking| masking.sensitive);
        sensitive.then(|| Part { outputs: Outputs::Unknown(any()), named: any(), ..Part::default() })
    }

    /// The first row after something else: whose it is says what happens to it.
    fn first_row(&mut self, header: Header, at: usize) -> Result<Step, SessionError> {
        let Some(masking) = self.masking.as_deref_mut() else { return Ok(Step::Pass) };
        let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front() else {
            return Err(SessionError::OutOfTurn("DataRow"));
        };
        let results = &mut running.results;
        if matches!(results.now, Now::Undescribed)
            && let Some(planned) = results.portal.as_ref().and_then(|portal| portal.planned.borrow().clone())
        {
            results.begin(planned, masking.settings);
        }
        masking.fate = match &results.now {
            Now::Undescribed if masking.enforces => return Err(SessionError::NotDescribed),
            Now::Undescribed | Now::Pass(_) => Fate::Pass,
            Now::Rows(_) | Now::Copy(_) => Fate::Rewrite,
        };
        if masking.fate == Fate::Pass {
            return Ok(Step::Pass);
        }
        if let Now::Rows(rows) = &mut results.now {
            if rows.rewriter.tally().rows() == 0 && rows.gathering.is_none() && masking.rows_wait.is_none() {
                rows.gathering = Gathering::begin(&rows.planned.plan, masking);
            }
            if masking.first_rows_wait(rows, self.pipe.answers.unread(), at) {
                masking.fate = Fate::Ask;
                return Ok(Step::Waits);
            }
        }
        let told = results.notice().filter(|_| masking.masks.notice && masking.enforces);
        if let Some(text) = told {
            self.pipe.answers.pass(at);
            self.pipe.answers.insert(&super::messages::notice(&text));
            return Ok(Step::Done);
        }
        self.mask_row(header, at)
    }

    /// Bytes of the rows from `at` on in which nothing is found.
    fn clean_rows(&mut self, at: usize) -> usize {
        let Some(masking) = self.masking.as_deref().filter(|_| !self.holding.is_estimating()) else {
            return 0;
        };
        let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front() else {
            return 0;
        };
        let Now::Rows(rows) = &mut running.results.now else { return 0 };
        if rows.changes || rows.gathering.is_some() {
            return 0;
        }
        let limit = if masking.enforces { masking.masks.max_row } else { MAX_WATCHED };
        let unread = self.pipe.answers.unread();
        let clean = rows.rewriter.clean_rows(unread.get(at..).unwrap_or_default(), limit);
        self.uncounted_rows += clean.rows;
        clean.bytes
    }

    fn mask_row(&mut self, header: Header, at: usize) -> Result<Step, SessionError> {
        let Some(masking) = self.masking.as_deref_mut() else { return Ok(Step::Pass) };
        if !masking.enforces && header.body > MAX_WATCHED {
            return Ok(Step::Pass);
        }
        if header.body > masking.masks.max_row {
            return Err(SessionError::LongRow(masking.masks.max_row));
        }
        let unread = self.pipe.answers.unread();
        let Some(body) = unread.get(at + HEADER_BYTES..at + header.total()) else {
            return Ok(Step::Waits);
        };
        let rows = match self.pending.front() {
            Some(Awaited::Query(running) | Awaited::Execute(Some(running))) => &mut running.results.now,
            _ => return Err(SessionError::OutOfTurn("DataRow")),
        };
        let Now::Rows(rows) = rows else { return Err(SessionError::OutOfTurn("DataRow")) };
        masking.later_row(rows, body);
        masking.scratch.clear();
        let rewritten = rows.rewriter.row(body, &mut masking.scratch);
        rows.changes = rewritten == Ok(Rewritten::Changed);
        match rewritten {
            Ok(Rewritten::Changed) if masking.enforces => {
                self.pipe.answers.pass(at);
                self.pipe.answers.skip(header.total());
                self.pipe.answers.insert(&masking.scratch);
                masking.rest();
                self.on_answer(Backend::DataRow)?;
                Ok(Step::Done)
            }
            Ok(_) => Ok(Step::Pass),
            Err(_) if !masking.enforces => Ok(Step::Pass),
            Err(error) => Err(SessionError::Unmaskable(error)),
        }
    }

    /// A result is over.
    fn result_ends(&mut self) {
        let Some(masking) = self.masking.as_deref_mut() else { return };
        let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front() else {
            return;
        };
        let results = &mut running.results;
        if matches!(results.now, Now::Undescribed)
            && let Some(planned) = results.portal.as_ref().and_then(|portal| portal.planned.borrow().clone())
        {
            // Without a single row.
            results.begin(planned, masking.settings);
        }
        if let Now::Rows(rows) = &mut results.now {
            masking.conclude(rows, true);
        }
        results.end_result();
    }
}

impl Masking {
    /// Gives memory back that a long row took.
    fn rest(&mut self) {
        const KEPT: usize = 256 * 1024;
        if self.scratch.capacity() > KEPT {
            self.scratch = Vec::new();
        }
    }

    /// The state of the database's catalog: a part of the key of caches.
    pub(super) fn state(&self) -> State {
        (Arc::as_ptr(&self.database).addr(), self.version, self.mark)
    }
}

/// A column of lineage, as policies see it.
pub(super) fn policy_column(catalog: &Catalog, source: &lineage::Column) -> Column {
    let known = source.id.and_then(|(relation, number)| catalog.sensitive(relation, number));
    Column {
        schema: if source.is_any() { String::new() } else { source.schema.to_string() },
        table: source.table.to_string(),
        tags: known.map_or_else(Vec::new, |known| known.tags.iter().map(ToString::to_string).collect()),
        ..unplaced(&source.column, source.kind, known.map_or("column name", |known| known.evidence.as_str()))
    }
}
