//! What a statement's text says before it runs: what it shows, and whether it may use what it does not show.

use std::{rc::Rc, sync::Arc};

use guard_common::audit::v1::{Decision, decision::Verdict};
use guard_policy::Use;

use super::super::{
    pending::{Awaited, Described, Running},
    prepared::Candidates,
    relay::Relay,
};
use super::{Results, Source};
use crate::{
    sql::{
        Statement,
        lineage::{self, ColumnUse, Named, Outputs, Part},
    },
    wire::postgres::describe_portal,
};

impl Relay<'_> {
    /// What the simple query that was read as `statement` may be.
    pub(in super::super) fn source_of_query(&mut self, statement: &Arc<Statement>) -> Option<Source> {
        let masking = self.masking.as_deref_mut()?;
        masking.follow_catalog();
        Some(Source::One(self.worker.look(masking, (&self.session, self.scope), statement)))
    }

    /// What the portal may be that runs one of `statements`; those that SQL names are followed by its text.
    pub(in super::super) fn source_of_portal(
        &mut self,
        portal: &[u8],
        statements: &Candidates,
    ) -> Option<Source> {
        let masking = self.masking.as_deref()?;
        let bound = masking.portals.get(portal);
        let source = match self.names.doubts_portal(portal) {
            true => Source::Unknown,
            false => self.source_of_prepared(statements)?,
        };
        *bound.source.borrow_mut() = source.clone();
        Some(source)
    }

    /// What the prepared statements `statements` may be.
    fn source_of_prepared(&mut self, statements: &Candidates) -> Option<Source> {
        let masking = self.masking.as_deref_mut()?;
        masking.follow_catalog();
        let look = |statement| self.worker.look(masking, (&self.session, self.scope), statement);
        Some(Source::of(statements.iter().map(look).collect()))
    }

    /// The refusal of policy, where a statement uses a column that it must not. In monitor mode it is kept for the record
    /// of the statement.
    pub(in super::super) fn refused_inference(&mut self, source: Option<&Source>) -> Option<Arc<Decision>> {
        let (masking, source) = (self.masking.as_deref()?, source?);
        if !self.worker.decides_inference() {
            return None;
        }
        let mut uses = Vec::new();
        for looked in source.all() {
            for part in &looked.lineage.parts {
                collect(part, &mut uses);
                if let Outputs::Prepared(name) = &part.outputs {
                    for inner in self.prepared_parts(name) {
                        collect(&inner, &mut uses);
                    }
                }
            }
        }
        let tags = source
            .all()
            .iter()
            .flat_map(|looked| super::tagging::tagged(&looked.statement, masking, &self.session));
        let mut would_refuse = None;
        for (column, used) in by_column(uses).into_iter().chain(tags) {
            let column = super::rows::policy_column(&masking.catalog, &column);
            let decision = self.worker.infer(&self.session, self.scope, &column, &used);
            match decision.as_ref().map(|decision| decision.verdict()) {
                Some(Verdict::Refused) => return decision.map(Arc::new),
                Some(Verdict::WouldRefuse) => would_refuse = would_refuse.or(decision),
                _ => {}
            }
        }
        if let Some(masking) = self.masking.as_deref_mut() {
            masking.inferred = would_refuse.map(Arc::new);
        }
        None
    }

    /// What SQL's EXECUTE of `name` may run, as it would be read now.
    pub(super) fn prepared_parts(&self, name: &str) -> Vec<Part> {
        let Some(masking) = self.masking.as_deref() else { return Vec::new() };
        let look = |statement| self.worker.look(masking, (&self.session, self.scope), statement);
        let mut parts = Vec::new();
        for statement in masking.statements_named(name) {
            for part in &look(statement).lineage.parts {
                if let Some(Named::Prepared(named, inner)) = &part.names
                    && **named == *name
                {
                    parts.push((**inner).clone());
                }
            }
        }
        // Those of the protocol have the same names.
        for statement in &self.names.statement(name.as_bytes()) {
            if let [part] = look(statement).lineage.parts.as_slice()
                && part.names.is_none()
            {
                parts.push(part.clone());
            }
        }
        parts
    }

    /// What FETCH from `name` may show.
    pub(super) fn cursor_parts(&self, name: &str) -> Vec<Part> {
        let Some(masking) = self.masking.as_deref() else { return Vec::new() };
        let cursors = masking.cursors_named(name).unwrap_or_default();
        let parts = cursors.iter().filter_map(|(looked, at)| {
            // By what is known now: settings may have been written since.
            let looked = self.worker.look(masking, (&self.session, self.scope), &looked.statement);
            match &looked.lineage.parts.get(*at)?.names {
                Some(Named::Cursor(_, part)) => Some((**part).clone()),
                _ => None,
            }
        });
        parts.collect()
    }

    /// A statement is sent: what it names and writes.
    pub(in super::super) fn note_sent(&mut self, statement: &Statement, source: Option<&Source>) {
        // A name that SQL closes and opens anew is a protocol's portal as well.
        if self.names.names_portals() && renames_portals(statement) {
            self.names.doubt_portals();
            if let Some(masking) = self.masking.as_deref_mut() {
                masking.portals.doubt();
            }
        }
        let Some(masking) = self.masking.as_deref_mut() else { return };
        let all = source.map(Source::all).unwrap_or_default();
        if all.is_empty() {
            masking.sent(statement, None);
        }
        for looked in all {
            masking.sent(statement, Some(looked));
        }
    }

    /// The decision of a policy in monitor mode on the statement that is about to be admitted.
    pub(in super::super) fn would_refuse_inference(&mut self) -> Option<Arc<Decision>> {
        self.masking.as_deref_mut()?.inferred.take()
    }

    /// The results of a statement that is about to be sent.
    pub(in super::super) fn results_of(&self, source: Option<Source>) -> Results {
        source.map_or_else(Results::default, Results::of_query)
    }

    /// The results of a portal that is about to run. Where nobody has asked the server to describe it, guard does.
    pub(in super::super) fn results_of_portal(
        &mut self,
        name: &[u8],
        source: Option<Source>,
        ordinal: u64,
    ) -> Results {
        let (Some(masking), Some(source)) = (self.masking.as_deref(), source) else {
            return Results::default();
        };
        let portal = masking.portals.get(name);
        *portal.source.borrow_mut() = source.clone();
        portal.ordinal.set(ordinal);
        // What it runs by a name may be another statement than when it was described.
        if !source.all().iter().all(|looked| looked.stands_alone()) {
            portal.asked.set(false);
            *portal.planned.borrow_mut() = None;
        }
        if !portal.asked.replace(true) {
            self.pipe.requests.insert(&describe_portal(name));
            self.pending.push(Awaited::Describe(Described::Own(Rc::clone(&portal))));
        }
        Results::of_portal(portal, source)
    }

    /// A portal goes on that has run before; `None` where masking is off.
    pub(in super::super) fn goes_on(&mut self, name: &[u8]) -> Option<Running> {
        let portal = self.masking.as_deref()?.portals.get(name);
        let (source, ordinal) = (portal.source.borrow().clone(), portal.ordinal.get());
        let mut results = self.results_of_portal(name, Some(source), ordinal);
        results.again = true;
        Some(Running { results, ..Running::new(ordinal) })
    }

    /// The client asks the server to describe the portal `name`.
    pub(in super::super) fn describes_portal(&mut self, name: &[u8]) -> Described {
        let Some(masking) = self.masking.as_deref() else { return Described::Statement };
        let portal = masking.portals.get(name);
        portal.asked.set(true);
        let statements = self.names.of_portal(name);
        if let Some(source) = self.source_of_prepared(&statements) {
            *portal.source.borrow_mut() = source;
        }
        Described::Portal(portal)
    }
}

/// Whether `statement` may close portals, and open others by their names.
fn renames_portals(statement: &Statement) -> bool {
    super::look::runs_unfollowed(statement) || super::says(statement, &["close", "declare", "discard"])
}

fn collect(part: &Part, uses: &mut Vec<ColumnUse>) {
    uses.extend(part.uses.iter().cloned());
    if let Some(Named::Cursor(_, inner) | Named::Prepared(_, inner)) = &part.names {
        collect(inner, uses);
    }
}

/// Each column once, with all that it is used for.
fn by_column(uses: Vec<ColumnUse>) -> Vec<(lineage::Column, Use)> {
    let mut columns: Vec<(lineage::Column, Use)> = Vec::new();
    for ColumnUse { column, usage, equality } in uses {
        let at = columns.iter().position(|(known, _)| *known == column).unwrap_or_else(|| {
            columns.push((column, Use { words: Vec::new(), equality: true }));
            columns.len() - 1
        });
        let used = &mut columns[at].1;
        used.equality &= equality;
        if !used.words.contains(&usage.as_str()) {
            used.words.push(usage.as_str());
        }
    }
    columns
}
