//! What a session brings to each of its decisions, built once: who asks, on which database, in which way.
//!
//! A principal, a target and the session's facts enter; Cedar requests with their entities leave. What a statement adds
//! (object, action, conditions) is built when it is first seen and kept within bounds. Nothing here is validated against
//! the schema: the policies were when they were loaded, and a test does it for the requests of every action.

use std::collections::{HashMap, HashSet};

use ahash::RandomState;
use cedar_policy::{Context, Entities, Entity, EntityUid, RestrictedExpression as Value};

use crate::{
    columns::{Column, ColumnAction, Use},
    rates::Rates,
    request::{Conditions, Principal, Target, entity, text, uid},
    schema::{ACTIONS, TYPES},
    vocabulary::{Action, Object, ObjectKind, Parse},
};

/// The schema in which a server looks for names that a statement leaves unqualified.
pub const DEFAULT_SCHEMA: &str = "public";

/// Most pairs of object and action whose entities are kept.
const MAX_KNOWN: usize = 128;

/// Most contexts that are kept: there are few that differ.
const MAX_CONTEXTS: usize = 12;

/// What holds for every statement of a session, beside who asks and where.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The statement passes the proxy.
    pub proxied: bool,
    /// `tcp` or `unix`.
    pub transport: &'a str,
    /// Database user: who logged in.
    pub db_user: &'a str,
    /// The roles in whose name it may run; `*` stands for any.
    pub roles: &'a [&'a str],
    /// What the client calls itself.
    pub application_name: &'a str,
}

/// A session's part of every request.
#[derive(Debug)]
pub struct Ground {
    principal: EntityUid,
    target: Target,
    /// The principal, the environment, the server and the database.
    base: Result<Entities, String>,
    facts: Vec<(&'static str, Value)>,
    contexts: Vec<(Shape, Context)>,
    known: HashMap<Object, Vec<Known>, RandomState>,
    /// Entries in all lists of `known`.
    known_entries: usize,
}

/// What of a statement differs between the contexts of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    has_where: bool,
    parse: Parse,
    parts: u32,
    justified: bool,
}

/// An object under one action, ready to be asked about.
#[derive(Clone, Debug)]
struct Known {
    action: Action,
    uid: EntityUid,
    entities: Entities,
}

impl Ground {
    /// The ground of the sessions of `principal` on `target`.
    pub fn new(principal: &Principal, target: &Target, facts: &Facts<'_>) -> Self {
        let facts = vec![
            ("proxied", Value::new_bool(facts.proxied)),
            ("transport", text(facts.transport)),
            ("db_user", text(facts.db_user)),
            ("roles", Value::new_set(facts.roles.iter().map(|role| text(role)))),
            ("application_name", text(facts.application_name)),
            ("database", text(target.database())),
        ];
        Self {
            principal: principal.uid().clone(),
            base: base(principal, target),
            target: target.clone(),
            facts,
            contexts: Vec::new(),
            known: HashMap::default(),
            known_entries: 0,
        }
    }

    /// The request for `action` on `object`; `rates` where policies read them.
    pub(crate) fn request(
        &mut self,
        action: Action,
        object: &Object,
        conditions: &Conditions,
        rates: Option<Rates>,
    ) -> Result<(cedar_policy::Request, &Entities), String> {
        let context = self.context(conditions, rates)?;
        let principal = self.principal.clone();
        let Known { uid, entities, .. } = self.known(action, object)?;
        let action = ACTIONS.uid(action).clone();
        let request = cedar_policy::Request::new(principal, action, uid.clone(), context, None)
            .map_err(|error| error.to_string())?;
        Ok((request, entities))
    }

    /// The request for `action` on `column`, and its entities. Who asks keeps the answer: nothing is kept here.
    pub(crate) fn column_request(
        &self,
        action: ColumnAction,
        column: &Column,
        used: Option<&Use>,
    ) -> Result<(cedar_policy::Request, Entities), String> {
        let (table_uid, mut entities) = object_entities(&self.target, &column.object())?;
        let id = format!(
            "{}/{}/column/{}.{}.{}",
            self.target.server(),
            self.target.database(),
            if column.schema.is_empty() { DEFAULT_SCHEMA } else { &column.schema },
            column.table,
            column.name
        );
        let column_uid = uid(&TYPES.column, &id);
        let attributes = [
            ("name", text(&column.name)),
            ("table", text(&column.table)),
            ("schema", text(if column.schema.is_empty() { DEFAULT_SCHEMA } else { &column.schema })),
            ("kind", text(column.kind.as_str())),
            ("tags", Value::new_set(column.all_tags().map(text))),
            ("evidence", text(&column.evidence)),
        ];
        entities.push(entity(column_uid.clone(), attributes, [table_uid].into())?);
        entities.push(ACTIONS.column_entity(action).clone());
        let entities = self.base.clone()?.add_entities(entities, None).map_err(|error| error.to_string())?;
        let added = used.into_iter().flat_map(|used| {
            let words = Value::new_set(used.words.iter().map(|word| text(word)));
            [("uses", words), ("equality", Value::new_bool(used.equality))]
        });
        let facts = self.facts.iter().cloned().chain(added);
        let context = Context::from_pairs(facts.map(|(key, value)| (key.to_owned(), value)))
            .map_err(|error| error.to_string())?;
        let action = ACTIONS.column_uid(action).clone();
        let request = cedar_policy::Request::new(self.principal.clone(), action, column_uid, context, None)
            .map_err(|error| error.to_string())?;
        Ok((request, entities))
    }

    fn context(&mut self, conditions: &Conditions, rates: Option<Rates>) -> Result<Context, String> {
        let shape = Shape {
            has_where: conditions.has_where.unwrap_or(true),
            parse: conditions.parse,
            parts: conditions.parts,
            justified: conditions.justified,
        };
        if let Some(rates) = rates {
            return self.build_context(shape, rates);
        }
        if let Some((_, context)) = self.contexts.iter().find(|(known, _)| *known == shape) {
            return Ok(context.clone());
        }
        let context = self.build_context(shape, Rates::default())?;
        if self.contexts.len() >= MAX_CONTEXTS {
            self.contexts.clear();
        }
        self.contexts.push((shape, context.clone()));
        Ok(context)
    }

    fn build_context(&self, shape: Shape, rates: Rates) -> Result<Context, String> {
        let number = |value: u64| Value::new_long(i64::try_from(value).unwrap_or(i64::MAX));
        let added = [
            ("has_where", Value::new_bool(shape.has_where)),
            ("parse", text(shape.parse.as_str())),
            ("parts", number(shape.parts.into())),
            ("statements_per_minute", number(rates.statements)),
            ("rows_per_minute", number(rates.rows)),
            ("justified", Value::new_bool(shape.justified)),
        ];
        let facts = self.facts.iter().cloned().chain(added);
        Context::from_pairs(facts.map(|(key, value)| (key.to_owned(), value)))
            .map_err(|error| error.to_string())
    }

    fn known(&mut self, action: Action, object: &Object) -> Result<&Known, String> {
        let is_known = |known: &HashMap<Object, Vec<Known>, RandomState>| -> Option<usize> {
            known.get(object)?.iter().position(|entry| entry.action == action)
        };
        let at = match is_known(&self.known) {
            Some(at) => at,
            None => self.learn(action, object)?,
        };
        self.known
            .get(object)
            .and_then(|entries| entries.get(at))
            .ok_or_else(|| "an object was lost".to_owned())
    }

    fn learn(&mut self, action: Action, object: &Object) -> Result<usize, String> {
        let (uid, mut entities) = object_entities(&self.target, object)?;
        entities.push(ACTIONS.entity(action).clone());
        let base = self.base.clone()?;
        let entities = base.add_entities(entities, None).map_err(|error| error.to_string())?;
        if self.known_entries >= MAX_KNOWN {
            self.known.clear();
            self.known_entries = 0;
        }
        self.known_entries += 1;
        let entries = self.known.entry(object.clone()).or_default();
        entries.push(Known { action, uid, entities });
        Ok(entries.len() - 1)
    }
}

fn base(principal: &Principal, target: &Target) -> Result<Entities, String> {
    let mut entities = target.entities()?;
    entities.push(principal.entity()?);
    Entities::from_entities(entities, None).map_err(|error| error.to_string())
}

/// The request for a connection, and its entities.
pub(crate) fn connect(
    principal: &Principal,
    target: &Target,
    proxied: bool,
    transport: &str,
) -> Result<(cedar_policy::Request, Entities), String> {
    let context = [("proxied", Value::new_bool(proxied)), ("transport", text(transport))];
    let context = Context::from_pairs(context.map(|(key, value)| (key.to_owned(), value)))
        .map_err(|error| error.to_string())?;
    let action = [ACTIONS.entity(Action::Connect).clone()];
    let entities = base(principal, target)?.add_entities(action, None).map_err(|error| error.to_string())?;
    let request = cedar_policy::Request::new(
        principal.uid().clone(),
        ACTIONS.uid(Action::Connect).clone(),
        target.server_uid(),
        context,
        None,
    );
    Ok((request.map_err(|error| error.to_string())?, entities))
}

fn object_entities(target: &Target, object: &Object) -> Result<(EntityUid, Vec<Entity>), String> {
    let (server, database) = (target.server(), target.database());
    let database_uid = uid(&TYPES.database, &format!("{server}/{database}"));
    let known = object.name != "*";
    let schema = match &object.schema {
        Some(schema) => schema.as_str(),
        None if known && object.kind.in_schema() => DEFAULT_SCHEMA,
        None if object.kind == ObjectKind::Schema => &object.name,
        None => "",
    };
    let object_uid =
        uid(&TYPES.object, &format!("{server}/{database}/{}/{schema}.{}", object.kind, object.name));
    let attributes = [
        ("kind", text(object.kind.as_str())),
        ("name", text(&object.name)),
        ("schema", text(schema)),
        ("known", Value::new_bool(known)),
    ];
    let mut entities = Vec::with_capacity(3);
    let mut parents = HashSet::from([database_uid.clone()]);
    if !schema.is_empty() {
        let schema_uid = uid(&TYPES.schema, &format!("{server}/{database}/{schema}"));
        entities.push(entity(schema_uid.clone(), [("name", text(schema))], [database_uid].into())?);
        parents.insert(schema_uid);
    }
    entities.push(entity(object_uid.clone(), attributes, parents)?);
    Ok((object_uid, entities))
}
