//! Certificates made for a test, in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority and what it signs, in the files of a directory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    name: &'static str,
}

impl Authority {
    pub(crate) fn new(dir: &Path, name: &'static str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        let issuer = Issuer::new(params, key);
        let dir = dir.to_path_buf();
        Self { issuer, dir, name }
    }

    pub(crate) fn file(&self) -> String {
        self.dir
            .join(format!("{}.pem", self.name))
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The files of a new certificate and its key.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) -> [String; 2] {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.dir.join(format!("{name}.{end}"));
        fs::write(file("pem"), signed.pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        ["pem", "key"].map(|end| file(end).to_str().unwrap().to_owned())
    }
}
