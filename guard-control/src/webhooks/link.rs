//! Links to one request in messages. Signed, so that a message cannot be changed to lead to another request; whoever
//! follows one still signs in and decides here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use crate::people::secret;

fn signature(key: &[u8], agent_id: &str, request_id: &str) -> String {
    let message = format!("guard approval link\n{agent_id}\n{request_id}");
    URL_SAFE_NO_PAD.encode(&secret::sign(key, message.as_bytes())[..16])
}

/// The address of a request's page.
pub fn link(key: &[u8], base: &Url, agent_id: &str, request_id: &str) -> String {
    let mut link = base.clone();
    if let Ok(mut path) = link.path_segments_mut() {
        path.clear().extend(["approvals", agent_id, request_id]);
    }
    link.query_pairs_mut().append_pair("sig", &signature(key, agent_id, request_id));
    link.into()
}

/// Whether a link was made here.
pub fn is_signed(key: &[u8], agent_id: &str, request_id: &str, sig: &str) -> bool {
    secret::same(signature(key, agent_id, request_id).as_bytes(), sig.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_own_request_alone() {
        let base = Url::parse("https://guard.example.org").unwrap();
        let link = link(b"key", &base, "agent", "k3m9/x2pa");
        assert!(link.starts_with("https://guard.example.org/approvals/agent/k3m9%2Fx2pa?sig="), "{link}");
        let sig = link.split("sig=").nth(1).unwrap();
        assert!(is_signed(b"key", "agent", "k3m9/x2pa", sig));
        assert!(!is_signed(b"key", "agent", "other", sig) && !is_signed(b"yek", "agent", "k3m9/x2pa", sig));
        assert!(!is_signed(b"key", "agen", "t\nk3m9/x2pa", sig));
    }
}
