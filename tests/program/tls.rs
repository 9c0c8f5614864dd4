//! `--tls`.

use crate::scratch::Scratch;
use crate::support::{Running, curl, output};

#[test]
fn a_certificate_is_made_for_this_machine_and_its_fingerprint_is_told() {
    needs!("openssl", "curl");
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let mut running = Running::start(&["--tls", "self-signed"], &folder);
    assert!(running.url.starts_with("https://127.0.0.1:"), "{}", running.url);
    let line = running.line();
    let told = line.strip_prefix("SHA-256 of the certificate: ").expect(&line);
    let script = format!(
        "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509",
        running.address()
    );
    let mut shell = std::process::Command::new("sh");
    folder.write("seen.pem", output(shell.args(["-c", &script])));
    let seen = folder.join("seen.pem");
    let about = |question: &[&str]| {
        let mut openssl = crate::outside("openssl");
        output(openssl.args(["x509", "-noout", "-in", &seen]).args(question))
    };
    let fingerprint = about(&["-fingerprint", "-sha256"]);
    assert_eq!(fingerprint.trim().rsplit('=').next(), Some(told));
    // With the certificate as its own authority, the address is found to be its own.
    let url = format!("{}a.txt", running.url);
    assert_eq!(curl(&["--cacert", &seen, &url]), "hello");
    let by_name = format!("localhost:{}:127.0.0.1", running.port());
    let url = format!("https://localhost:{}/a.txt", running.port());
    assert_eq!(curl(&["--cacert", &seen, "--resolve", &by_name, &url]), "hello");
    // Another start makes another one.
    let mut other = Running::start(&["--tls=self-signed"], &folder);
    assert_ne!(other.line(), line);
}
