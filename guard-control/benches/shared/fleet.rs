//! A fleet that is simulated: applications that ask the same things over and over, people and programs that do not.

use guard_common::{
    api::control::Hello,
    audit::{
        chain::Head,
        v1::{
            ConnectionClosed, ConnectionOpened, Decision, Effect, Outcome, Outcomes, Record, SealedRecord,
            Statement, Workload, connection_opened::Access, decision::Verdict, outcome::Status, record::Body,
            statement::Parse,
        },
    },
};
use pbjson_types::Timestamp;
use prost::Message as _;
use uuid::Uuid;

/// Applications of the fleet; each has statements of its own.
const APPLICATIONS: u64 = 60;
/// Statements of each application.
const STATEMENTS: u64 = 150;
/// One in so many statements is somebody's own, of a kind that comes once.
const OWN: u64 = 97;
/// One in so many statements is refused.
const REFUSED: u64 = 2_003;
/// Statements of one connection.
const CONNECTION: u64 = 500;
/// Outcomes in one record.
const OUTCOMES: u64 = 20;

/// Numbers that look random and are the same each time.
#[derive(Clone, Copy, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// One host: its chain, and what goes on there.
pub struct Host {
    number: u64,
    pub id: String,
    pub head: Head,
    pub dice: Dice,
    /// Records so far.
    pub told: u64,
    /// The connection that is open, and the statements on it.
    pub connection: Uuid,
    statements: u64,
}

impl Host {
    pub fn new(number: u64) -> Self {
        let id = Uuid::from_u64_pair(0x6775_6172_6400_4000 + (number >> 48), 0x8000_0000_0000_0000 | number);
        let mut dice = Dice(number.wrapping_mul(0x1234_5678_9abc_def1));
        dice.roll(2);
        let id = id.to_string();
        Self { number, id, head: Head::default(), dice, told: 0, connection: Uuid::nil(), statements: 0 }
    }

    pub fn hello(&self) -> Hello {
        Hello {
            agent_id: self.id.clone(),
            host: format!("db-{}", &self.id[30..]),
            agent_version: "0.1.0".to_owned(),
            mode: "enforce".to_owned(),
            oldest_sequence: 1,
            ..Hello::default()
        }
    }

    /// The next record, of this moment (microseconds since 1970).
    pub fn next(&mut self, at: i64) -> SealedRecord {
        self.told += 1;
        let body = match self.statements % (CONNECTION + 2) {
            0 => {
                self.connection = at_moment(at, &mut self.dice);
                Body::ConnectionOpened(self.opened())
            }
            n if n == CONNECTION + 1 => Body::ConnectionClosed(ConnectionClosed {
                connection_id: self.connection.to_string(),
                ..ConnectionClosed::default()
            }),
            n if n % (OUTCOMES + 1) == OUTCOMES => Body::Outcomes(self.outcomes(n)),
            n => Body::Statement(self.statement(n)),
        };
        self.statements += 1;
        let nanos = i32::try_from(at.rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
        let moment = Timestamp { seconds: at.div_euclid(1_000_000), nanos };
        self.head.seal(Record { at: Some(moment), ..Record::now(body) }.encode_to_vec().into())
    }

    fn opened(&mut self) -> ConnectionOpened {
        let round = self.dice.roll(40) == 0;
        let (access, executable) = match round {
            true => (Access::NonProxied, "/usr/bin/psql".to_owned()),
            false => (Access::Proxied, format!("/opt/app{}/bin/server", self.dice.roll(APPLICATIONS))),
        };
        ConnectionOpened {
            connection_id: self.connection.to_string(),
            access: access.into(),
            client_address: format!("10.{}.{}.7:41234", self.dice.roll(250), self.dice.roll(250)),
            server_address: "10.0.0.5:5432".to_owned(),
            workload: Some(Workload { executable, pid: 4_711, uid: 1_000, ..Workload::default() }),
            decision: Some(decided(
                if round { Verdict::WouldRefuse } else { Verdict::Allowed },
                "only-through-the-proxy",
            )),
            ..ConnectionOpened::default()
        }
    }

    fn statement(&mut self, n: u64) -> Statement {
        // Few applications run on one host.
        let application = (self.number * 7 + self.dice.roll(3)) % APPLICATIONS;
        let (text, db_user) = match self.dice.roll(OWN) {
            0 => own_statement(&mut self.dice),
            _ => (statement_text(application, self.dice.roll(STATEMENTS)), format!("app_{application}")),
        };
        let decision = match self.dice.roll(REFUSED) {
            0 => decided(Verdict::Refused, "prod-bulk-delete"),
            _ => decided(Verdict::Allowed, "applications-use-their-tables"),
        };
        Statement {
            connection_id: self.connection.to_string(),
            ordinal: n,
            text_bytes: text.len() as u64,
            fingerprint: format!("{:016x}", self.dice.roll(u64::MAX)),
            parse: Parse::Full.into(),
            effects: vec![Effect {
                object: format!("orders_{application}"),
                object_schema: Some("public".to_owned()),
                ..Effect::default()
            }],
            decision: Some(decision),
            db_user,
            database: "shop".to_owned(),
            workload: format!("app{application}.service"),
            parts: 1,
            text,
            ..Statement::default()
        }
    }

    fn outcomes(&self, n: u64) -> Outcomes {
        let outcome = |ordinal| Outcome {
            ordinal,
            status: Status::Completed.into(),
            command_tag: "SELECT 1".to_owned(),
            rows: 1,
            duration_us: 480,
            ..Outcome::default()
        };
        Outcomes {
            connection_id: self.connection.to_string(),
            outcomes: (n - OUTCOMES..n).map(outcome).collect(),
        }
    }
}

/// A connection's id carries its time.
fn at_moment(at: i64, dice: &mut Dice) -> Uuid {
    let seconds = u64::try_from(at.div_euclid(1_000_000)).unwrap_or(0);
    let nanos = u32::try_from(at.rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
    let counted = uuid::NoContext;
    let _ = dice.roll(2);
    Uuid::new_v7(uuid::Timestamp::from_unix(counted, seconds, nanos))
}

fn decided(verdict: Verdict, policy: &str) -> Decision {
    let policy_hash = "b5c1f3d2a7e84c0996a2d8f1e4b7c3a0".to_owned();
    Decision { verdict: verdict.into(), policy: policy.to_owned(), policy_hash, ..Decision::default() }
}

/// What an application asks.
pub fn statement_text(application: u64, number: u64) -> String {
    match number % 3 {
        0 => format!(
            "SELECT o.id, o.placed_at, o.total, c.name FROM orders_{application} o JOIN customers c ON c.id = o.customer_id \
             WHERE o.state = $1 AND o.kind_{number} > $2 ORDER BY o.placed_at DESC LIMIT $3"
        ),
        1 => format!(
            "UPDATE stock_{application} SET amount = amount - $1, changed = now() WHERE item_{number} = $2 AND amount >= $1"
        ),
        _ => format!(
            "INSERT INTO events_{application} (kind, item, at, payload_{number}) VALUES ($1, $2, $3, $4) RETURNING id"
        ),
    }
}

/// What somebody asks once: text and user.
fn own_statement(dice: &mut Dice) -> (String, String) {
    let person = format!("person_{}", dice.roll(400));
    let text = match dice.roll(5_000) {
        0 => "COPY (SELECT * FROM customers) TO PROGRAM ?".to_owned(),
        _ => format!(
            "SELECT count(*), max(total) FROM orders_{} WHERE report_{} = ?",
            dice.roll(APPLICATIONS),
            dice.roll(u64::MAX)
        ),
    };
    (text, person)
}
