//! Certificates made for a test, and what is refused of them.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::*;

/// An authority of a test, and the directory of what it has signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: TempDir,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Two authorities of one name would be taken for each other until a signature is looked at.
    fn next_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, Self::next_name());
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Its own certificate, in a file.
    pub(crate) fn file(&self) -> PathBuf {
        let file = self.dir.path().join("ca.pem");
        fs::write(&file, &self.pem).unwrap();
        file
    }

    pub(crate) fn sign(&self, name: &str, alternatives: &[&str]) -> Pair {
        self.sign_with(name, alternatives, |_| ())
    }

    /// Signs a certificate for `name`, with names of hosts.
    pub(crate) fn sign_with(
        &self,
        name: &str,
        alternatives: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let hosts: Vec<String> = alternatives.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let own = KeyPair::generate().unwrap();
        let signed = params.signed_by(&own, &self.issuer).unwrap();
        let pair = Pair {
            cert: self.dir.path().join(format!("{name}.pem")),
            key: self.dir.path().join(format!("{name}.key")),
        };
        fs::write(&pair.cert, signed.pem()).unwrap();
        fs::write(&pair.key, own.serialize_pem()).unwrap();
        pair
    }
}

/// The files of a server with this pair.
pub(crate) fn files(pair: &Pair) -> TlsFiles {
    TlsFiles {
        cert: Some(pair.cert.clone()),
        key: Some(pair.key.clone()),
        ..TlsFiles::default()
    }
}

#[track_caller]
fn refusal(files: &TlsFiles) -> String {
    Tls::load(files).expect_err("it is refused")
}

#[test]
fn a_subject_has_its_common_name_its_other_names_and_its_dates() {
    let authority = Authority::new();
    let pair = authority.sign_with("alice", &["a.example", "127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2120, 1, 2);
    });
    let (chain, _) = read_chain(&pair.cert, &pair.key).unwrap();
    let subject = Subject::of(&chain[0]).unwrap();
    let names: Vec<&str> = subject.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["a.example", "alice"]);
    let day = 24 * 3600;
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(18_263 * day);
    assert_eq!(subject.not_before, begin, "2020-01-02");
    assert!(subject.not_after > begin + Duration::from_secs(36_500 * day));
    for cut in 0..chain[0].len() {
        let part = CertificateDer::from(chain[0][..cut].to_vec());
        assert!(Subject::of(&part).is_err(), "{cut}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_setting_or_the_file() {
    let authority = Authority::new();
    let good = authority.sign("good", &["localhost"]);
    let other = authority.sign("other", &["localhost"]);
    let expired = authority.sign_with("expired", &["localhost"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    });
    let future = authority.sign_with("future", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2100, 1, 1);
    });
    let mixed = Pair {
        cert: good.cert.clone(),
        key: other.key.clone(),
    };
    let swapped = Pair {
        cert: good.key.clone(),
        key: good.cert.clone(),
    };
    let missing = Pair {
        cert: "/no/such.pem".into(),
        key: good.key.clone(),
    };
    for (pair, words) in [
        (&expired, "expired.pem: the certificate has expired"),
        (&future, "future.pem: the certificate is not valid yet"),
        (&mixed, "other.key does not belong to the certificate of"),
        (&swapped, "good.key has no certificate"),
        (&missing, "cannot read /no/such.pem"),
    ] {
        let refusal = refusal(&files(pair));
        assert!(refusal.contains(words), "{refusal}");
        assert!(!refusal.contains('\n'), "{refusal}");
    }
    let cert_alone = TlsFiles {
        cert: Some(good.cert.clone()),
        ..TlsFiles::default()
    };
    assert_eq!(refusal(&cert_alone), "--tls-cert needs --tls-key");
    let authorities_alone = TlsFiles {
        peer_ca: Some(authority.file()),
        ..TlsFiles::default()
    };
    assert!(refusal(&authorities_alone).starts_with("--tls-peer-ca needs"));
    let no_authority = TlsFiles {
        client_ca: Some(good.key.clone()),
        ..files(&good)
    };
    assert!(refusal(&no_authority).contains("good.key has no certificate"));
    assert!(Tls::load(&TlsFiles::default()).unwrap().is_none());
}

#[test]
fn new_files_are_taken_bad_ones_are_refused_once_and_the_old_stay() {
    let authority = Authority::new();
    let pair = authority.sign("server", &["localhost"]);
    let tls = Tls::load(&files(&pair)).unwrap().unwrap();
    assert_eq!(tls.look(), Ok(None));
    let first = tls.now();

    fs::write(&pair.cert, "no certificate, and longer than nothing").unwrap();
    let why = tls.look().unwrap_err();
    assert!(
        why.contains("stay as they were") && why.contains("server.pem"),
        "{why}"
    );
    assert!(Arc::ptr_eq(&first, &tls.now()));
    assert_eq!(tls.look(), Ok(None), "said once");
    assert!(tls.reload().is_err(), "whoever asks is told again");

    authority.sign("server", &["localhost", "another.example"]);
    assert_eq!(tls.look(), Ok(Some("certificates")));
    assert!(!Arc::ptr_eq(&first, &tls.now()));
}

#[test]
fn stores_and_clients_are_told_apart_by_their_authorities() {
    let (clients, stores) = (Authority::new(), Authority::new());
    let store = stores.sign("store", &["localhost"]);
    let alice = clients.sign("alice", &[]);
    let files = TlsFiles {
        client_ca: Some(clients.file()),
        peer_ca: Some(stores.file()),
        ..files(&store)
    };
    let loaded = read(&Files {
        cert: store.cert.clone(),
        key: store.key.clone(),
        client_ca: files.client_ca,
        peer_ca: files.peer_ca,
    })
    .unwrap();
    let chain = |pair: &Pair| read_chain(&pair.cert, &pair.key).unwrap().0;
    assert!(is_peer(&loaded, &chain(&store)));
    assert!(!is_peer(&loaded, &chain(&alice)));
    assert!(!is_peer(&loaded, &[]));
}
