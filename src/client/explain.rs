//! What a failed handshake means for whoever has to mend it, in place of what the library says.

/// What is known of each failure: words of the library, and what they mean.
const MEANINGS: [(&str, &str); 17] = [
    ("certificate expired", "its certificate has expired"),
    (
        "certificate not valid yet",
        "its certificate is not valid yet (is a clock wrong?)",
    ),
    (
        "certificate not valid for name",
        "its certificate is for another name than the one it is reached by; --tls-server-name names the one in it",
    ),
    (
        "UnknownIssuer",
        "its certificate comes from another authority than the one that is trusted",
    ),
    (
        "BadSignature",
        "its certificate was not made by the authority it names",
    ),
    (
        "CaUsedAsEndEntity",
        "it shows an authority in place of a certificate of its own",
    ),
    (
        "InvalidPurpose",
        "its certificate is not meant for this end of a connection",
    ),
    ("Revoked", "its certificate was revoked"),
    (
        "peer sent no certificates",
        "it has shown no certificate, and one is demanded (--tls-cert and --tls-key)",
    ),
    (
        "CertificateRequired",
        "the other side demands a certificate (--tls-cert and --tls-key)",
    ),
    (
        "CertificateExpired",
        "the other side says that this certificate has expired",
    ),
    (
        "UnknownCA",
        "the other side does not trust the authority of this certificate",
    ),
    (
        "BadCertificate",
        "the other side does not take this certificate",
    ),
    (
        "CertificateUnknown",
        "the other side does not take this certificate",
    ),
    (
        "DecryptError",
        "the other side does not take this certificate",
    ),
    ("InvalidContentType", "it speaks plain text, not TLS"),
    (
        "ProtocolVersion",
        "the other side speaks no version of TLS that this one does (1.3)",
    ),
];

/// What an error text of TLS means; the text itself where that is not known.
#[must_use]
pub fn explain(text: &str) -> &str {
    let known = MEANINGS.iter().find(|(words, _)| text.contains(words));
    known.map_or(text, |(_, meaning)| meaning)
}
