//! Cedar requests: a workload, a target and an effect enter, a request with its entities leaves.
//!
//! The workload's entity is built once per connection, the database's once per session; only what a statement adds is
//! built for each evaluation.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Value,
};
use guard_common::audit::v1::{ClientCertificate, Workload, workload::Evidence};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::vocabulary::{Action, Object, ObjectKind, Parse};

/// The schema in which a server looks for names that a statement leaves unqualified.
pub const DEFAULT_SCHEMA: &str = "public";

struct Types {
    environment: EntityTypeName,
    server: EntityTypeName,
    database: EntityTypeName,
    schema: EntityTypeName,
    object: EntityTypeName,
    workload: EntityTypeName,
    action: EntityTypeName,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let name = |name: &str| {
        format!("Guard::{name}").parse().expect("a literal type name of the schema is a valid name")
    };
    Types {
        environment: name("Environment"),
        server: name("Server"),
        database: name("Database"),
        schema: name("Schema"),
        object: name("Object"),
        workload: name("Workload"),
        action: name("Action"),
    }
});

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, Value); N],
    parents: HashSet<EntityUid>,
) -> Result<Entity, String> {
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

/// Who asks. Built once per connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Principal {
    entity: Arc<Result<Entity, String>>,
    uid: EntityUid,
    name: Arc<str>,
    fingerprint: [u8; 16],
}

impl Principal {
    /// The principal that `workload` is.
    pub fn new(workload: &Workload) -> Self {
        let name: Arc<str> = workload.label().into();
        let uid = uid(&TYPES.workload, &name);
        let entity = Entity::new(uid.clone(), attributes(workload, &name), HashSet::new());
        let fingerprint = fingerprint(workload);
        Self { entity: Arc::new(entity.map_err(|error| error.to_string())), uid, name, fingerprint }
    }

    /// The same for workloads that no policy can tell apart: a part of the key of decision caches.
    pub fn fingerprint(&self) -> &[u8; 16] {
        &self.fingerprint
    }

    /// Shortest useful name: pod, container, unit, AI agent, executable or address.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// Covers all that policies can read of a workload, and leaves out what differs from process to process.
fn fingerprint(workload: &Workload) -> [u8; 16] {
    let mut shared =
        Workload { pid: 0, process_started_ns: 0, argv: Vec::new(), cgroup_id: 0, ..workload.clone() };
    shared.ancestry.iter_mut().for_each(|ancestor| ancestor.pid = 0);
    let digest = Sha256::digest(shared.encode_to_vec());
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&digest[..16]);
    fingerprint
}

fn attributes(workload: &Workload, name: &str) -> HashMap<String, Value> {
    let evidence = match workload.evidence() {
        Evidence::Attested => "attested",
        Evidence::Reported => "reported",
        Evidence::Address | Evidence::Unspecified => "address",
    };
    let ancestry = workload.ancestry.iter().map(|ancestor| text(&ancestor.executable)).collect::<Vec<_>>();
    let mut all: HashMap<String, Value> = [
        ("name", text(name)),
        ("executable", text(&workload.executable)),
        ("comm", text(&workload.comm)),
        ("uid", Value::new_long(workload.uid.into())),
        ("user", text(&workload.user)),
        ("cgroup", text(&workload.cgroup)),
        ("ancestry", Value::new_set(ancestry)),
        ("agent", Value::new_bool(!workload.ai_agent.is_empty())),
        ("remote", Value::new_bool(!workload.remote_address.is_empty())),
        ("address", text(&workload.remote_address)),
        ("evidence", text(evidence)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let pod = workload.pod.as_ref().map(|pod| {
        if pod.name.is_empty() { pod.uid.clone() } else { format!("{}/{}", pod.namespace, pod.name) }
    });
    let container = workload.container.as_ref().map(|container| container.id.clone());
    let optional = [
        ("login_user", Some(workload.login_user.clone())),
        ("unit", Some(workload.unit.clone())),
        ("container", container),
        ("pod", pod),
        ("ai_agent", Some(workload.ai_agent.clone())),
    ];
    all.extend(optional.into_iter().filter_map(|(key, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((key.to_owned(), text(&value)))
    }));
    all.extend(
        workload.certificate.as_ref().and_then(certificate).map(|value| ("certificate".to_owned(), value)),
    );
    all
}

/// `None` cannot happen: the names are literals, each once.
fn certificate(certificate: &ClientCertificate) -> Option<Value> {
    let names = [&certificate.dns_names, &certificate.uris, &certificate.emails];
    let names = names.into_iter().flatten().map(|name| text(name)).collect::<Vec<_>>();
    let fields = [
        ("subject", text(&certificate.subject)),
        ("common_name", text(&certificate.common_name)),
        ("spiffe_id", text(&certificate.spiffe_id)),
        ("names", Value::new_set(names)),
        ("issuer", text(&certificate.issuer)),
    ];
    Value::new_record(fields.map(|(key, value)| (key.to_owned(), value))).ok()
}

/// The database that is asked for. Built once per session.
#[derive(Clone, Debug)]
pub struct Target {
    id: String,
    server: String,
    database: String,
    /// Environment, server and database.
    entities: Arc<Result<Vec<Entity>, String>>,
}

impl Target {
    /// `database` on `server` of `environment`; an empty `database` is the server as a whole.
    pub fn new(environment: &str, server: &str, engine: &str, database: &str) -> Self {
        let entities = Self::build(environment, server, engine, database);
        Self {
            id: format!("{environment:?}/{server:?}/{engine:?}/{database:?}"),
            server: server.to_owned(),
            database: database.to_owned(),
            entities: Arc::new(entities),
        }
    }

    /// Names environment, server and database: a part of the key of decision caches.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn build(environment: &str, server: &str, engine: &str, database: &str) -> Result<Vec<Entity>, String> {
        let environment_uid = uid(&TYPES.environment, environment);
        let server_uid = uid(&TYPES.server, server);
        Ok(vec![
            Entity::new_no_attrs(environment_uid.clone(), HashSet::new()),
            entity(
                server_uid.clone(),
                [("name", text(server)), ("engine", text(engine))],
                [environment_uid].into(),
            )?,
            entity(
                uid(&TYPES.database, &format!("{server}/{database}")),
                [("name", text(database))],
                [server_uid].into(),
            )?,
        ])
    }
}

/// What holds while a statement runs.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Through the proxy.
    pub proxied: bool,
    /// `tcp` or `unix`.
    pub transport: &'a str,
    /// Who logged in to the database.
    pub db_user: &'a str,
    /// What the client calls itself.
    pub application_name: &'a str,
    /// See [`crate::vocabulary::Effect::has_where`].
    pub has_where: Option<bool>,
    /// How well the statement was understood.
    pub parse: Parse,
    /// Statements in the same string.
    pub parts: u32,
}

/// What the authorizer takes.
pub(crate) struct Request {
    pub(crate) request: cedar_policy::Request,
    pub(crate) entities: Entities,
}

impl Request {
    pub(crate) fn connect(
        principal: &Principal,
        target: &Target,
        proxied: bool,
        transport: &str,
    ) -> Result<Self, String> {
        let context = [("proxied", Value::new_bool(proxied)), ("transport", text(transport))];
        Self::build(principal, target, Action::Connect, uid(&TYPES.server, &target.server), &context, vec![])
    }

    pub(crate) fn statement(
        principal: &Principal,
        target: &Target,
        action: Action,
        object: &Object,
        conditions: &Conditions<'_>,
    ) -> Result<Self, String> {
        let context = [
            ("proxied", Value::new_bool(conditions.proxied)),
            ("transport", text(conditions.transport)),
            ("db_user", text(conditions.db_user)),
            ("database", text(&target.database)),
            ("application_name", text(conditions.application_name)),
            ("has_where", Value::new_bool(conditions.has_where.unwrap_or(true))),
            ("parse", text(conditions.parse.as_str())),
            ("parts", Value::new_long(conditions.parts.into())),
        ];
        let (object, entities) = object_entities(target, object)?;
        Self::build(principal, target, action, object, &context, entities)
    }

    fn build(
        principal: &Principal,
        target: &Target,
        action: Action,
        resource: EntityUid,
        context: &[(&str, Value)],
        mut entities: Vec<Entity>,
    ) -> Result<Self, String> {
        entities.push(principal.entity.as_ref().clone()?);
        entities.extend(target.entities.as_ref().clone()?);
        let context =
            Context::from_pairs(context.iter().map(|(key, value)| ((*key).to_owned(), value.clone())))
                .map_err(|error| error.to_string())?;
        let action = uid(&TYPES.action, action.as_str());
        // A test validates every action's request against the schema; here that would only cost time.
        let request = cedar_policy::Request::new(principal.uid.clone(), action, resource, context, None)
            .map_err(|error| error.to_string())?;
        // The schema brings the action hierarchy (`action in read`).
        let entities = Entities::from_entities(entities, Some(&super::set::SCHEMA))
            .map_err(|error| error.to_string())?;
        Ok(Self { request, entities })
    }
}

/// True for what stands in a schema.
fn in_schema(kind: ObjectKind) -> bool {
    use ObjectKind as K;
    match kind {
        K::Table
        | K::View
        | K::MaterializedView
        | K::Index
        | K::Sequence
        | K::Column
        | K::Function
        | K::Type
        | K::Trigger => true,
        K::Schema
        | K::Database
        | K::Role
        | K::Extension
        | K::Setting
        | K::Tablespace
        | K::File
        | K::Server
        | K::Session
        | K::Other
        | K::Unknown => false,
    }
}

fn object_entities(target: &Target, object: &Object) -> Result<(EntityUid, Vec<Entity>), String> {
    let Target { server, database, .. } = target;
    let database_uid = uid(&TYPES.database, &format!("{server}/{database}"));
    let known = object.name != "*";
    let schema = match &object.schema {
        Some(schema) => schema.as_str(),
        None if known && in_schema(object.kind) => DEFAULT_SCHEMA,
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
    let mut entities = Vec::with_capacity(6);
    let mut parents = HashSet::from([database_uid.clone()]);
    if !schema.is_empty() {
        let schema_uid = uid(&TYPES.schema, &format!("{server}/{database}/{schema}"));
        entities.push(entity(schema_uid.clone(), [("name", text(schema))], [database_uid].into())?);
        parents.insert(schema_uid);
    }
    entities.push(entity(object_uid.clone(), attributes, parents)?);
    Ok((object_uid, entities))
}
