//! COPY to the client: its statement says what the data is made of, and every piece of it is rewritten.

use super::super::{SessionError, pending::Awaited, relay::Relay};
use super::{
    Fate, Step,
    results::{Now, Planned},
    rows::MAX_WATCHED,
};
use crate::{
    mask::{
        copy::{self, CopyForm},
        rewrite::{CopyRewriter, Detectors, Rewritten, Tally},
    },
    wire::postgres::{Backend, CopyOutResponse, HEADER_BYTES, Header},
};

/// A COPY that is being rewritten.
#[derive(Debug)]
pub(super) struct CopyNow {
    planned: Planned,
    rewriter: CopyRewriter<Detectors>,
}

impl CopyNow {
    /// What was masked, with the plan that it was masked by.
    pub(super) fn take_tally(&mut self) -> (Planned, Tally) {
        (self.planned.clone(), self.rewriter.take_tally())
    }
}

impl Relay<'_> {
    /// CopyOutResponse: plans what is done with the data.
    pub(super) fn copy_out_begins(&mut self, header: Header, at: usize) -> Result<Step, SessionError> {
        if !self.is_here(header, at)? {
            return Ok(Step::Waits);
        }
        let body = &self.pipe.answers.unread()[at + HEADER_BYTES..at + header.total()];
        let form = CopyOutResponse::read(body).map_err(SessionError::Server)?;
        let form = CopyForm { binary: form.binary, columns: form.columns() };
        let (source, part) = match self.pending.front() {
            Some(Awaited::Query(running) | Awaited::Execute(Some(running))) => {
                (running.results.source.clone().unwrap_or_default(), running.results.part)
            }
            _ => return Ok(Step::Pass),
        };
        let parts = self.parts(&source, part);
        let Some(masking) = self.masking.as_deref() else { return Ok(Step::Pass) };
        // Which text it is decides how the data is written: of several, none is certain.
        let text = match source.all() {
            [one] => copy::read(&one.statement, part, &masking.catalog, &self.session),
            _ => None,
        };
        let Some(text) = text else {
            let (_, shown) = self.worker.found_rules(&self.session, self.scope, masking);
            return if masking.enforces && (masking.sensitive || !shown) {
                Err(SessionError::UnknownCopy)
            } else {
                Ok(Step::Pass)
            };
        };
        let fields = text.describe(form);
        let planned = self.worker.plan_copy(masking, (&self.session, self.scope), &parts, &fields);
        let rewriter = if planned.plan.untouched {
            None
        } else {
            let plan = &planned.plan;
            let (rules, limit) = (plan.rules.clone(), masking.masks.max_row);
            let made = CopyRewriter::new(
                plan.columns.to_vec(),
                text.options(form),
                (rules, Detectors),
                text.settings(masking.settings),
                limit,
            );
            match made {
                Ok(rewriter) => Some(rewriter),
                Err(error) if masking.enforces => return Err(SessionError::Unmaskable(error)),
                Err(_) => None,
            }
        };
        if let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front() {
            running.results.now = match rewriter {
                Some(rewriter) => Now::Copy(Box::new(CopyNow { planned, rewriter })),
                None => Now::Pass(planned),
            };
        }
        Ok(Step::Pass)
    }

    /// A piece of the data.
    pub(super) fn mask_copy_data(&mut self, header: Header, at: usize) -> Result<Step, SessionError> {
        let Some(masking) = self.masking.as_deref_mut() else { return Ok(Step::Pass) };
        if masking.fate == Fate::Pass {
            return Ok(Step::Pass);
        }
        let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front() else {
            return Ok(Step::Pass);
        };
        let Now::Copy(copy) = &mut running.results.now else {
            masking.fate = Fate::Pass;
            return Ok(Step::Pass);
        };
        if !masking.enforces && header.body > MAX_WATCHED {
            // The row that it belongs to is not followed any more.
            masking.fate = Fate::Pass;
            return Ok(Step::Pass);
        }
        if header.body > masking.masks.max_row {
            return Err(SessionError::LongRow(masking.masks.max_row));
        }
        let unread = self.pipe.answers.unread();
        let Some(body) = unread.get(at + HEADER_BYTES..at + header.total()) else {
            return Ok(Step::Waits);
        };
        masking.scratch.clear();
        match copy.rewriter.data(body, &mut masking.scratch) {
            Ok(Rewritten::Changed) if masking.enforces => {
                self.pipe.answers.pass(at);
                self.pipe.answers.skip(header.total());
                self.pipe.answers.insert(&masking.scratch);
                self.on_answer(Backend::CopyData)?;
                Ok(Step::Done)
            }
            Ok(_) => Ok(Step::Pass),
            Err(_) if !masking.enforces => {
                // What is only watched goes on, unwatched.
                masking.fate = Fate::Pass;
                Ok(Step::Pass)
            }
            Err(error) => Err(SessionError::Unmaskable(error)),
        }
    }

    /// CopyDone.
    pub(super) fn copy_out_ends(&mut self, _header: Header, _at: usize) -> Result<Step, SessionError> {
        let enforces = self.masking.as_ref().is_some_and(|masking| masking.enforces);
        if let Some(Awaited::Query(running) | Awaited::Execute(Some(running))) = self.pending.front()
            && let Now::Copy(copy) = &running.results.now
            && let Err(error) = copy.rewriter.finish()
            && enforces
        {
            return Err(SessionError::Unmaskable(error));
        }
        Ok(Step::Pass)
    }
}
