//! A client's certificate becomes a part of its identity: a verified certificate enters, subject and names leave.

use guard_common::audit::v1::ClientCertificate;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    der::{
        Decode,
        asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef},
        oid::AssociatedOid,
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
    name::Name,
};

/// Longest name that is kept, and most names of one kind.
const MAX_NAME: usize = 512;
const MAX_NAMES: usize = 64;

/// Object identifier of the common name (RFC 4519).
const COMMON_NAME: &str = "2.5.4.3";

/// What a certificate that rustls has verified says of its holder.
pub fn client_certificate(der: &CertificateDer<'_>) -> ClientCertificate {
    let mut found = ClientCertificate {
        fingerprint: hex::encode(Sha256::digest(der.as_ref())),
        ..ClientCertificate::default()
    };
    let Ok(certificate) = Certificate::from_der(der) else {
        // webpki has read it, this reader has not: it is known by its fingerprint alone.
        return found;
    };
    let certificate = certificate.tbs_certificate;
    found.subject = bounded(&certificate.subject.to_string());
    found.issuer = bounded(&certificate.issuer.to_string());
    found.common_name = common_name(&certificate.subject);
    let extensions = certificate.extensions.unwrap_or_default();
    let names = extensions.iter().find(|extension| extension.extn_id == SubjectAltName::OID);
    let names = names.and_then(|extension| SubjectAltName::from_der(extension.extn_value.as_bytes()).ok());
    for name in names.map(|names| names.0).unwrap_or_default().iter().take(MAX_NAMES) {
        match name {
            GeneralName::DnsName(name) => found.dns_names.push(bounded(name.as_str())),
            GeneralName::UniformResourceIdentifier(uri) => found.uris.push(bounded(uri.as_str())),
            GeneralName::Rfc822Name(address) => found.emails.push(bounded(address.as_str())),
            _ => {}
        }
    }
    // A certificate of SPIFFE has exactly one URI.
    if let [uri] = &found.uris[..]
        && uri.starts_with("spiffe://")
    {
        found.spiffe_id.clone_from(uri);
    }
    found
}

/// The last common name: the most specific one, which PostgreSQL takes as well.
fn common_name(subject: &Name) -> String {
    let attributes = subject.0.iter().flat_map(|set| set.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid.to_string() == COMMON_NAME);
    let value = names.next_back().map(|attribute| &attribute.value);
    let text = value.and_then(|value| {
        let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
            .or_else(|_| value.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned()))
            .ok()
    });
    // A NUL in a name has fooled others before: such a name is none.
    text.filter(|text| !text.contains('\0')).map(|text| bounded(&text)).unwrap_or_default()
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME)].to_owned()
}
