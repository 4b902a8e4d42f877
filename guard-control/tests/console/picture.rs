//! A fleet on an ordinary day, for the picture in the README: `cargo xtask picture`.

use std::time::{Duration, SystemTime};

use guard_common::{
    api::{
        agent::{ApprovalRequest, approval_request::State},
        control::{ApprovalUpdate, Hello, agent_message::Message as FromAgent},
    },
    audit::{
        timestamp,
        v1::{
            AgentStarted, Ancestor, ApprovalNeeds, ApprovalRequirement, Checkpoint, ConnectionClosed,
            ConnectionOpened, DatabaseServer, Decision, Effect, Outcome, Outcomes, Provenance, Record,
            SealedRecord, SensorState, SessionStarted, Statement, Workload,
            connection_opened::{Access, Transport},
            decision::Verdict,
            outcome::Status,
            record::Body,
            sensor_state::Program,
            statement::Parse,
            workload::Evidence,
        },
    },
};
use guard_tests::{Browser, skip};
use prost::Message;
use uuid::Uuid;

use super::{
    agent::{Chain, Stream},
    site::{PASSWORD, Site},
};

const HASH: &str = "9f2c4e61b7a05d3388e1c0f4a2b6d7791e5f3a8c4d2b6907f1e8a3c5d7b90214";

struct Host {
    chain: Chain,
    stream: Stream,
    name: &'static str,
}

impl Host {
    async fn start(site: &Site, name: &'static str, mode: &str, rung: &str, boot: SystemTime) -> Self {
        let chain = Chain::new();
        let stream = Stream::raw(site.agents).await.unwrap();
        let hello = Hello {
            agent_id: chain.id.clone(),
            host: name.to_owned(),
            agent_version: "0.1.0".to_owned(),
            mode: mode.to_owned(),
            oldest_sequence: 1,
            ..Hello::default()
        };
        stream.send(FromAgent::Hello(hello)).await;
        let mut host = Self { chain, stream, name };
        host.stream.answer().await.unwrap();
        let attached = rung != "no-bpf";
        let program = |name: &str| Program { name: name.to_owned(), attached, ..Program::default() };
        let programs =
            ["inet_csk_accept", "connect4", "connect6", "exec", "unix_stream_connect"].map(program);
        host.send(vec![
            (
                boot,
                Body::AgentStarted(AgentStarted {
                    host: name.to_owned(),
                    kernel: "6.12.48-amd64".to_owned(),
                    mode: mode.to_owned(),
                    policy_hash: HASH.to_owned(),
                    ..AgentStarted::default()
                }),
            ),
            (
                boot,
                Body::SensorState(SensorState {
                    rung: rung.to_owned(),
                    programs: programs.to_vec(),
                    ..Default::default()
                }),
            ),
        ])
        .await;
        host
    }

    async fn send(&mut self, bodies: Vec<(SystemTime, Body)>) {
        let seal = |(at, body): (SystemTime, Body)| -> SealedRecord {
            let record = Record { version: 1, at: Some(timestamp(at)), body: Some(body) };
            self.chain.head.seal(record.encode_to_vec().into())
        };
        let records: Vec<_> = bodies.into_iter().map(seal).collect();
        for part in records.chunks(500) {
            self.stream.store(part.to_vec()).await;
        }
    }
}

fn decision(verdict: Verdict, policy: &str, reason: &str, subject: &str) -> Option<Decision> {
    Some(Decision {
        verdict: verdict.into(),
        policy: policy.to_owned(),
        reason: reason.to_owned(),
        subject: subject.to_owned(),
        policy_hash: HASH.to_owned(),
        mode: "enforce".to_owned(),
        ..Decision::default()
    })
}

fn said(connection: &str, ordinal: u64, text: &str, workload: &str, decision: Option<Decision>) -> Body {
    Body::Statement(Statement {
        connection_id: connection.to_owned(),
        ordinal,
        text: text.to_owned(),
        db_user: "shop".to_owned(),
        database: "shop".to_owned(),
        workload: workload.to_owned(),
        parse: Parse::Full.into(),
        decision,
        ..Statement::default()
    })
}

fn psql_via_claude() -> Workload {
    let ancestor = |pid: u32, executable: &str| Ancestor {
        pid,
        executable: executable.to_owned(),
        known_by: "exec".to_owned(),
        ..Ancestor::default()
    };
    Workload {
        evidence: Evidence::Attested.into(),
        pid: 48_213,
        executable: "/usr/lib/postgresql/17/bin/psql".to_owned(),
        argv: ["psql", "-h", "127.0.0.1", "-U", "shop", "shop"].map(str::to_owned).to_vec(),
        user: "lena".to_owned(),
        uid: 1_004,
        login_uid: Some(1_004),
        login_user: "lena".to_owned(),
        ai_agent: "claude".to_owned(),
        ancestry: vec![
            ancestor(48_201, "/usr/bin/bash"),
            ancestor(47_990, "/usr/local/bin/claude"),
            ancestor(44_102, "/usr/bin/zsh"),
        ],
        cgroup: "/user.slice/user-1004.slice/session-12.scope".to_owned(),
        known_by: Some(Provenance { executable: "exec".to_owned(), ..Provenance::default() }),
        ..Workload::default()
    }
}

fn opened(connection: &str, access: Access, workload: Workload, decision: Option<Decision>) -> Body {
    Body::ConnectionOpened(ConnectionOpened {
        connection_id: connection.to_owned(),
        access: access.into(),
        transport: Transport::Tcp.into(),
        server: Some(DatabaseServer {
            name: "shop-db".to_owned(),
            engine: "postgresql".to_owned(),
            environment: "production".to_owned(),
        }),
        server_address: if access == Access::Proxied { "127.0.0.1:6432" } else { "127.0.0.1:5432" }
            .to_owned(),
        workload: Some(workload),
        decision,
        ..ConnectionOpened::default()
    })
}

/// The connection of a coding agent that wants too much.
fn story(connection: &str, at: SystemTime) -> Vec<(SystemTime, Body)> {
    let later = |seconds: u64| at + Duration::from_secs(seconds);
    let every_row = Effect {
        action: "update".to_owned(),
        object: "public.customers".to_owned(),
        has_where: Some(false),
        ..Effect::default()
    };
    let update = said(
        connection,
        2,
        "update customers\n   set email = lower(email)",
        "psql via claude",
        decision(
            Verdict::Refused,
            "ai-agents-read-only",
            "programs started by an AI agent may only read",
            "update of table customers",
        ),
    );
    let update = match update {
        Body::Statement(statement) => Body::Statement(Statement { effects: vec![every_row], ..statement }),
        other => other,
    };
    vec![
        (
            at,
            opened(
                connection,
                Access::Proxied,
                psql_via_claude(),
                decision(Verdict::Allowed, "baseline", "", ""),
            ),
        ),
        (
            at,
            Body::SessionStarted(SessionStarted {
                connection_id: connection.to_owned(),
                db_user: "shop".to_owned(),
                database: "shop".to_owned(),
                application_name: "psql".to_owned(),
                client_tls: "TLSv1.3".to_owned(),
                ..SessionStarted::default()
            }),
        ),
        (
            later(4),
            said(
                connection,
                1,
                "select id, email from customers where country = ? order by id limit ?",
                "psql via claude",
                decision(Verdict::Allowed, "baseline", "", ""),
            ),
        ),
        (later(31), update),
        (
            later(32),
            Body::Outcomes(Outcomes {
                connection_id: connection.to_owned(),
                outcomes: vec![Outcome {
                    ordinal: 1,
                    status: Status::Completed.into(),
                    command_tag: "SELECT 20".to_owned(),
                    duration_us: 2_140,
                    ..Outcome::default()
                }],
            }),
        ),
        (
            later(60),
            Body::ConnectionClosed(ConnectionClosed {
                connection_id: connection.to_owned(),
                bytes_from_client: 612,
                bytes_to_client: 4_871,
                duration_us: 60_000_000,
                statements: 2,
                reason: "the client has left".to_owned(),
                completeness: Some(guard_common::audit::v1::Completeness {
                    whole: true,
                    ..Default::default()
                }),
                ..ConnectionClosed::default()
            }),
        ),
    ]
}

/// What one host has on record of the last day.
fn day(host: usize, now: SystemTime) -> Vec<(SystemTime, Body)> {
    let mut bodies = Vec::new();
    let connection = Uuid::now_v7().to_string();
    for minute in (1..1_430_u64).rev() {
        let at = now - Duration::from_secs(minute * 60 + host as u64 * 7);
        // More by day than by night, and never quite the same.
        let hour = (1_440 - minute) / 60;
        let busy =
            [2, 1, 1, 1, 1, 2, 3, 5, 7, 9, 9, 8, 7, 8, 9, 9, 8, 7, 5, 4, 4, 3, 3, 2][hour as usize % 24];
        for n in 0..(busy * (3 + (minute * 7 + host as u64 * 3) % 5) / 6).max(1) {
            let (text, workload) = match (n + minute) % 3 {
                0 => (
                    "select * from orders where customer = $1 order by placed desc limit ?",
                    "orders.service",
                ),
                1 => ("update stock set reserved = reserved + ? where item = $1", "stock.service"),
                _ => ("insert into events (kind, body) values ($1, $2)", "web.service"),
            };
            bodies.push((
                at,
                said(&connection, 0, text, workload, decision(Verdict::Allowed, "baseline", "", "")),
            ));
        }
        match (minute + host as u64 * 11) % 97 {
            5 | 50 => bodies.push((
                at,
                said(
                    &connection,
                    0,
                    "delete from carts",
                    "cleanup.timer",
                    decision(
                        Verdict::Refused,
                        "no-bulk-change",
                        "it changes every row of the table",
                        "delete of table carts without WHERE",
                    ),
                ),
            )),
            31 => bodies.push((
                at,
                said(
                    &connection,
                    0,
                    "drop table invoices_2019",
                    "psql via claude",
                    decision(
                        Verdict::Refused,
                        "no-drop",
                        "tables are dropped by migrations alone",
                        "drop of table invoices_2019",
                    ),
                ),
            )),
            77 => bodies.push((
                at,
                said(
                    &connection,
                    0,
                    "copy customers to stdout",
                    "report.service",
                    decision(
                        Verdict::WouldRefuse,
                        "exports-need-a-unit",
                        "exports run from listed units",
                        "export of table customers",
                    ),
                ),
            )),
            _ => {}
        }
    }
    bodies
}

fn waits(now: SystemTime) -> ApprovalRequest {
    ApprovalRequest {
        id: "k3m9x2pa".to_owned(),
        state: State::Waiting.into(),
        opened: Some(timestamp(now - Duration::from_secs(95))),
        expires: Some(timestamp(now + Duration::from_secs(800))),
        text: "delete from orders\n where placed < ? and state = ?".to_owned(),
        db_user: "shop".to_owned(),
        database: "shop".to_owned(),
        server: "shop-db".to_owned(),
        environment: "production".to_owned(),
        application_name: "psql".to_owned(),
        policy: "prod-bulk-delete".to_owned(),
        reason: "rows of production are lost for good".to_owned(),
        justification: "ticket 4711: orders of the test shop".to_owned(),
        estimate: "about 1 240 rows of orders (delete)".to_owned(),
        needs: Some(ApprovalNeeds {
            requirements: vec![ApprovalRequirement {
                policy: "prod-bulk-delete".to_owned(),
                groups: vec!["dba".to_owned()],
                approvers: 1,
            }],
            ..ApprovalNeeds::default()
        }),
        effects: vec![Effect {
            action: "delete".to_owned(),
            object: "public.orders".to_owned(),
            has_where: Some(true),
            ..Effect::default()
        }],
        workload: Some(Workload { ai_agent: String::new(), ..psql_via_claude() }),
        ..ApprovalRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_a_fleet_is_shown() {
    if skip::without(&[skip::Need::Browser]) {
        return;
    }
    let folder = std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/console"));
    std::fs::create_dir_all(&folder).unwrap();
    let site = Site::start().await;
    site.add("lena", "approver", &["dba"]).await;
    site.add("mara", "viewer approver auditor admin", &["dba"]).await;
    let now = SystemTime::now();
    let boot = now - Duration::from_secs(86_400);
    let fleet = [
        ("db1.shop.example", "enforce", "full"),
        ("db2.shop.example", "enforce", "full"),
        ("billing-db.example", "enforce", "full"),
        ("ledger-db.example", "monitor", "full"),
        ("legacy-db.example", "monitor", "no-bpf"),
    ];
    let mut hosts = Vec::new();
    for (at, (name, mode, rung)) in fleet.into_iter().enumerate() {
        let mut host = Host::start(&site, name, mode, rung, boot).await;
        host.send(day(at, now)).await;
        hosts.push(host);
    }
    let began = now - Duration::from_secs(400);
    let seconds = began.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // An id tells when its connection began.
    let told = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)).to_string();
    let round = Uuid::now_v7().to_string();
    let first = &mut hosts[0];
    first.send(story(&told, began)).await;
    let policy =
        decision(Verdict::WouldRefuse, "only-listed-goes-round", "only listed units go round the proxy", "");
    first
        .send(vec![(
            now - Duration::from_secs(40),
            opened(&round, Access::NonProxied, psql_via_claude(), policy),
        )])
        .await;
    let (sequence, hash) = (first.chain.head.sequence, first.chain.head.hash.to_vec());
    let signed = Checkpoint {
        sequence,
        hash,
        agent_id: first.chain.id.clone(),
        key_id: "4be1f09a27c3d815".to_owned(),
        signed_at: i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap() - 20,
        ..Checkpoint::default()
    };
    first.send(vec![(now - Duration::from_secs(20), Body::Checkpoint(signed))]).await;
    first.stream.send(FromAgent::Approval(ApprovalUpdate { request: Some(waits(now)) })).await;
    super::policies::published(&site).await;
    super::policies::agent_that_says(&site, super::policies::FOURTEEN);
    guard_control::proof::gather(&site.app.fleet.store, &site.app.key).await.unwrap();
    let (agent, console) = (hosts[0].chain.id.clone(), site.console);
    assert!(hosts.iter().all(|host| !host.name.is_empty()));
    tokio::task::spawn_blocking(move || look(console, &agent, &told, &folder).unwrap()).await.unwrap();
    drop(hosts);
    site.stop().await;
}

/// A version is tried, handed out and gone back from; a head and a proof are taken along.
fn hand_out(browser: &mut Browser, at: &impl Fn(&str) -> String) -> anyhow::Result<()> {
    browser.goto(&at("/policies"))?;
    browser.click("a:has-text('Version 2')")?;
    browser.see("ins:has-text('no-drop')")?;
    browser.click("button:has-text('Dry run')")?;
    browser.see("b:has-text('14 statements of 3 workloads')")?;
    browser.fill("input[name=labels]", "canary=yes")?;
    browser.click("button:has-text('Hand out')")?;
    browser.see("li:has-text('canary=yes')")?;
    browser.goto(&at("/policies/1"))?;
    browser.click("button:has-text('Go back to version 1')")?;
    browser.see("h1:has-text('Version 3')")?;
    browser.see("li:has-text('every host')")?;
    browser.goto(&at("/verification"))?;
    let head = browser.download("a:has-text('Download its head')")?;
    anyhow::ensure!(head.contains("\"root\""), "{head}");
    browser.fill("input[name=sequence]", "1")?;
    let proof = browser.download("#inclusion ~ form button")?;
    anyhow::ensure!(proof.contains("guard_audit_proof"), "{proof}");
    browser.fill("textarea[name=head]", &head)?;
    let grown = browser.download("#consistency ~ form button")?;
    anyhow::ensure!(grown.contains("guard_audit_consistency"), "{grown}");
    // A time range is kept in the form.
    browser.goto(&at("/search?from=2001-01-01&to=2100-01-01T12:30"))?;
    browser.see("ol.events .event")?;
    browser.see("input[name=to][value='2100-01-01T12:30:00']")?;
    Ok(())
}

/// Goes through the pages, as two people would; takes pictures where they are wanted.
fn look(
    console: std::net::SocketAddr,
    agent: &str,
    connection: &str,
    folder: &std::path::Path,
) -> anyhow::Result<()> {
    let mut browser = Browser::start()?;
    let at = |path: &str| format!("http://{console}{path}");
    browser.goto(&at("/sign-in"))?;
    browser.fill("input[name=name]", "mara")?;
    browser.fill("input[name=password]", PASSWORD)?;
    browser.click("button[type=submit]")?;
    browser.see("h1:has-text('Overview')")?;
    hand_out(&mut browser, &at)?;
    let story = format!("/connections/{agent}/{connection}");
    let request = format!("/approvals/{agent}/k3m9x2pa");
    let host = format!("/agents/{agent}");
    let pages = [
        ("overview", "/"),
        ("live", "/live"),
        ("round", "/round-the-proxy"),
        ("search", "/search?contains=customers"),
        ("approvals", "/approvals"),
        ("approval", request.as_str()),
        ("connection", story.as_str()),
        ("agents", "/agents"),
        ("agent", host.as_str()),
        ("policies", "/policies"),
        ("version", "/policies/2"),
        ("verification", "/verification"),
        ("people", "/people"),
        ("actions", "/actions"),
        ("tokens", "/tokens"),
        ("account", "/account"),
    ];
    let mut barriers = Vec::new();
    for (name, path) in pages {
        for (scheme, width) in [("light", 1_280), ("dark", 1_280), ("light", 390), ("dark", 390)] {
            browser.size(width, 860)?;
            browser.scheme(scheme)?;
            let status = browser.goto(&at(path))?;
            anyhow::ensure!(status == 200, "{status} on {path}");
            barriers
                .extend(browser.barriers()?.into_iter().map(|one| format!("{name} {scheme} {width}: {one}")));
            let wide = browser.too_wide()?;
            if wide > 0 {
                barriers.push(format!("{name} at {width}: {wide} pixels wider than the window"));
            }
            browser.picture(&folder.join(format!("{name}-{scheme}-{width}.png")), width == 390)?;
        }
    }
    let errors = browser.errors()?;
    anyhow::ensure!(errors.is_empty(), "errors in pages: {errors:#?}");
    anyhow::ensure!(barriers.is_empty(), "{}", barriers.join("\n"));
    Ok(())
}
