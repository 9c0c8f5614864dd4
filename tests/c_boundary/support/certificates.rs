//! An authority of the tests' own, and certificates that it has issued, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::toolchain::work_dir;

/// The files of the authority: made once, and anew in each run.
pub struct Authority {
    folder: PathBuf,
}

/// Kinds of keys, as `openssl req` wants them.
const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["-newkey", "rsa:2048"];
const ED25519: &[&str] = &["-newkey", "ed25519"];

impl Authority {
    #[track_caller]
    pub fn get() -> &'static Authority {
        super::needs::assert_named("openssl");
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| {
            let folder = work_dir().join("certificates");
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).expect("folder for certificates");
            let authority = Authority { folder };
            let place = |name: &str| authority.file(name);
            let mut request = openssl(&["req", "-x509", "-nodes", "-days", "30"]);
            request.args(EC).args(["-subj", "/CN=Test Authority"]);
            run(request.args(["-keyout", &place("ca.key"), "-out", &place("ca.pem")]));
            for (name, kind) in [("ec", EC), ("rsa", RSA), ("ed25519", ED25519), ("other", EC)] {
                authority.issue(name, kind);
            }
            authority.issue_to_clients();
            authority
        })
    }

    /// The authority's own certificate.
    pub fn trusted(&self) -> String {
        self.file("ca.pem")
    }

    /// A file with key and chain: `ec`, `rsa`, `ed25519`, or `other`, which is another `ec`.
    pub fn identity(&self, name: &str) -> String {
        self.file(&format!("{name}.pem"))
    }

    /// What is in a file of the authority's.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("a file of certificates")
    }

    /// Certificates of clients. Each has key and chain in `NAME.pem`: `joe`, `rsa-client`, `expired`,
    /// `server-only`, which is not for clients, `below`, which another certificate stands between,
    /// and `foreign`, of another authority (`foreign-ca.pem`).
    fn issue_to_clients(&self) {
        let mut request = openssl(&["req", "-x509", "-nodes", "-days", "30"]);
        request.args(EC).args(["-subj", "/CN=Foreign Authority"]);
        let [key, certificate] = ["foreign-ca.key", "foreign-ca.pem"].map(|name| self.file(name));
        run(request.args(["-keyout", &key, "-out", &certificate]));
        let is_ca = "basicConstraints=critical,CA:TRUE";
        self.issue_to("middle", EC, "/CN=Middle", "ca", &["-addext", is_ca]);
        let purpose = |purpose: &str| format!("extendedKeyUsage={purpose}");
        let client = purpose("clientAuth");
        let client = ["-addext", client.as_str()];
        self.issue_to("joe", EC, "/C=AT/O=a, b/CN=joe", "ca", &client);
        self.issue_to("rsa-client", RSA, "/CN=rsa", "ca", &[]);
        let expired = self.signed_anew("joe", |body| {
            // UTCTime, 13 characters long, twice: from when, until when.
            let times: Vec<usize> = memchr::memmem::find_iter(body, b"\x17\x0d").collect();
            for at in times {
                body[at + 2..at + 4].copy_from_slice(b"01");
            }
        });
        let text = [self.read("joe.key"), pem(&expired)].concat();
        std::fs::write(self.file("expired.pem"), text).expect("a file of certificates");
        self.issue_to("server-only", EC, "/CN=x", "ca", &["-addext", &purpose("serverAuth")]);
        self.issue_to("foreign", EC, "/CN=foreign", "foreign-ca", &client);
        self.issue_to("below", EC, "/CN=below", "middle", &client);
    }

    fn issue_to(&self, name: &str, kind: &[&str], subject: &str, by: &str, more: &[&str]) {
        let [key, certificate] = [".key", ".crt"].map(|end| self.file(&format!("{name}{end}")));
        let mut request = openssl(&["req", "-x509", "-nodes"]);
        request.args(kind).args(["-subj", subject]);
        let issuer = if by == "middle" { "middle.crt" } else { &format!("{by}.pem") };
        request.args(["-CA", &self.file(issuer), "-CAkey", &self.file(&format!("{by}.key"))]);
        if !more.iter().any(|option| option.starts_with("basicConstraints")) {
            request.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        }
        run(request.args(more).args(["-keyout", &key, "-out", &certificate]));
        let chain = if by == "middle" { self.read("middle.crt") } else { String::new() };
        let parts = [format!("{name}.key"), format!("{name}.crt")].map(|part| self.read(&part));
        let text = [parts.concat(), chain].concat();
        std::fs::write(self.file(&format!("{name}.pem")), text).expect("a file of certificates");
    }

    /// A certificate for these names, in a file with its key; the name of the file.
    pub fn issue_for(&self, name: &str, hosts: &[&str]) -> String {
        let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        self.issue_to(name, EC, &format!("/CN={name}"), "ca", &["-addext", &names]);
        self.identity(name)
    }

    /// A certificate of the authority's that is changed, and signed again; in DER.
    pub fn signed_anew(&self, name: &str, change: impl Fn(&mut [u8])) -> Vec<u8> {
        use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
        let text = self.read(&format!("{name}.crt"));
        let der = CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate").to_vec();
        // SEQUENCE { SEQUENCE { .. }, .. }, both longer than 255 bytes.
        let len = 4 + usize::from(u16::from_be_bytes([der[6], der[7]]));
        let mut body = der[4..4 + len].to_vec();
        change(&mut body);
        let key = self.read("ca.key");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let random = ring::rand::SystemRandom::new();
        let signer = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(signer, key.secret_der(), &random).expect("a key");
        let signature = key.sign(&random, &body).expect("a signature");
        const ECDSA_WITH_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let signature = [&[0], signature.as_ref()].concat();
        // A BIT STRING, shorter than 128 bytes.
        let signature = [&[3, signature.len() as u8][..], &signature].concat();
        let content = [&body, ECDSA_WITH_SHA256, &signature[..]].concat();
        let len = (content.len() as u16).to_be_bytes();
        [&[0x30, 0x82, len[0], len[1]][..], &content].concat()
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a path in ASCII").to_owned()
    }

    fn issue(&self, name: &str, kind: &[&str]) {
        let [key, certificate] = [".key", ".crt"].map(|end| self.file(&format!("{name}{end}")));
        let mut request = openssl(&["req", "-x509", "-nodes", "-days", "30"]);
        request.args(kind).args(["-subj", &format!("/CN={name}")]);
        request.args(["-CA", &self.trusted(), "-CAkey", &self.file("ca.key")]);
        request.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        request.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        run(request.args(["-keyout", &key, "-out", &certificate]));
        let parts = [format!("{name}.key"), format!("{name}.crt"), "ca.pem".to_owned()];
        let text: String = parts.iter().map(|part| self.read(part)).collect();
        std::fs::write(Path::new(&self.identity(name)), text).expect("a file of certificates");
    }
}

/// A certificate in DER as a section of PEM.
pub fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<&str> = lines.map(|line| str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn openssl(args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("openssl; a test that may lack it begins by `needs!`");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}
