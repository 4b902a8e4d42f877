//! From records to rows.

use prost::Message;

use super::Flat;
use crate::audit::v1::{
    Approval, ClientConnected, ConnectionClosed, ConnectionOpened, ControlEvent, Decision, Outcomes,
    PersonAction, Record, SealedRecord, SessionStarted, Statement, Workload, approval,
    connection_opened::Access, decision::Verdict, outcome::Status, person_action, record::Body,
    statement::Parse, workload::Evidence,
};

impl Flat {
    /// The row of a record of the agent `agent_id` on `host`. What cannot be decoded keeps its place in the chain and its bytes.
    pub fn of(agent_id: &str, host: &str, sealed: &SealedRecord) -> Self {
        let record = Record::decode(&*sealed.payload).ok();
        let mut flat = Self {
            key: Some(format!("{agent_id}:{}", sealed.sequence)),
            agent_id: Some(agent_id.to_owned()),
            sequence: Some(sealed.sequence.cast_signed()),
            host: text(host.to_owned()),
            kind: Some("unknown".to_owned()),
            hash: Some(hex::encode(&sealed.hash)),
            payload: Some(sealed.payload.to_vec()),
            ..Self::default()
        };
        let Some(record) = record else { return flat };
        flat.record = serde_json::to_string(&record).ok();
        flat.occurred_at = record
            .at
            .map(|at| at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000));
        if let Some(body) = record.body {
            flat.kind = Some(kind(&body).to_owned());
            flat.fill(body);
        }
        flat
    }

    fn fill(&mut self, body: Body) {
        match body {
            Body::ConnectionOpened(opened) => self.opened(opened),
            Body::ConnectionClosed(closed) => self.closed(closed),
            Body::SessionStarted(session) => self.session(session),
            Body::ClientConnected(connected) => self.client_connected(connected),
            Body::Statement(statement) => self.statement(statement),
            Body::Outcomes(outcomes) => self.outcomes(outcomes),
            Body::Approval(approval) => self.approval(approval),
            Body::PersonAction(action) => self.person_action(action),
            Body::ControlEvent(event) => self.control_event(event),
            Body::Gap(gap) => {
                (self.event, self.detail) = (text(gap.source), text(gap.detail));
                self.lost = Some(gap.lost.cast_signed());
            }
            Body::AgentStarted(started) => {
                (self.mode, self.policy_hash) = (text(started.mode), text(started.policy_hash))
            }
            Body::AgentStopped(stopped) => self.detail = text(stopped.reason),
            Body::PolicyChange(change) => {
                (self.policy_hash, self.subject) = (text(change.policy_hash), text(change.source));
                self.detail = text(change.error);
            }
            Body::SensorState(state) => {
                (self.subject, self.detail) = (text(state.rung), text(state.missing.join("; ")))
            }
            Body::KeyChange(change) => {
                (self.event, self.subject) = (text(change.reason), text(change.key_id))
            }
            Body::Checkpoint(checkpoint) => self.subject = text(checkpoint.key_id),
            Body::Tombstone(tombstone) => {
                (self.event, self.subject) = (text(tombstone.reason), text(tombstone.key_id));
                self.detail = text(format!("records {} to {}", tombstone.first, tombstone.last));
            }
        }
    }

    fn opened(&mut self, opened: ConnectionOpened) {
        self.connection_id = text(opened.connection_id);
        self.access = name(Access::try_from(opened.access).ok().map(|one| one.as_str_name()));
        if let Some(server) = opened.server {
            (self.server, self.engine, self.environment) =
                (text(server.name), text(server.engine), text(server.environment));
        }
        self.client_address = text(opened.client_address);
        self.server_address = text(opened.server_address).or(text(opened.unix_path));
        self.detail = opened.enforcement.and_then(|done| text(done.detail));
        self.decided(opened.decision);
        if let Some(workload) = opened.workload {
            self.workload(workload);
        }
    }

    fn workload(&mut self, workload: Workload) {
        self.workload = text(workload.label());
        self.workload_evidence =
            name(Evidence::try_from(workload.evidence).ok().map(|one| one.as_str_name()));
        // A peer of which only an address is known has no process here.
        let process = workload.pid > 0;
        self.pid = process.then_some(workload.pid.into());
        self.uid = process.then_some(workload.uid.into());
        (self.executable, self.command_line) = (text(workload.executable), text(workload.argv.join(" ")));
        (self.os_user, self.login_user) = (text(workload.user), text(workload.login_user));
        self.unit = text(workload.unit);
        if let Some(container) = workload.container {
            self.container = text(container.name).or(text(container.id));
            self.image = text(container.image);
        }
        if let Some(pod) = workload.pod {
            (self.pod, self.pod_namespace) = (text(pod.name), text(pod.namespace));
        }
        (self.ai_agent, self.ci_runner) = (text(workload.ai_agent), text(workload.ci_runner));
    }

    fn decided(&mut self, decision: Option<Decision>) {
        let Some(decision) = decision else { return };
        self.verdict = name(Verdict::try_from(decision.verdict).ok().map(|one| one.as_str_name()));
        (self.policy, self.reason) = (text(decision.policy), text(decision.reason));
        (self.decision_subject, self.mode) = (text(decision.subject), text(decision.mode));
        (self.policy_hash, self.request_id) = (text(decision.policy_hash), text(decision.approval_request));
    }

    fn client_connected(&mut self, connected: ClientConnected) {
        self.client_address = text(connected.client_address);
        self.server_address = text(connected.server_address);
        if let Some(workload) = connected.workload {
            self.workload(workload);
        }
    }

    fn session(&mut self, session: SessionStarted) {
        self.connection_id = text(session.connection_id);
        (self.db_user, self.database) = (text(session.db_user), text(session.database));
        (self.application_name, self.sqlstate) = (text(session.application_name), text(session.failure));
    }

    fn statement(&mut self, statement: Statement) {
        self.connection_id = text(statement.connection_id);
        self.ordinal = Some(statement.ordinal.cast_signed());
        (self.statement, self.fingerprint) = (text(statement.text), text(statement.fingerprint));
        self.parse = name(Parse::try_from(statement.parse).ok().map(|one| one.as_str_name()));
        self.actions = listed(statement.effects.iter().map(|effect| effect.action.as_str()));
        self.objects = listed(statement.effects.iter().map(|effect| effect.object.as_str()));
        (self.db_user, self.database) = (text(statement.db_user), text(statement.database));
        self.workload = text(statement.workload);
        self.evidence = text(statement.evidence).or(Some("proxy".to_owned()));
        self.access = Some("proxied".to_owned()).filter(|_| self.evidence.as_deref() == Some("proxy"));
        self.executions = Some(statement.executions.max(1).cast_signed());
        self.decided(statement.decision);
    }

    fn outcomes(&mut self, outcomes: Outcomes) {
        self.connection_id = text(outcomes.connection_id);
        let outcomes = outcomes.outcomes;
        let failed = outcomes.iter().filter(|one| one.status == i32::from(Status::Failed));
        self.failed = Some(count(failed.clone().count()));
        self.sqlstate = failed.clone().find_map(|one| text(one.sqlstate.clone()));
        self.outcomes = Some(count(outcomes.len()));
        self.rows = Some(sum(outcomes.iter().map(|one| one.rows)));
        self.duration_us = outcomes.iter().map(|one| one.duration_us.cast_signed()).max();
        let columns =
            outcomes.iter().filter_map(|one| one.masking.as_ref()).filter(|masking| !masking.only_recorded);
        self.masked_values =
            Some(sum(columns.flat_map(|masking| &masking.columns).map(|column| column.values)));
    }

    fn closed(&mut self, closed: ConnectionClosed) {
        self.connection_id = text(closed.connection_id);
        self.bytes_from_client = Some(closed.bytes_from_client.cast_signed());
        self.bytes_to_client = Some(closed.bytes_to_client.cast_signed());
        self.duration_us = Some(closed.duration_us.cast_signed());
        self.statements = Some(closed.statements.cast_signed());
        self.detail = text(closed.reason);
    }

    fn approval(&mut self, approval: Approval) {
        self.event = name(approval::Event::try_from(approval.event).ok().map(|one| one.as_str_name()));
        (self.request_id, self.connection_id) = (text(approval.request_id), text(approval.connection_id));
        (self.server, self.database) = (text(approval.server), text(approval.database));
        (self.db_user, self.workload) = (text(approval.db_user), text(approval.workload));
        (self.statement, self.fingerprint) = (text(approval.text), text(approval.fingerprint));
        self.actions = listed(approval.effects.iter().map(|effect| effect.action.as_str()));
        self.objects = listed(approval.effects.iter().map(|effect| effect.object.as_str()));
        (self.policy, self.reason) = (text(approval.policy), text(approval.reason));
        (self.policy_hash, self.detail) = (text(approval.policy_hash), text(approval.note));
        self.person = approval.person.and_then(|person| text(person.login_user).or(text(person.user)));
    }

    fn person_action(&mut self, action: PersonAction) {
        (self.event, self.person) = (text(action.action), text(action.person));
        (self.client_address, self.subject) = (text(action.address), text(action.subject));
        self.detail = text(action.detail);
        if action.outcome == i32::from(person_action::Outcome::Refused) {
            self.verdict = Some("refused".to_owned());
        }
    }

    fn control_event(&mut self, event: ControlEvent) {
        (self.event, self.subject, self.detail) =
            (text(event.event), text(event.agent_id), text(event.detail));
    }
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::AgentStarted(_) => "agent-started",
        Body::AgentStopped(_) => "agent-stopped",
        Body::PolicyChange(_) => "policy-change",
        Body::SensorState(_) => "sensor-state",
        Body::Gap(_) => "gap",
        Body::ConnectionOpened(_) => "connection-opened",
        Body::ConnectionClosed(_) => "connection-closed",
        Body::SessionStarted(_) => "session-started",
        Body::ClientConnected(_) => "client-connected",
        Body::Statement(_) => "statement",
        Body::Outcomes(_) => "outcomes",
        Body::Approval(_) => "approval",
        Body::KeyChange(_) => "key-change",
        Body::Checkpoint(_) => "checkpoint",
        Body::Tombstone(_) => "tombstone",
        Body::PersonAction(_) => "person-action",
        Body::ControlEvent(_) => "control-event",
    }
}

/// Microseconds since 1970 as RFC 3339 has it, in UTC; what no calendar has becomes its nearest end.
pub fn time(micros: i64) -> String {
    // 0000-01-01 and the last microsecond of 9999.
    let micros = micros.clamp(-62_167_219_200_000_000, 253_402_300_799_999_999);
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    // Days since 1970 to a date of the Gregorian calendar, by eras of 400 years that begin in March.
    let from_era = days + 719_468;
    let (era, day) = (from_era.div_euclid(146_097), from_era.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// An enum's name as people write it; what is not specified is absent.
fn name(name: Option<&str>) -> Option<String> {
    name.filter(|name| !name.ends_with("UNSPECIFIED")).map(|name| name.to_ascii_lowercase().replace('_', "-"))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn sum(numbers: impl Iterator<Item = u64>) -> i64 {
    i64::try_from(numbers.fold(0, u64::saturating_add)).unwrap_or(i64::MAX)
}

/// More words than a statement of a person has: the record itself has all of them.
const LISTED: usize = 64;

/// Each once, in their order.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    for word in words {
        if seen.len() >= LISTED {
            seen.push("..");
            break;
        }
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    text(seen.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{chain::Head, flat::COLUMNS, v1::Effect};

    #[test]
    fn a_statement_becomes_one_row_with_its_decision() {
        let effect = |action: &str| Effect {
            action: action.to_owned(),
            object: "public.t".to_owned(),
            ..Effect::default()
        };
        let body = Body::Statement(Statement {
            text: "delete from t where id = $1".to_owned(),
            effects: vec![effect("select"), effect("delete"), effect("select")],
            decision: Some(Decision {
                verdict: Verdict::WouldRefuse.into(),
                policy: "p".to_owned(),
                ..Decision::default()
            }),
            ..Statement::default()
        });
        let sealed = Head::default().seal(Record::now(body).encode_to_vec().into());
        let flat = Flat::of("a", "db1", &sealed);
        assert_eq!(flat.key.as_deref(), Some("a:1"));
        assert_eq!(
            (flat.kind.as_deref(), flat.verdict.as_deref()),
            (Some("statement"), Some("would-refuse"))
        );
        assert_eq!(
            (flat.actions.as_deref(), flat.objects.as_deref()),
            (Some("select delete"), Some("public.t"))
        );
        let (json, cut) = flat.json(1 << 20);
        assert!(!cut && json["statement"] == "delete from t where id = $1" && !json.contains_key("payload"));
        let (json, cut) = flat.json(6);
        assert!(cut && json["statement"] == "delete");
    }

    #[test]
    fn what_is_no_record_keeps_its_place_and_bytes() {
        let sealed = Head::default().seal(vec![0xff; 9].into());
        let flat = Flat::of("a", "", &sealed);
        assert_eq!((flat.kind.as_deref(), flat.occurred_at, flat.record), (Some("unknown"), None, None));
        assert_eq!(flat.payload, Some(vec![0xff; 9]));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COLUMNS.len());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (micros, shown) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(time(micros), shown);
        }
    }
}
