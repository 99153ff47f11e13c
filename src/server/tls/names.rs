//! What a certificate says of its subject: names and dates.
//!
//! Promises: no panic, whatever the bytes. Whether the certificate is genuine is checked by rustls before anybody
//! asks who it speaks of.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
    time::Time,
};

/// Longest name that is taken, in bytes.
const MAX_NAME_LEN: usize = 256;

/// Whom a certificate speaks of, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its common name, and its alternative names that are DNS names, mail addresses or URIs.
    pub names: BTreeSet<String>,
    /// Valid from then on.
    pub not_before: SystemTime,
    /// Valid before then.
    pub not_after: SystemTime,
}

impl Subject {
    /// The subject of a certificate.
    ///
    /// # Errors
    ///
    /// It is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = Certificate::from_der(certificate);
        let parsed = parsed.map_err(|error| format!("it is no certificate: {error}"))?;
        let body = parsed.tbs_certificate();
        let mut names = BTreeSet::new();
        let mut note = |name: &str| {
            let is_plain = !name.is_empty() && !name.chars().any(char::is_control);
            if is_plain && name.len() <= MAX_NAME_LEN {
                names.insert(name.to_owned());
            }
        };
        if let Ok(Some(name)) = body.subject().common_name() {
            note(&name.value());
        }
        // One that does not parse names nobody.
        if let Ok(Some((_, alternatives))) = body.get_extension::<SubjectAltName>() {
            for alternative in &alternatives.0 {
                match alternative {
                    GeneralName::DnsName(name)
                    | GeneralName::Rfc822Name(name)
                    | GeneralName::UniformResourceIdentifier(name) => note(name.as_str()),
                    _ => {}
                }
            }
        }
        let validity = body.validity();
        let moment = |time: &Time| UNIX_EPOCH + time.to_unix_duration();
        Ok(Self {
            names,
            not_before: moment(&validity.not_before),
            not_after: moment(&validity.not_after),
        })
    }
}
