//! Plans of results, remembered per session thread: by the form of the result, the statement, who asks, and the states of
//! the catalog and of the policies.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use ahash::RandomState;
use guard_common::audit::v1::Decision;
use guard_policy::{Column, Sight, Use, vocabulary::DataKind};
use smallvec::SmallVec;

use super::super::worker::Worker;
use super::{Looked, Looks, Masking, Source, State, results::Planned};
use crate::{
    decide::{DecisionCache, Scope, Session},
    mask::{
        plan::{self, Eyes, unplaced},
        rewrite::Rules,
    },
    sql::{Statement, lineage::Part},
    wire::postgres::{FieldDescription, RowDescription, WireError},
};

/// Plans that one thread keeps; then it starts afresh.
const PLANS: usize = 1_024;

/// Bytes of descriptions that it keeps.
const BYTES: usize = 4 * 1024 * 1024;

/// Sights of columns that it keeps.
const SIGHTS: usize = 4_096;

/// What one thread remembers for masking.
#[derive(Debug, Default)]
pub(in super::super) struct Plans {
    looks: Looks,
    plans: HashMap<u64, SmallVec<[Known; 1]>, RandomState>,
    hasher: RandomState,
    count: usize,
    bytes: usize,
    sights: HashMap<(Scope, Column), Sight, RandomState>,
    /// What becomes of what is found in texts, and whether what nobody knows is shown in clear.
    found: HashMap<Scope, (Arc<Rules>, bool), RandomState>,
    /// All of it but the readings holds for this set of policies.
    epoch: u64,
}

#[derive(Debug)]
struct Known {
    scope: Scope,
    version: State,
    body: Box<[u8]>,
    part: usize,
    /// Held so that the addresses of its texts stay their own.
    source: Source,
    planned: Planned,
}

impl Known {
    fn is(&self, key: &Key<'_>) -> bool {
        self.scope == key.scope
            && self.version == key.version
            && self.part == key.part
            && *self.body == *key.body
            && same(&self.source, key.source)
    }
}

fn same(a: &Source, b: &Source) -> bool {
    let (a, b) = (a.all(), b.all());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Rc::ptr_eq(a, b))
}

struct Key<'a> {
    scope: Scope,
    version: State,
    part: usize,
    source: &'a Source,
    body: &'a [u8],
}

impl<'a> Key<'a> {
    fn new(masking: &Masking, scope: Scope, (source, part): (&'a Source, usize), body: &'a [u8]) -> Self {
        Self { scope, version: masking.state(), part, source, body }
    }

    /// What names lead to changes from statement to statement.
    fn lasts(&self) -> bool {
        self.source.all().iter().all(|looked| looked.stands_alone())
    }
}

/// How one session sees columns.
struct Sees<'a> {
    decisions: &'a mut DecisionCache,
    sights: &'a mut HashMap<(Scope, Column), Sight, RandomState>,
    session: &'a Session,
    scope: Scope,
}

impl Eyes for Sees<'_> {
    fn sight(&mut self, column: &Column) -> Sight {
        if let Some(sight) = self.sights.get(&(self.scope, column.clone())) {
            return sight.clone();
        }
        if self.sights.len() >= SIGHTS {
            self.sights.clear();
        }
        let sight = self.decisions.reveal(self.session, self.scope, column);
        self.sights.insert((self.scope, column.clone()), sight.clone());
        sight
    }

    fn found(&mut self, column: Option<&Column>, kind: DataKind) -> Sight {
        let anywhere = || unplaced("*", kind, "content");
        let column = column.map_or_else(anywhere, |column| Column { kind, ..column.clone() });
        self.sight(&column)
    }

    fn looks_at_place(&self) -> bool {
        self.decisions.reveals_by_place()
    }
}

impl Worker {
    /// What `statement` shows in this session.
    pub(super) fn look(
        &self,
        masking: &Masking,
        session: (&Session, Scope),
        statement: &Arc<Statement>,
    ) -> Rc<Looked> {
        self.inner().plans.looks.look(masking, session, statement)
    }

    /// The plan of the result that the body of a RowDescription describes, where it was made before. `statement` is what
    /// the text it belongs to may be, and its place there.
    pub(super) fn known_plan(
        &self,
        masking: &Masking,
        scope: Scope,
        statement: (&Source, usize),
        body: &[u8],
    ) -> Option<Planned> {
        let inner = &mut *self.inner();
        inner.plans.follow(inner.decisions.policy_epoch());
        let key = Key::new(masking, scope, statement, body);
        if !key.lasts() {
            return None;
        }
        let known = inner.plans.plans.get(&inner.plans.hash(&key))?;
        known.iter().find(|known| known.is(&key)).map(|known| known.planned.clone())
    }

    /// The plan of a result that has none yet; `parts` is what the statement does.
    pub(super) fn plan(
        &self,
        masking: &Masking,
        session: (&Session, Scope),
        statement: (&Source, usize),
        parts: &[Part],
        body: &[u8],
    ) -> Result<Planned, WireError> {
        let inner = &mut *self.inner();
        let (decisions, plans) = (&mut inner.decisions, &mut inner.plans);
        plans.follow(decisions.policy_epoch());
        let fields: Vec<_> = RowDescription::read(body)?.columns().collect();
        let mut eyes = Sees { decisions, sights: &mut plans.sights, session: session.0, scope: session.1 };
        let planned = planned(masking, &fields, parts, &mut eyes);
        let key = Key::new(masking, session.1, statement, body);
        if key.lasts() {
            plans.keep(plans.hash(&key), &key, &planned);
        }
        Ok(planned)
    }

    /// The plan of COPY data with these columns.
    pub(super) fn plan_copy(
        &self,
        masking: &Masking,
        session: (&Session, Scope),
        parts: &[Part],
        fields: &[FieldDescription<'_>],
    ) -> Planned {
        let inner = &mut *self.inner();
        let (decisions, plans) = (&mut inner.decisions, &mut inner.plans);
        plans.follow(decisions.policy_epoch());
        let mut eyes = Sees { decisions, sights: &mut plans.sights, session: session.0, scope: session.1 };
        planned(masking, fields, parts, &mut eyes)
    }

    /// What becomes of what is found in texts that belong to no column, and whether this session is shown in clear what
    /// nobody knows.
    pub(super) fn found_rules(
        &self,
        session: &Session,
        scope: Scope,
        masking: &Masking,
    ) -> (Arc<Rules>, bool) {
        let inner = &mut *self.inner();
        let (decisions, plans) = (&mut inner.decisions, &mut inner.plans);
        plans.follow(decisions.policy_epoch());
        if let Some(known) = plans.found.get(&scope) {
            return known.clone();
        }
        let mut eyes = Sees { decisions, sights: &mut plans.sights, session, scope };
        let rules = Rules::new(|kind| {
            let mask = eyes.found(None, kind).mask?;
            Some(plan::rule(&mask, &masking.masks.key))
        });
        let all_clear = rules.all_clear();
        let known = (Arc::new(rules), all_clear);
        if plans.found.len() >= PLANS {
            plans.found.clear();
        }
        plans.found.insert(scope, known.clone());
        known
    }

    /// True where a policy names `infer`.
    pub(super) fn decides_inference(&self) -> bool {
        let inner = &mut *self.inner();
        inner.decisions.policy_epoch();
        inner.decisions.decides_inference()
    }

    /// What is decided on the use of `column` by a session; `None` where it sees the column in clear.
    pub(super) fn infer(
        &self,
        session: &Session,
        scope: Scope,
        column: &Column,
        used: &Use,
    ) -> Option<Decision> {
        let inner = &mut *self.inner();
        let (decisions, plans) = (&mut inner.decisions, &mut inner.plans);
        plans.follow(decisions.policy_epoch());
        let sight = Sees { decisions, sights: &mut plans.sights, session, scope }.sight(column);
        sight.mask.as_ref()?;
        Some(decisions.infer(session, scope, column, used))
    }
}

fn planned(
    masking: &Masking,
    fields: &[FieldDescription<'_>],
    parts: &[Part],
    eyes: &mut Sees<'_>,
) -> Planned {
    let result = plan::Result {
        fields,
        parts,
        catalog: masking.knows_catalog().then_some(&masking.catalog),
        spilled: &masking.spilled,
        sensitive: masking.sensitive,
    };
    let plan = plan::plan(&result, eyes, &masking.masks.key);
    let names = fields.iter().map(|field| String::from_utf8_lossy(field.name).into());
    Planned { plan: Rc::new(plan), names: names.collect() }
}

impl Plans {
    /// Forgets what was decided under another set of policies.
    fn follow(&mut self, epoch: u64) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.clear();
            self.sights.clear();
            self.found.clear();
        }
    }

    fn hash(&self, key: &Key<'_>) -> u64 {
        self.hasher.hash_one((key.body, key.scope, key.version.1, key.part))
    }

    fn clear(&mut self) {
        self.plans.clear();
        (self.count, self.bytes) = (0, 0);
    }

    fn keep(&mut self, hash: u64, key: &Key<'_>, planned: &Planned) {
        if self.count >= PLANS || self.bytes.saturating_add(key.body.len()) > BYTES {
            self.clear();
        }
        self.count += 1;
        self.bytes += key.body.len();
        self.plans.entry(hash).or_default().push(Known {
            scope: key.scope,
            version: key.version,
            body: key.body.into(),
            part: key.part,
            source: key.source.clone(),
            planned: planned.clone(),
        });
    }
}
