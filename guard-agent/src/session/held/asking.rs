//! Asking people about a statement: what it is enters, a request leaves, and its client is told.

use std::sync::Arc;

use guard_common::{
    api::agent::ApprovalRequest,
    audit::v1::{self as record, Decision},
};
use guard_policy::Wait;

use super::{Asked, FLUSH, MAX_HELD, Message, Waiting, words};
use crate::{
    approval::{Answer, Ask, Binding, Bound, Exact, belongs_here, person},
    audit::effect_record,
    decide::{Grant, Held},
    session::{frontend::Progress, relay::Relay},
    wire::postgres::{TransactionStatus, query},
};

/// Longest text of a request in bytes; the record has it whole.
const MAX_TEXT: usize = 32 * 1024;

/// Most effects that a request lists.
const MAX_EFFECTS: usize = 200;

impl Relay<'_> {
    /// Lets a statement wait, or refuses it until it is approved, or lets it run because it was.
    pub(super) async fn hold(&mut self, asked: Asked, held: Held, number: usize) -> Progress {
        let decision = Arc::clone(held.decision());
        if self.body(asked.header).is_none() {
            if asked.header.total() <= MAX_HELD {
                // Who approves it approves all of it.
                return Progress::Waits;
            }
            self.record_held(&asked, &decision, "").await;
            self.refuse_asked(&asked, words::too_long(&decision));
            return Progress::Went;
        }
        let exacts = self.exacts(&asked);
        let binding = self.binding_of(&exacts);
        let request = self.request(&asked, &decision, binding, &exacts);
        if let Some(permitted) = self.through_the_glass(&held, number, &request).await {
            self.run_asked(asked, permitted).await;
            return Progress::Went;
        }
        let retry = decision.needs.as_ref().is_some_and(|needs| needs.wait == Wait::Retry.as_str());
        if retry && binding.is_none() {
            self.record_held(&asked, &decision, "").await;
            self.refuse_asked(&asked, words::cannot_retry(&decision));
            return Progress::Went;
        }
        let ask = Ask { request, exacts, cancel: self.holding.cancel };
        match self.proxy.approvals.ask(ask).await {
            Ok(Answer::Run(claim)) => {
                let permit = held.granted(Grant::Approved(claim));
                self.run_asked(asked, (permit, number)).await;
            }
            Ok(Answer::Retry(request)) => {
                self.record_held(&asked, &decision, &request.id).await;
                self.refuse_asked(&asked, words::retry(&decision, &request));
            }
            Ok(Answer::Wait(hold)) => {
                if asked.is_extended() {
                    self.pipe.requests.insert(&FLUSH);
                }
                let minutes = self.minutes(&decision);
                let shown = ApprovalRequest { id: hold.id().to_owned(), ..ApprovalRequest::default() };
                self.tell(&words::waits(&decision, &shown, minutes));
                self.estimate(&asked, hold.id());
                let waiting = Waiting { hold, asked, decision, binding };
                self.holding.waiting = Some(Box::new(waiting));
                return Progress::Waits;
            }
            Err(problem) => {
                self.record_held(&asked, &decision, "").await;
                self.refuse_asked(&asked, words::nobody_asked(&decision, &problem));
            }
        }
        Progress::Went
    }

    fn minutes(&self, decision: &Decision) -> u64 {
        let seconds = decision.needs.as_ref().map_or(0, |needs| u64::from(needs.within_seconds));
        self.proxy.approvals.seconds(seconds).div_ceil(60)
    }

    /// Leave to go without an approval, where a policy gives it and a reason is given.
    async fn through_the_glass(
        &mut self,
        held: &Held,
        number: usize,
        request: &ApprovalRequest,
    ) -> Option<(crate::decide::Permit, usize)> {
        let glass = held.decision().break_glass.clone()?;
        // A program that writes a reason is not a person who answers for it.
        let by_agent = !self.holding.workload.ai_agent.is_empty();
        if request.justification.is_empty() || (by_agent && !glass.group.is_empty()) {
            return None;
        }
        let requester = person(&self.holding.workload);
        if !glass.group.is_empty() {
            let groups = self.proxy.approvals.groups().clone();
            let (group, requester) = (glass.group.clone(), Arc::clone(&self.holding.workload));
            // It may ask a name service.
            let is_in = tokio::task::spawn_blocking(move || belongs_here(&groups, &group, &requester)).await;
            if !is_in.unwrap_or(false) {
                return None;
            }
        }
        let request =
            ApprovalRequest { policy: glass.policy.clone(), reason: glass.reason.clone(), ..request.clone() };
        match self.proxy.approvals.break_glass(&request, &requester).await {
            Ok(broken) => {
                self.tell(&words::glass(held.decision()));
                Some((held.granted(Grant::BreakGlass(broken)), number))
            }
            Err(error) => {
                tracing::error!("a break-glass is not on record, so it does not count: {error}");
                None
            }
        }
    }

    /// All that is known of what is asked, letter by letter; nothing where any of it is not known.
    fn exacts(&self, asked: &Asked) -> Vec<Arc<Exact>> {
        let body = || self.body(asked.header);
        let (own, others) = match asked.message {
            Message::Query => (body().and_then(|body| query(body).ok()).map(|text| Exact::new(text, b"")), 1),
            Message::FunctionCall => (body().map(Exact::call), 1),
            Message::Execute { .. } => (None, 0),
        };
        let prepared = asked.statements.iter().skip(others).map(|one| self.holding.exacts.of(one).cloned());
        let own = (others == 1).then(|| own.map(Arc::new));
        own.into_iter().chain(prepared).collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    pub(super) fn binding(&self, asked: &Asked) -> Option<Binding> {
        self.binding_of(&self.exacts(asked))
    }

    fn binding_of(&self, exacts: &[Arc<Exact>]) -> Option<Binding> {
        let exacts: Vec<&Exact> = exacts.iter().map(|exact| &**exact).collect();
        Bound { session: &self.session, modes: self.modes, exacts: &exacts }.binding()
    }

    fn request(
        &self,
        asked: &Asked,
        decision: &Decision,
        binding: Option<Binding>,
        exacts: &[Arc<Exact>],
    ) -> ApprovalRequest {
        let server = self.proxy.server.get();
        let texts: Vec<&str> = asked.statements.iter().map(|statement| statement.text.as_str()).collect();
        let text = texts.join("\n-- or, prepared before: ");
        let effects = asked.statements.iter().flat_map(|statement| {
            let resolved = self.session.search_path.resolve(statement);
            resolved.iter().map(effect_record).collect::<Vec<_>>()
        });
        let mut listed: Vec<record::Effect> = Vec::new();
        for effect in effects {
            if listed.len() < MAX_EFFECTS && !listed.contains(&effect) {
                listed.push(effect);
            }
        }
        let first = asked.statements.first();
        ApprovalRequest {
            needs: decision.needs.clone(),
            server: server.name.clone(),
            environment: server.environment.clone(),
            database: self.session.target.database_name().to_owned(),
            db_user: self.session.db_user.clone(),
            application_name: self.session.application_name.clone(),
            connection_id: self.holding.connection_id.clone(),
            workload: Some((*self.holding.workload).clone()),
            text: text[..text.floor_char_boundary(MAX_TEXT)].to_owned(),
            fingerprint: first.map(|statement| statement.fingerprint.clone()).unwrap_or_default(),
            effects: listed,
            parts: asked.statements.iter().map(|statement| statement.parts).max().unwrap_or(0),
            parse: first.map(|statement| statement.parse.as_str().to_owned()).unwrap_or_default(),
            protocol: match asked.message {
                Message::Query => "simple",
                Message::Execute { .. } => "extended",
                Message::FunctionCall => "function call",
            }
            .to_owned(),
            binding: binding.map(Binding::to_vec).unwrap_or_default(),
            policy: decision.policy.clone(),
            reason: decision.reason.clone(),
            policy_hash: decision.policy_hash.clone(),
            subject: decision.subject.clone(),
            justification: self.reason(asked).unwrap_or_default(),
            in_transaction: self.transaction != TransactionStatus::Idle,
            parameters: exacts
                .first()
                .map_or(0, |exact| u32::try_from(exact.parameter_count()).unwrap_or(u32::MAX)),
            ..ApprovalRequest::default()
        }
    }
}
