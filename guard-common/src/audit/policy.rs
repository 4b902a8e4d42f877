//! What the signature of a control plane over policies covers.

/// Keeps these signatures apart from every other use of the key.
const DOMAIN: &[u8] = b"guard.policy.v1\0";

/// What is signed: domain, and the encoded `PolicyBundle`.
pub fn message(bundle: &[u8]) -> Vec<u8> {
    [DOMAIN, bundle].concat()
}
