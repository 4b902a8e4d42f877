//! The audit record of what happens to a request.

use guard_common::{
    api::agent::ApprovalRequest,
    audit::v1::{Approval, Person, approval::Event, record::Body},
};

/// The record of `event`; by whom, and what they said.
pub(super) fn body(request: &ApprovalRequest, event: Event, person: Option<(&Person, &str)>) -> Body {
    use guard_common::api::agent::approval_request::State;
    let note = person.map_or(request.note.as_str(), |(_, note)| note);
    let workload = request.workload.as_ref().map(guard_common::audit::v1::Workload::label);
    Body::Approval(Approval {
        request_id: request.id.clone(),
        event: event.into(),
        connection_id: request.connection_id.clone(),
        server: request.server.clone(),
        database: request.database.clone(),
        db_user: request.db_user.clone(),
        workload: workload.unwrap_or_default(),
        text: request.text.clone(),
        fingerprint: request.fingerprint.clone(),
        effects: request.effects.clone(),
        needs: request.needs.clone(),
        policy: request.policy.clone(),
        reason: request.reason.clone(),
        policy_hash: request.policy_hash.clone(),
        binding: hex::encode(&request.binding),
        justification: request.justification.clone(),
        person: person.map(|(person, _)| person.clone()),
        note: note.to_owned(),
        expires: request.expires,
        complete: event == Event::Approved && request.state() == State::Approved,
    })
}
