//! Who asks, on what, and how: a workload and a database enter, their entities leave.
//!
//! The workload's entity is built once per connection, the database's once per session.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Value};
use guard_common::audit::v1::{ClientCertificate, Container, Pod, Workload, workload::Evidence};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{rates::Rates, schema::TYPES, vocabulary::Parse};

pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

pub(crate) fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, Value); N],
    parents: HashSet<EntityUid>,
) -> Result<Entity, String> {
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
}

pub(crate) fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

/// Who asks. Sessions of workloads that no policy can tell apart share what is large in it.
#[derive(Clone, Debug)]
pub struct Principal {
    shared: Arc<Shared>,
    fingerprint: [u8; 16],
    bound_as: [u8; 16],
    counted_as: [u8; 16],
}

/// What follows from a fingerprint.
#[derive(Debug)]
struct Shared {
    entity: Result<Entity, String>,
    uid: EntityUid,
    name: Arc<str>,
}

/// What the principals that live now share, by fingerprint.
static LIVING: LazyLock<Mutex<HashMap<[u8; 16], Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// Entries of `LIVING` at which those of the dead are thrown out.
const MANY: usize = 1024;

impl Shared {
    fn of(workload: &Workload, fingerprint: [u8; 16]) -> Arc<Self> {
        // INVARIANT: nothing panics while it is locked but for want of memory.
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = living.get(&fingerprint).and_then(Weak::upgrade) {
            return shared;
        }
        if living.len() >= MANY && living.len() == living.capacity() {
            living.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::new(Self::new(workload));
        living.insert(fingerprint, Arc::downgrade(&shared));
        shared
    }

    fn new(workload: &Workload) -> Self {
        let name: Arc<str> = workload.label().into();
        let uid = uid(&TYPES.workload, &name);
        let entity = Entity::new(uid.clone(), attributes(workload, &name), HashSet::new());
        Self { entity: entity.map_err(|error| error.to_string()), uid, name }
    }
}

impl Principal {
    /// The principal that `workload` is.
    pub fn new(workload: &Workload) -> Self {
        let (fingerprint, bound_as) = (fingerprint(workload), bound_as(workload));
        let counted_as = counted_as(workload);
        Self { shared: Shared::of(workload, fingerprint), fingerprint, bound_as, counted_as }
    }

    /// The same for workloads that no policy can tell apart: a part of the key of decision caches.
    pub fn fingerprint(&self) -> &[u8; 16] {
        &self.fingerprint
    }

    /// The same for workloads that an approval of one is an approval of the other: as [`Self::fingerprint`], but by the
    /// file of the program, whose hash may not have been known yet.
    pub fn bound_as(&self) -> &[u8; 16] {
        &self.bound_as
    }

    /// The same for workloads whose statements and rows are counted together: see [`Rates`].
    pub fn counted_as(&self) -> &[u8; 16] {
        &self.counted_as
    }

    pub(crate) fn uid(&self) -> &EntityUid {
        &self.shared.uid
    }

    pub(crate) fn entity(&self) -> Result<Entity, String> {
        self.shared.entity.clone()
    }

    /// Shortest useful name: pod, container, unit, AI agent, executable or address.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }
}

/// Covers all that policies can read of a workload, and leaves out what differs from process to process.
fn fingerprint(workload: &Workload) -> [u8; 16] {
    let mut shared = lasting(workload);
    if let Some(file) = &mut shared.program_file {
        file.inode = 0;
    }
    digest(&shared.encode_to_vec())
}

fn bound_as(workload: &Workload) -> [u8; 16] {
    let mut shared = lasting(workload);
    if let Some(file) = &mut shared.program_file {
        file.sha256.clear();
    }
    digest(&shared.encode_to_vec())
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(bytes)[..16]);
    short
}

/// A workload without what differs from process to process.
fn lasting(workload: &Workload) -> Workload {
    let mut shared = Workload {
        pid: 0,
        process_started_ns: 0,
        argv: Vec::new(),
        cgroup_id: 0,
        // A new one for each login of the same person.
        login_session: 0,
        ..workload.clone()
    };
    shared.ancestry.iter_mut().for_each(|ancestor| (ancestor.pid, ancestor.started_ns) = (0, 0));
    (shared.namespaces, shared.known_by) = (None, None);
    if let Some(file) = &mut shared.program_file {
        file.unhashed.clear();
    }
    shared
}

/// Names who is behind a workload, for counting: the most lasting thing that is known of it, so that a copy of a program
/// under another name, or a child of the same agent, starts no count of its own.
fn counted_as(workload: &Workload) -> [u8; 16] {
    let pod = workload.pod.as_ref().map(|pod| format!("{}/{}/{}", pod.namespace, pod.name, pod.uid));
    let container = workload.container.as_ref().map(|container| container.id.clone());
    let lasting = [
        ("pod", pod.unwrap_or_default()),
        ("container", container.unwrap_or_default()),
        ("agent", workload.ai_agent.clone()),
        ("unit", workload.unit.clone()),
        ("address", workload.remote_address.clone()),
        ("executable", workload.executable.clone()),
    ];
    let (kind, name) = lasting.into_iter().find(|(_, name)| !name.is_empty()).unwrap_or_default();
    let person = workload.login_uid.unwrap_or(workload.uid);
    digest(format!("{kind}\0{name}\0{person}").as_bytes())
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
        ("labels", Value::new_set(labels(workload))),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let pod = workload.pod.as_ref().map(|pod| {
        if pod.name.is_empty() { pod.uid.clone() } else { format!("{}/{}", pod.namespace, pod.name) }
    });
    let of_container = |part: fn(&Container) -> &String| workload.container.as_ref().map(part).cloned();
    let of_pod = |part: fn(&Pod) -> &String| workload.pod.as_ref().map(part).cloned();
    let owner = workload.pod.as_ref().filter(|pod| !pod.owner_kind.is_empty());
    let optional = [
        ("login_user", Some(workload.login_user.clone())),
        ("unit", Some(workload.unit.clone())),
        ("container", of_container(|container| &container.id)),
        ("container_name", of_container(|container| &container.name)),
        ("image", of_container(|container| &container.image)),
        ("pod", pod),
        ("namespace", of_pod(|pod| &pod.namespace)),
        ("service_account", of_pod(|pod| &pod.service_account)),
        ("pod_owner", owner.map(|pod| format!("{}/{}", pod.owner_kind, pod.owner_name))),
        ("ai_agent", Some(workload.ai_agent.clone())),
        ("ci_runner", Some(workload.ci_runner.clone())),
        ("sha256", workload.program_file.as_ref().map(|file| file.sha256.clone())),
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

/// Of the pod where there is one.
fn labels(workload: &Workload) -> Vec<Value> {
    let of_container = || workload.container.as_ref().map(|container| &container.labels);
    let labels = workload.pod.as_ref().map(|pod| &pod.labels).or_else(of_container);
    labels.into_iter().flatten().map(|label| text(&format!("{}={}", label.name, label.value))).collect()
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

/// The database that is asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Target(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    id: String,
    server: String,
    database: String,
    /// Environment, server and database.
    entities: Result<Vec<Entity>, String>,
}

impl Target {
    /// `database` on `server` of `environment`; an empty `database` is the server as a whole.
    pub fn new(environment: &str, server: &str, engine: &str, database: &str) -> Self {
        let entities = Self::build(environment, server, engine, database);
        Self(Arc::new(Parts {
            id: format!("{environment:?}/{server:?}/{engine:?}/{database:?}"),
            server: server.to_owned(),
            database: database.to_owned(),
            entities,
        }))
    }

    /// Names environment, server and database: a part of the key of decision caches.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    pub(crate) fn server(&self) -> &str {
        &self.0.server
    }

    /// The database's name; empty for the server as a whole.
    pub fn database_name(&self) -> &str {
        &self.0.database
    }

    pub(crate) fn database(&self) -> &str {
        &self.0.database
    }

    pub(crate) fn server_uid(&self) -> EntityUid {
        uid(&TYPES.server, &self.0.server)
    }

    /// Environment, server and database.
    pub(crate) fn entities(&self) -> Result<Vec<Entity>, String> {
        self.0.entities.clone()
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

/// What a statement says of one of its effects.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// See [`crate::vocabulary::Effect::has_where`].
    pub has_where: Option<bool>,
    /// How well the statement was understood.
    pub parse: Parse,
    /// Statements in the same string.
    pub parts: u32,
    /// The principal's last minute.
    pub rates: Rates,
    /// A reason is given, in the statement or by the client's name.
    pub justified: bool,
}
