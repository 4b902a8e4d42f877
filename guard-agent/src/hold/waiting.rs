//! A held statement that waits for people: its backend stays stopped until they have decided, or nobody waits any more.
//!
//! Its client sees nothing meanwhile: nothing can be said to it from outside of its session. Who cancels it, or ends the
//! session, is seen, and the statement never runs.

use std::{fs, future::poll_fn, sync::Arc, time::Duration};

use guard_common::api::agent::ApprovalRequest;
use guard_policy::Wait;

use super::{
    judge::{Asked, Judge, Waiting},
    process::Process,
};
use crate::{
    approval::{Answer, Ask, Binding, Bound, Exact, Hold, Word, belongs_here, person},
    audit::effect_record,
    decide::{Grant, Held, Ruling},
};

/// How often it is looked whether somebody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest text of a request in bytes; the record has it whole.
const MAX_TEXT: usize = 32 * 1024;
/// Most effects that a request lists.
const MAX_EFFECTS: usize = 200;
/// Signals by which a backend is told to cancel, or to end: SIGHUP is none.
const ENDING: u64 = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGTERM - 1) | 1 << (libc::SIGQUIT - 1);

impl Judge {
    /// Asks people, and waits for them; true where the statement may run.
    pub async fn wait(&self, waiting: Waiting) -> bool {
        let Waiting { held, asked } = waiting;
        let request = self.request(&asked, &held);
        if let Some(granted) = self.through_the_glass(&held, &asked, &request).await {
            return granted;
        }
        if is_retried(&held) && request.binding.is_empty() {
            return self.over(
                &asked,
                &held,
                "",
                "nobody could tell whether it is the same when it is sent again",
            );
        }
        let exact = Exact::new(asked.text.as_deref().unwrap_or_default(), b"");
        let ask = Ask { request, exacts: vec![Arc::new(exact)], cancel: None };
        match self.approvals.ask(ask).await {
            Ok(Answer::Run(claim)) => self.run(&asked, &held, Grant::Approved(claim)).await,
            Ok(Answer::Retry(request)) => {
                self.over(&asked, &held, &request.id, "it is refused until it is approved")
            }
            Ok(Answer::Wait(hold)) => self.settle(&asked, &held, hold).await,
            Err(error) => self.over(&asked, &held, "", &format!("nobody can be asked: {error}")),
        }
    }

    async fn settle(&self, asked: &Asked, held: &Held, mut hold: Hold) -> bool {
        let id = hold.id().to_owned();
        tracing::info!(
            request = id,
            backend = asked.event.key.pid,
            "a statement is held until it is approved"
        );
        loop {
            let word = tokio::time::timeout(LOOK_EVERY, poll_fn(|cx| hold.poll_word(cx))).await;
            match word {
                Ok(Word::Remind) => {}
                Ok(Word::Cancelled) => return self.over(asked, held, &id, "it was cancelled"),
                Ok(Word::Settled) => break,
                Err(_) => {
                    if let Some(why) = nobody_waits(asked) {
                        hold.withdraw(why);
                        return self.over(asked, held, &id, why);
                    }
                }
            }
        }
        let claim = match hold.claim().await {
            Ok(claim) => claim,
            Err(error) => return self.over(asked, held, &id, &error.to_string()),
        };
        // By the policies of this moment: they may have changed since.
        if let Ruling::Refused(decision) = self.rule(asked) {
            hold.refuse("policies have changed: it is refused now");
            self.refused(asked, &decision);
            return false;
        }
        self.run(asked, held, Grant::Approved(claim)).await
    }

    async fn run(&self, asked: &Asked, held: &Held, grant: Grant) -> bool {
        let permit = held.granted(grant);
        if !self.recorded(asked, permit.decision()).await {
            return false;
        }
        self.grant(asked);
        true
    }

    /// It does not run.
    fn over(&self, asked: &Asked, held: &Held, request: &str, why: &str) -> bool {
        tracing::info!(request, backend = asked.event.key.pid, "a held statement does not run: {why}");
        self.refused(asked, &held.refused(request));
        false
    }

    /// Leave to go without an approval, where a policy gives it and a reason is given.
    async fn through_the_glass(&self, held: &Held, asked: &Asked, request: &ApprovalRequest) -> Option<bool> {
        let glass = held.decision().break_glass.clone()?;
        asked.reason.as_ref()?;
        let workload = Arc::clone(&asked.session.client.workload);
        let requester = person(&workload);
        if !glass.group.is_empty() {
            let (groups, group) = (self.approvals.groups().clone(), glass.group.clone());
            // It may ask a name service.
            let is_in = tokio::task::spawn_blocking(move || belongs_here(&groups, &group, &workload)).await;
            if !is_in.unwrap_or(false) {
                return None;
            }
        }
        let request =
            ApprovalRequest { policy: glass.policy.clone(), reason: glass.reason.clone(), ..request.clone() };
        match self.approvals.break_glass(&request, &requester).await {
            Ok(broken) => Some(self.run(asked, held, Grant::BreakGlass(broken)).await),
            Err(error) => {
                tracing::error!("a break-glass is not on record, so it does not count: {error}");
                None
            }
        }
    }

    fn request(&self, asked: &Asked, held: &Held) -> ApprovalRequest {
        let Asked { session, now, statement, .. } = asked;
        let decision = held.decision();
        let mut effects = Vec::new();
        for effect in now.search_path.resolve(statement).iter().map(effect_record) {
            if effects.len() < MAX_EFFECTS && !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        let text = statement.text.as_str();
        ApprovalRequest {
            needs: decision.needs.clone(),
            server: session.server.name.clone(),
            environment: session.server.environment.clone(),
            database: now.target.database_name().to_owned(),
            db_user: now.db_user.clone(),
            application_name: now.application_name.clone(),
            connection_id: session.client.connection_id.clone(),
            workload: Some((*session.client.workload).clone()),
            text: text[..text.floor_char_boundary(MAX_TEXT)].to_owned(),
            fingerprint: statement.fingerprint.clone(),
            effects,
            parts: statement.parts,
            parse: statement.parse.as_str().to_owned(),
            protocol: "held in the server".to_owned(),
            binding: binding(asked, is_retried(held)).map(Binding::to_vec).unwrap_or_default(),
            policy: decision.policy.clone(),
            reason: decision.reason.clone(),
            policy_hash: decision.policy_hash.clone(),
            subject: decision.subject.clone(),
            justification: asked.reason.clone().unwrap_or_default(),
            ..ApprovalRequest::default()
        }
    }
}

fn is_retried(held: &Held) -> bool {
    held.decision().needs.as_ref().is_some_and(|needs| needs.wait == Wait::Retry.as_str())
}

/// What an approval holds for beyond this one stop, where the same is sent again. Values of parameters are not known
/// here: with them, nobody could tell that it is the same.
fn binding(asked: &Asked, retried: bool) -> Option<Binding> {
    let text = asked.text.as_deref()?;
    let parameters = text.windows(2).any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit());
    if retried && parameters {
        return None;
    }
    let exact = Exact::new(text, b"");
    Bound { session: &asked.now, modes: asked.modes, exacts: &[&exact] }.binding()
}

/// Why nobody waits for the statement any more: its backend was told to cancel it or to end, or has ended.
fn nobody_waits(asked: &Asked) -> Option<&'static str> {
    let event = &asked.event;
    if Process::open(event.key.pid, event.stop.start_ns).is_err() {
        return Some("its session has ended");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", event.key.pid)).ok()?;
    let pending = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .filter_map(|set| u64::from_str_radix(set.trim(), 16).ok());
    (pending.fold(0, |all, set| all | set) & ENDING != 0)
        .then_some("it was cancelled, or its session is to end")
}
