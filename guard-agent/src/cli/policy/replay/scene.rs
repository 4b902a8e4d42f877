//! What is known while the record goes by: who is connected to what, and how much they did in the last minute.

use std::collections::HashMap;

use guard_common::audit::v1::{
    self as record, ConnectionOpened, Outcomes, Record, SessionStarted, connection_opened::Access,
    connection_opened::Transport, record::Body, statement,
};
use guard_policy::{
    Facts, Ground, PolicySet, Principal, Rates, Target,
    vocabulary::{Action, Effect, Object, ObjectKind, Parse},
};

use super::tally::{Asked, Tally, Then};
use crate::decide::{self, AppliedMode, Meter, Meters, evaluate};

/// Most connections that are followed at once. A journal that begins or breaks off in the middle closes not all of them.
const MAX_CONNECTIONS: usize = 65_536;

#[derive(Default)]
pub(super) struct Scene {
    connections: HashMap<String, Connected>,
    meters: Meters,
}

struct Connected {
    principal: Principal,
    target: Target,
    transport: &'static str,
    proxied: bool,
    server: (String, String, String),
    ground: Ground,
    meter: std::sync::Arc<Meter>,
}

impl Scene {
    /// Takes one record; decisions go to `tally`.
    pub(super) fn take(&mut self, sequence: u64, record: Record, policies: &PolicySet, tally: &mut Tally) {
        let second = record.at.as_ref().map_or(0, |at| u64::try_from(at.seconds).unwrap_or_default());
        tally.record(record.at.as_ref());
        match record.body {
            Some(Body::ConnectionOpened(opened)) => self.opened(sequence, second, &opened, policies, tally),
            Some(Body::SessionStarted(started)) => self.started(&started),
            Some(Body::Statement(statement)) => self.statement(sequence, second, &statement, policies, tally),
            Some(Body::Outcomes(outcomes)) => self.outcomes(second, &outcomes),
            Some(Body::ConnectionClosed(closed)) => drop(self.connections.remove(&closed.connection_id)),
            // What was open before is not any more.
            Some(Body::AgentStarted(_)) => self.connections.clear(),
            Some(
                Body::AgentStopped(_)
                | Body::PolicyChange(_)
                | Body::SensorState(_)
                | Body::Gap(_)
                | Body::ClientConnected(_)
                | Body::Approval(_)
                | Body::KeyChange(_)
                | Body::Checkpoint(_)
                | Body::Tombstone(_)
                | Body::PersonAction(_)
                | Body::ControlEvent(_),
            ) => {}
            None => tally.skipped("record of a newer version"),
        }
    }

    fn opened(
        &mut self,
        sequence: u64,
        second: u64,
        opened: &ConnectionOpened,
        policies: &PolicySet,
        tally: &mut Tally,
    ) {
        let workload = opened.workload.clone().unwrap_or_default();
        let server = opened.server.clone().unwrap_or_default();
        let principal = Principal::new(&workload);
        let transport = if opened.transport() == Transport::Unix { "unix" } else { "tcp" };
        let proxied = opened.access() == Access::Proxied;
        let target = Target::new(&server.environment, &server.name, &server.engine, "");
        let now = policies.connect(&principal, &target, proxied, transport);
        if let Some(then) = opened.decision.as_ref().map(Then::of) {
            let way = if proxied { "through the proxy" } else { "round the proxy" };
            let text = format!("connect to {} {way}", server.name);
            tally.connection(sequence, &Asked { workload: principal.name(), text: &text }, then, &now);
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let meter = self.meters.of_at(&principal, &server.name, second);
        let facts = Facts { proxied, transport, db_user: "", roles: &[], application_name: "" };
        let connected = Connected {
            ground: Ground::new(&principal, &target, &facts),
            server: (server.environment, server.name, server.engine),
            principal,
            target,
            transport,
            proxied,
            meter,
        };
        self.connections.insert(opened.connection_id.clone(), connected);
    }

    fn started(&mut self, started: &SessionStarted) {
        let Some(connected) = self.connections.get_mut(&started.connection_id) else { return };
        let (environment, name, engine) = &connected.server;
        connected.target = Target::new(environment, name, engine, &started.database);
        let facts = Facts {
            proxied: connected.proxied,
            transport: connected.transport,
            db_user: &started.db_user,
            roles: &[&started.db_user],
            application_name: &started.application_name,
        };
        connected.ground = Ground::new(&connected.principal, &connected.target, &facts);
    }

    fn statement(
        &mut self,
        sequence: u64,
        second: u64,
        statement: &record::Statement,
        policies: &PolicySet,
        tally: &mut Tally,
    ) {
        let Some(connected) = self.connections.get_mut(&statement.connection_id) else {
            return tally.skipped("statement whose connection is not in the record");
        };
        let Some(effects) = effects(statement) else {
            return tally.skipped("statement with effects of a newer version");
        };
        connected.meter.statement_at(second);
        let parse = match statement.parse() {
            statement::Parse::Full => Parse::Full,
            statement::Parse::Tokens => Parse::Tokens,
            statement::Parse::None | statement::Parse::Unspecified => Parse::None,
        };
        let asked = decide::Asked { effects: &effects, parse, parts: statement.parts, justified: false };
        let rates: Rates = connected.meter.read_at(second);
        let now = evaluate(policies, &mut connected.ground, AppliedMode::ENFORCED, asked, rates);
        let Some(then) = statement.decision.as_ref().map(Then::of) else {
            return tally.skipped("statement without a decision");
        };
        let workload = connected.principal.name();
        tally.statement(sequence, &Asked { workload, text: &statement.text }, then, &now);
    }

    fn outcomes(&mut self, second: u64, outcomes: &Outcomes) {
        if let Some(connected) = self.connections.get(&outcomes.connection_id) {
            let rows = outcomes.outcomes.iter().map(|outcome| outcome.rows).fold(0, u64::saturating_add);
            connected.meter.rows_at(rows, second);
        }
    }
}

/// The effects as they were decided on; nothing where one has a word that is not known here.
fn effects(statement: &record::Statement) -> Option<Vec<Effect>> {
    statement.effects.iter().map(effect).collect()
}

fn effect(effect: &record::Effect) -> Option<Effect> {
    let action = Action::ALL.iter().copied().find(|action| action.as_str() == effect.action)?;
    let kind = ObjectKind::ALL.iter().copied().find(|kind| kind.as_str() == effect.object_kind)?;
    let schema = effect.object_schema.as_deref();
    let name = schema
        .and_then(|schema| effect.object.strip_prefix(schema)?.strip_prefix('.'))
        .unwrap_or(&effect.object);
    Some(Effect { has_where: effect.has_where, ..Effect::new(action, Object::named(kind, schema, name)) })
}
