//! An authority of the tests' own, and certificates that it has issued, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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

    fn file(&self, name: &str) -> String {
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
