//! Prepared statements and portals of one session: which statements a name may stand for.
//!
//! The server says only later whether a Parse succeeded, and SQL's own PREPARE shares the names. So a name stands for
//! every statement that it may stand for, and whoever runs it needs leave for all of them.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::sql::Statement;

/// Statements that one name may stand for at once; beyond, the name counts as unknown.
const MAX_CANDIDATES: usize = 8;

/// What a name may stand for. Empty: nobody knows.
pub(super) type Candidates = SmallVec<[Arc<Statement>; 1]>;

/// What a name stands for, as far as the server's answers have come.
#[derive(Debug)]
struct Versions<T> {
    confirmed: Option<T>,
    /// Sent, not yet answered.
    sent: SmallVec<[Sent<T>; 1]>,
}

#[derive(Debug)]
struct Sent<T> {
    sequence: u64,
    /// The stretch between two Syncs in which it was sent.
    segment: u64,
    value: T,
}

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self { confirmed: None, sent: SmallVec::new() }
    }
}

impl<T> Versions<T> {
    /// What the name may stand for in a message of `segment`.
    ///
    /// What was sent in the same segment is certain: had it failed, the server would skip the message too.
    fn possible(&self, segment: u64) -> impl Iterator<Item = &T> {
        let certain = self.sent.last().filter(|sent| sent.segment == segment);
        let all = self.confirmed.iter().chain(self.sent.iter().map(|sent| &sent.value));
        let skip_all = certain.is_some();
        certain.map(|sent| &sent.value).into_iter().chain(all.filter(move |_| !skip_all))
    }

    fn values(&mut self) -> impl Iterator<Item = &mut T> {
        self.sent.iter_mut().map(|sent| &mut sent.value).chain(&mut self.confirmed)
    }

    fn confirm(&mut self, sequence: u64) {
        // Answers come in order: what was sent earlier has been answered, or was skipped.
        let at = self.sent.iter().position(|sent| sent.sequence == sequence);
        if let Some(sent) = at.and_then(|at| self.sent.drain(..=at).last()) {
            self.confirmed = Some(sent.value);
        }
    }

    fn fail(&mut self, sequence: u64) {
        self.sent.retain(|sent| sent.sequence != sequence);
    }
}

#[derive(Debug, Default)]
struct Named {
    versions: Versions<Arc<Statement>>,
    /// Made by SQL's PREPARE, with its place in the session: whether it succeeded is not followed.
    by_sql: Vec<(u64, Arc<Statement>)>,
}

impl Named {
    fn is_empty(&self) -> bool {
        self.versions.confirmed.is_none() && self.versions.sent.is_empty() && self.by_sql.is_empty()
    }

    /// The server has closed it, by what was sent at `sequence`. What was sent later stays.
    fn closed(&mut self, sequence: u64) {
        self.versions.confirmed = None;
        self.made_before_is_gone(sequence);
    }

    fn made_before_is_gone(&mut self, sequence: u64) {
        self.by_sql.retain(|(sent, _)| *sent > sequence);
    }
}

/// What a statement makes the server forget, once it has ended well.
#[derive(Debug)]
pub(super) struct Forget {
    /// `None`: every prepared statement.
    name: Option<Box<[u8]>>,
    sequence: u64,
}

#[derive(Debug)]
struct Portal {
    statements: Candidates,
    /// It has run; running it again goes on with it.
    ran: bool,
    /// SQL may have closed it since, and opened another one by its name.
    uncertain: bool,
}

/// The names of one session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Box<[u8]>, Named, RandomState>,
    portals: HashMap<Box<[u8]>, Versions<Portal>, RandomState>,
    /// The portal without a name: nearly every statement's.
    unnamed_portal: Versions<Portal>,
    sequence: u64,
    segment: u64,
}

impl Names {
    /// True where a prepared statement called `name` is within `limit`. The unnamed one always is.
    pub(super) fn has_room_for_statement(&self, name: &[u8], limit: usize) -> bool {
        name.is_empty() || self.statements.len() < limit || self.statements.contains_key(name)
    }

    /// True where a portal called `name` is within `limit`. The unnamed one always is.
    pub(super) fn has_room_for_portal(&self, name: &[u8], limit: usize) -> bool {
        name.is_empty() || self.portals.len() < limit || self.portals.contains_key(name)
    }

    /// A Sync was sent.
    pub(super) fn next_segment(&mut self) {
        self.segment += 1;
    }

    /// A Parse was sent; the number names it when the answer comes.
    pub(super) fn parsed(&mut self, name: &[u8], statement: Arc<Statement>) -> u64 {
        self.sequence += 1;
        let sent = Sent { sequence: self.sequence, segment: self.segment, value: statement };
        self.statements.entry(name.into()).or_default().versions.sent.push(sent);
        self.sequence
    }

    /// The Parse with this number succeeded.
    pub(super) fn parse_confirmed(&mut self, name: &[u8], sequence: u64) {
        if let Some(named) = self.statements.get_mut(name) {
            named.versions.confirm(sequence);
            named.made_before_is_gone(sequence);
        }
    }

    /// The Parse with this number failed or was skipped.
    pub(super) fn parse_failed(&mut self, name: &[u8], sequence: u64) {
        if let Some(named) = self.statements.get_mut(name) {
            named.versions.fail(sequence);
            if named.is_empty() {
                self.statements.remove(name);
            }
        }
    }

    /// SQL's PREPARE of `name` was sent.
    pub(super) fn prepared_by_sql(&mut self, name: &str, statement: Arc<Statement>) {
        self.sequence += 1;
        let named = self.statements.entry(name.as_bytes().into()).or_default();
        if named.by_sql.len() < MAX_CANDIDATES {
            named.by_sql.push((self.sequence, statement));
        } else {
            // Too many to follow: the name stands for nothing that is known.
            *named = Named::default();
        }
    }

    /// What the prepared statement `name` may stand for.
    pub(super) fn statement(&self, name: &[u8]) -> Candidates {
        let Some(named) = self.statements.get(name) else {
            return Candidates::new();
        };
        let by_sql = named.by_sql.iter().map(|(_, statement)| statement);
        bounded(named.versions.possible(self.segment).chain(by_sql).cloned())
    }

    /// A Close, DEALLOCATE or DISCARD was sent: of one prepared statement, or of all.
    pub(super) fn forgetting(&mut self, name: Option<&[u8]>) -> Forget {
        self.sequence += 1;
        Forget { name: name.map(Box::from), sequence: self.sequence }
    }

    /// The server has done so.
    pub(super) fn forget(&mut self, Forget { name, sequence }: &Forget) {
        match name {
            Some(name) => {
                if let Some(named) = self.statements.get_mut(name) {
                    named.closed(*sequence);
                    if named.is_empty() {
                        self.statements.remove(name);
                    }
                }
            }
            None => self.statements.retain(|name, named| {
                // The unnamed one is none of SQL's.
                if !name.is_empty() {
                    named.closed(*sequence);
                }
                !named.is_empty()
            }),
        }
    }

    /// A Bind was sent; the number names it when the answer comes.
    pub(super) fn bound(&mut self, portal: &[u8], statements: Candidates) -> u64 {
        self.sequence += 1;
        let value = Portal { statements, ran: false, uncertain: false };
        let sent = Sent { sequence: self.sequence, segment: self.segment, value };
        let versions = match portal {
            [] => &mut self.unnamed_portal,
            name => self.portals.entry(name.into()).or_default(),
        };
        versions.sent.push(sent);
        self.sequence
    }

    fn portal(&mut self, name: &[u8]) -> Option<&mut Versions<Portal>> {
        if name.is_empty() { Some(&mut self.unnamed_portal) } else { self.portals.get_mut(name) }
    }

    /// The Bind with this number succeeded.
    pub(super) fn bind_confirmed(&mut self, portal: &[u8], sequence: u64) {
        if let Some(versions) = self.portal(portal) {
            versions.confirm(sequence);
        }
    }

    /// The Bind with this number failed or was skipped.
    pub(super) fn bind_failed(&mut self, portal: &[u8], sequence: u64) {
        if let Some(versions) = self.portal(portal) {
            versions.fail(sequence);
        }
    }

    /// What `portal` may run. Empty: nobody knows.
    pub(super) fn of_portal(&self, portal: &[u8]) -> Candidates {
        let versions = if portal.is_empty() { Some(&self.unnamed_portal) } else { self.portals.get(portal) };
        let possible = versions.map(|versions| versions.possible(self.segment));
        let mut all: SmallVec<[&Portal; 2]> = possible.into_iter().flatten().collect();
        if all.iter().any(|portal| portal.statements.is_empty()) {
            all.clear();
        }
        bounded(all.into_iter().flat_map(|portal| portal.statements.iter().cloned()))
    }

    /// What running `portal` runs, and whether that only goes on with a run that was already decided.
    pub(super) fn run_portal(&mut self, portal: &[u8]) -> (Candidates, bool) {
        let segment = self.segment;
        let Some(versions) = self.portal(portal) else {
            // SQL's DECLARE makes portals too.
            return (Candidates::new(), false);
        };
        let possible: SmallVec<[&Portal; 2]> = versions.possible(segment).collect();
        let goes_on = possible.len() == 1 && possible.iter().all(|portal| portal.ran && !portal.uncertain);
        let unknown = possible.iter().any(|portal| portal.statements.is_empty());
        let candidates = bounded(possible.into_iter().flat_map(|portal| portal.statements.iter().cloned()));
        (if unknown { Candidates::new() } else { candidates }, goes_on)
    }

    /// A run of `portal` was permitted and is on record: what it runs from now on belongs to it. Not before: the server
    /// keeps a portal whose run was refused, and the client may run it again.
    pub(super) fn portal_ran(&mut self, portal: &[u8]) {
        for portal in self.portal(portal).into_iter().flat_map(Versions::values) {
            portal.ran = true;
        }
    }

    /// True where portals have names that SQL could use.
    pub(super) fn names_portals(&self) -> bool {
        !self.portals.is_empty()
    }

    /// Something was sent that may close portals and open others by the same names: SQL's CLOSE and DECLARE, code.
    pub(super) fn doubt_portals(&mut self) {
        for portal in self.portals.values_mut().flat_map(Versions::values) {
            portal.uncertain = true;
        }
    }

    /// Whether `portal` may by now be another one than was bound.
    pub(super) fn doubts_portal(&self, portal: &[u8]) -> bool {
        let versions = self.portals.get(portal);
        versions.is_some_and(|versions| versions.possible(self.segment).any(|portal| portal.uncertain))
    }

    /// The server has closed the portal.
    pub(super) fn closed_portal(&mut self, portal: &[u8]) {
        if let Some(versions) = self.portal(portal) {
            versions.confirmed = None;
            if versions.sent.is_empty() && !portal.is_empty() {
                self.portals.remove(portal);
            }
        }
    }

    /// The server is outside of a transaction and nothing is under way: portals are gone.
    pub(super) fn transaction_ended(&mut self) {
        self.unnamed_portal = Versions::default();
        if !self.portals.is_empty() {
            self.portals.clear();
        }
    }
}

/// Each statement once; too many are as good as unknown.
fn bounded(statements: impl Iterator<Item = Arc<Statement>>) -> Candidates {
    let mut candidates = Candidates::new();
    for statement in statements {
        if !candidates.iter().any(|known| Arc::ptr_eq(known, &statement)) {
            if candidates.len() == MAX_CANDIDATES {
                // A client may send thousands of versions before the server answers the first.
                return Candidates::new();
            }
            candidates.push(statement);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use guard_policy::vocabulary::Parse;
    use smallvec::smallvec;

    use super::*;

    fn statement() -> Arc<Statement> {
        Arc::new(Statement {
            text: String::new(),
            fingerprint: String::new(),
            parse: Parse::Full,
            parts: 1,
            effects: Vec::new(),
            prepared: Vec::new(),
            changes: Vec::new(),
            origin: Default::default(),
            sent: None,
        })
    }

    #[test]
    fn a_name_stands_for_old_and_new_until_the_server_answers() {
        let mut names = Names::default();
        let (old, new) = (statement(), statement());
        let first = names.parsed(b"s", Arc::clone(&old));
        names.parse_confirmed(b"s", first);
        let second = names.parsed(b"s", Arc::clone(&new));
        let certain = names.statement(b"s");
        assert!(
            certain.len() == 1 && Arc::ptr_eq(&certain[0], &new),
            "in the same pipeline it is the new one"
        );
        names.next_segment();
        assert_eq!(names.statement(b"s").len(), 2, "behind a Sync it may be either");
        names.parse_failed(b"s", second);
        let left = names.statement(b"s");
        assert!(left.len() == 1 && Arc::ptr_eq(&left[0], &old));
        let third = names.parsed(b"s", Arc::clone(&new));
        names.parse_confirmed(b"s", third);
        let left = names.statement(b"s");
        assert!(left.len() == 1 && Arc::ptr_eq(&left[0], &new));
    }

    #[test]
    fn a_closed_or_failed_name_is_unknown() {
        let mut names = Names::default();
        let sequence = names.parsed(b"s", statement());
        names.parse_failed(b"s", sequence);
        assert!(names.statement(b"s").is_empty());
        assert!(names.statements.is_empty());
        let sequence = names.parsed(b"s", statement());
        names.parse_confirmed(b"s", sequence);
        let forget = names.forgetting(Some(b"s"));
        names.forget(&forget);
        assert!(names.statement(b"s").is_empty());
    }

    #[test]
    fn what_is_prepared_after_a_deallocate_outlives_it() {
        let mut names = Names::default();
        names.prepared_by_sql("s", statement());
        let forget = names.forgetting(None);
        let new = statement();
        names.prepared_by_sql("s", Arc::clone(&new));
        names.forget(&forget);
        let left = names.statement(b"s");
        assert!(left.len() == 1 && Arc::ptr_eq(&left[0], &new));
        let forget = names.forgetting(Some(b"s"));
        names.forget(&forget);
        assert!(names.statements.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_portal_that_ran_goes_on() {
        let mut names = Names::default();
        names.bound(b"", smallvec![statement()]);
        assert!(!names.run_portal(b"").1);
        assert!(!names.run_portal(b"").1, "it was refused");
        names.portal_ran(b"");
        assert!(names.run_portal(b"").1);
        names.bound(b"", smallvec![statement()]);
        assert!(!names.run_portal(b"").1);
    }

    #[test]
    fn a_portal_that_sql_may_have_replaced_does_not_go_on() {
        let mut names = Names::default();
        names.bound(b"c", smallvec![statement()]);
        names.portal_ran(b"c");
        assert!(names.run_portal(b"c").1 && !names.doubts_portal(b"c"));
        names.doubt_portals();
        assert!(!names.run_portal(b"c").1 && names.doubts_portal(b"c"));
        names.bound(b"c", smallvec![statement()]);
        assert!(!names.doubts_portal(b"c"), "bound anew");
    }

    #[test]
    fn too_many_sql_level_statements_under_one_name_are_unknown() {
        let mut names = Names::default();
        for _ in 0..=MAX_CANDIDATES {
            names.prepared_by_sql("s", statement());
        }
        assert!(names.statement(b"s").is_empty());
    }

    #[test]
    fn of_thousands_of_versions_only_the_first_are_looked_at() {
        let mut seen = 0;
        let versions = (0..10_000).map(|_| {
            seen += 1;
            statement()
        });
        assert!(bounded(versions).is_empty());
        assert_eq!(seen, MAX_CANDIDATES + 1);
        let one = statement();
        assert_eq!(bounded((0..100).map(|_| Arc::clone(&one))).len(), 1);
    }
}
