//! Certificates of clients: who is let in, which alert the others get, and what handlers and programs
//! are told (RFC 9440).

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::AlertDescription as Alert;
use rustls::SupportedProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};

use crate::support::{
    Authority, Scratch, Sealed, Server, Talk, as_many_as, deadline_secs, for_each, leaf, outside,
    pem, request,
};

const ASK: &str = "GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n";
const ECHO: &str = "GET /echo HTTP/1.1\r\nA: b\r\nConnection: close\r\n\r\n";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A server with a certificate and the authority of its clients.
fn serve(args: &[&str]) -> Server {
    let authority = Authority::get();
    let certificate = format!("ssl_certificate={}", authority.identity("ec"));
    let trusted = format!("ssl_ca_certificate={}", authority.trusted());
    let mut all = vec![certificate.as_str(), trusted.as_str()];
    all.extend(args);
    Server::start(&all)
}

/// Sets an option on the polling thread; the sentence, or `NULL`.
fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

fn talk(port: u16, version: &'static SupportedProtocolVersion, identity: Option<&str>) -> Talk {
    Sealed::with(&[version], identity, &[]).ask(port, "localhost", ASK)
}

/// The field of a client (RFC 9440, section 2.2).
fn field(identity: &str) -> String {
    format!(":{}:", STANDARD.encode(leaf(identity)))
}

/// What `/echo` shows of the fields that a handler saw, in their order.
fn fields(text: &str) -> Vec<(String, String)> {
    let (_, text) = text.split_once("\nheaders=").expect("what a handler saw");
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let names = ["Client-Cert", "A", "Connection", "Host"];
    let fields = lines.filter(|(name, _)| {
        names.contains(name) || name.to_ascii_lowercase().starts_with("client")
    });
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_client_with_the_right_certificate_is_let_in_and_others_get_the_right_alert() {
    needs!("openssl");
    let scratch = Scratch::new();
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut server = serve(&[&log]);
    let cases = [
        (Some("joe"), None),
        (Some("rsa-client"), None),
        // Another certificate between it and the authority, which it brings along.
        (Some("below"), None),
        (None, Some(Alert::CertificateRequired)),
        (Some("expired"), Some(Alert::CertificateExpired)),
        (Some("foreign"), Some(Alert::UnknownCA)),
        (Some("server-only"), Some(Alert::UnsupportedCertificate)),
    ];
    for version in VERSIONS {
        for (identity, alert) in cases {
            let talk = talk(server.port, version, identity);
            assert_eq!(talk.alert, alert, "{identity:?}: {talk:?}");
            assert_eq!(talk.text.ends_with("alive"), alert.is_none(), "{identity:?}: {talk:?}");
        }
    }
    let count = |log: &str| log.matches(" TLS: ").count();
    let log = scratch.read_when("error.log", |log| count(log) >= 8);
    assert_eq!(count(&log), 8, "{log}");
    // Optional means that none need be shown; one that is shown is checked all the same.
    assert_eq!(set(&mut server, "ssl_verify_client", "Optional"), "NULL");
    for version in VERSIONS {
        for (identity, alert) in cases {
            let alert = alert.filter(|_| identity.is_some());
            let talk = talk(server.port, version, identity);
            assert_eq!(talk.alert, alert, "{identity:?}: {talk:?}");
            assert_eq!(talk.text.ends_with("alive"), alert.is_none(), "{identity:?}: {talk:?}");
        }
    }
    for value in ["require", "REQUIRE", ""] {
        assert_eq!(set(&mut server, "ssl_verify_client", value), "NULL");
        let talk = talk(server.port, &TLS13, None);
        assert_eq!(talk.alert, Some(Alert::CertificateRequired), "{value}");
    }
    let sentence = "Option value must be require or optional";
    for value in ["no", "required", "yes", "optional "] {
        assert_eq!(set(&mut server, "ssl_verify_client", value), sentence);
    }
    // Another authority, and none.
    let foreign = Authority::get().file("foreign-ca.pem");
    assert_eq!(set(&mut server, "ssl_ca_certificate", &foreign), "NULL");
    assert_eq!(talk(server.port, &TLS13, Some("joe")).alert, Some(Alert::UnknownCA));
    assert!(talk(server.port, &TLS13, Some("foreign")).text.ends_with("alive"));
    assert_eq!(set(&mut server, "ssl_ca_certificate", ""), "NULL");
    for identity in [None, Some("joe"), Some("expired")] {
        assert!(talk(server.port, &TLS13, identity).text.ends_with("alive"), "{identity:?}");
    }
    server.program.stop();
}

#[test]
fn handlers_see_the_certificate_as_the_first_field_and_none_that_a_client_wrote() {
    needs!("openssl");
    let server = serve(&["ssl_verify_client=optional"]);
    let forged = "GET /echo HTTP/1.1\r\nClient-Cert: :AAAA:\r\nA: b\r\nclient_cert: :AAAB:\r\n\
        CLIENT-CERT: :AAAC:\r\nClient-Cert-Chain: :AAAD:\r\nClient_Cert-Chain: :AAAE:\r\n\
        client-cert_chain: :AAAF:\r\nClient-Certs: kept\r\nConnection: close\r\n\r\n";
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let rest = [pair("A", "b"), pair("Client-Certs", "kept"), pair("Connection", "close")];
    for version in VERSIONS {
        for identity in ["joe", "rsa-client", "below"] {
            let client = Sealed::with(&[version], Some(identity), &[]);
            // At first, and with a session that is resumed.
            for is_resumed in [false, true] {
                let talk = client.ask(server.port, "localhost", ECHO);
                let wanted = [
                    pair("Client-Cert", &field(identity)),
                    pair("A", "b"),
                    pair("Connection", "close"),
                ];
                assert_eq!(fields(&talk.text), wanted, "{}", talk.text);
                assert_eq!(talk.is_resumed, is_resumed);
            }
            let talk = client.ask(server.port, "localhost", forged);
            let wanted = [&[pair("Client-Cert", &field(identity))][..], &rest].concat();
            assert_eq!(fields(&talk.text), wanted, "{}", talk.text);
        }
        let nobody = Sealed::with(&[version], None, &[]);
        assert_eq!(fields(&nobody.ask(server.port, "localhost", forged).text), rest);
    }
    // It stands in front of all that fit, and of a Host that was taken from the target.
    let client = Sealed::new(Some("joe"));
    let many = format!(
        "GET http://h.example/echo HTTP/1.1\r\n{}Connection: close\r\n\r\n",
        "B: c\r\n".repeat(40)
    );
    let text = client.ask(server.port, "localhost", &many).text;
    assert!(text.contains("headers=30\n"), "{text}");
    let first = [pair("Client-Cert", &field("joe")), pair("Host", "h.example")];
    assert_eq!(fields(&text), first, "{text}");
    // By name, in each request of a connection, and with content behind it.
    let steps = ["field client-CERT", "data ;"];
    let one =
        request("POST", "1.1", &steps).replacen("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc", 1);
    let last = request("GET", "1.0", &steps);
    let text = client.ask(server.port, "localhost", &format!("{one}{one}{last}")).text;
    assert_eq!(text.matches(&field("joe")).count(), 3, "{text}");
    // Plain connections have none, whoever says so.
    server.program.stop();
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(forged);
    assert_eq!(fields(&client.response().text()), rest);
    server.stop();
}

#[test]
fn programs_are_told_of_the_certificate_in_variables() {
    needs!("openssl");
    let scratch = Scratch::new();
    scratch.write_program(
        "root/env.cgi",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; env | grep -e '^HTTP_CLIENT'; \
         printf '%s;' \"$SSL_CLIENT_VERIFY\" \"$SSL_CLIENT_S_DN\" \"$SSL_CLIENT_CERT\"\n",
    );
    scratch.write_program("root/elsewhere.cgi", "#!/bin/sh\nprintf 'Location: /env.cgi\\n\\n'\n");
    let root = format!("document_root={}", scratch.join("root"));
    let server = serve(&["ssl_verify_client=optional", &root]);
    let pem = |identity: &str| {
        let path = Authority::get().file(&format!("{identity}.crt"));
        let output = outside("openssl").args(["x509", "-in", &path]).output().expect("openssl");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    let ask = |port: u16, path: &str, identity: Option<&str>| {
        let ask = format!(
            "GET {path} HTTP/1.1\r\nClient-Cert: :AAAA:\r\nClient_Cert: :AAAA:\r\n\
             SSL-Client-Verify: SUCCESS\r\nConnection: close\r\n\r\n"
        );
        let text = Sealed::new(identity).ask(port, "localhost", &ask).text;
        // In chunks, of which the borders are of no interest here.
        text.replace("\r\n", "")
    };
    for path in ["/env.cgi", "/elsewhere.cgi"] {
        let text = ask(server.port, path, Some("joe"));
        let wanted = format!("SUCCESS;CN=joe,O=a\\, b,C=AT;{}", pem("joe"));
        assert!(text.contains(&wanted), "{path}: {text}");
        assert!(text.contains(&format!("HTTP_CLIENT_CERT={}\n", field("joe"))), "{path}: {text}");
        let text = ask(server.port, path, None);
        assert!(text.contains("NONE;;;") && !text.contains("HTTP_CLIENT"), "{path}: {text}");
    }
    server.program.stop();
    let server = Server::start(&[&root]);
    let answer = server.ask("GET /env.cgi HTTP/1.1\r\nClient-Cert: :AAAA:\r\n\r\n");
    assert!(answer.text().ends_with(";;;") && !answer.text().contains("HTTP_CLIENT"));
    server.stop();
}

#[test]
fn openssl_and_curl_are_let_in_with_their_certificates() {
    needs!("openssl", "curl");
    let authority = Authority::get();
    let server = serve(&[]);
    let url = format!("https://127.0.0.1:{}/alive", server.port);
    let curl = |version: &str, more: &[&str]| {
        let output = outside("curl")
            .args(["-sS", "--max-time", &deadline_secs(), "--cacert", &authority.trusted()])
            .args(["--tls-max", version])
            .args(more)
            .arg(&url)
            .output()
            .expect("curl");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    for version in ["1.2", "1.3"] {
        let (certificate, key) = (authority.file("joe.crt"), authority.file("joe.key"));
        let [text, error] = curl(version, &["--cert", &certificate, "--key", &key]);
        assert_eq!(text, "alive", "{error}");
        let [text, error] = curl(version, &[]);
        assert!(text.is_empty() && error.contains("alert"), "{text} {error}");
    }
    server.program.stop();
}

/// Certificates of as many authorities, made of that of the tests', whose name is written anew.
fn authorities(count: usize) -> String {
    let der = leaf("ca");
    let name = b"Test Authority";
    let numbered = |number: usize| {
        let other = format!("Authority {number:04}");
        assert_eq!(other.len(), name.len());
        let mut der = der.clone();
        let places: Vec<usize> = memchr::memmem::find_iter(&der, name).collect();
        for at in places {
            der[at..at + name.len()].copy_from_slice(other.as_bytes());
        }
        pem(&der)
    };
    (0..count).map(numbered).collect()
}

#[test]
fn a_bundle_may_have_hundreds_of_authorities() {
    needs!("openssl");
    let scratch = Scratch::new();
    let own = Authority::get().read("ca.pem");
    let mut server = serve(&[]);
    // The names of the larger one are too long to be told to each client.
    for count in [200, 800] {
        for bundle in [authorities(count) + &own, own.clone() + &authorities(count)] {
            scratch.write("bundle.pem", bundle);
            let path = scratch.join("bundle.pem");
            assert_eq!(set(&mut server, "ssl_ca_certificate", &path), "NULL", "{count}");
            for version in VERSIONS {
                assert!(talk(server.port, version, Some("joe")).text.ends_with("alive"));
                let alert = talk(server.port, version, Some("foreign")).alert;
                assert_eq!(alert, Some(Alert::UnknownCA));
                assert!(talk(server.port, version, None).alert.is_some());
            }
        }
    }
    server.program.stop();
}

#[test]
fn a_chain_of_any_length_does_no_harm() {
    needs!("openssl");
    let server = serve(&[]);
    let other = CertificateDer::from(leaf("foreign"));
    for version in VERSIONS {
        for count in [1, 10, 30, 60, 250] {
            let chain = vec![other.clone(); count];
            let client = Sealed::with(&[version], Some("joe"), &chain);
            let talk = client.ask(server.port, "localhost", ECHO);
            let is_served = talk.text.contains(&field("joe"));
            // Each certificate has 5 bytes around it.
            let is_right = is_served == (count * (other.len() + 5) < 20 * 1024);
            assert!(is_right, "{count}: {talk:?}");
            // What is resumed has the same certificate. With a long chain a ticket would be longer
            // than clients take.
            if count <= 30 {
                let talk = client.ask(server.port, "localhost", ECHO);
                assert!(talk.text.contains(&field("joe")), "{count}: {talk:?}");
                assert_eq!(talk.is_resumed, count <= 10, "{count}");
            }
        }
    }
    // Many of them at once, while others are served.
    let clients: Vec<usize> = (0..as_many_as(20, 2)).collect();
    for_each(
        clients,
        |number| format!("client {number}"),
        |_| {
            let chain = vec![other.clone(); 250];
            let talk =
                Sealed::with(&[&TLS13], Some("joe"), &chain).ask(server.port, "localhost", ASK);
            assert!(!talk.text.contains("alive"), "{talk:?}");
        },
    );
    assert!(talk(server.port, &TLS13, Some("joe")).text.ends_with("alive"));
    server.program.stop();
}

/// The certificate of `joe` with another name of the same length, signed by the authority.
fn renamed(name: &[u8; 3]) -> Vec<u8> {
    Authority::get().signed_anew("joe", |body| {
        let at = memchr::memmem::rfind(body, b"\x0c\x03joe").expect("the name") + 2;
        body[at..at + 3].copy_from_slice(name);
    })
}

#[test]
fn a_name_with_a_nul_is_shown_whole() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    scratch.write_program(
        "root/env.cgi",
        "#!/bin/sh\nprintf 'A: b\\n\\n'; printf '%s;' \"$SSL_CLIENT_S_DN\"\n",
    );
    let root = format!("document_root={}", scratch.join("root"));
    let server = serve(&[&root]);
    for (name, shown) in [(b"j\0e", "j\\00e"), (b"j\ne", "j\\0Ae"), (b"j,e", "j\\,e")] {
        let text = [authority.read("joe.key"), pem(&renamed(name))].concat();
        std::fs::write(authority.file("renamed.pem"), text).expect("a file");
        let ask = "GET /env.cgi HTTP/1.0\r\n\r\n";
        let talk = Sealed::new(Some("renamed")).ask(server.port, "localhost", ask);
        let wanted = format!("CN={shown},O=a\\, b,C=AT;");
        assert!(talk.text.ends_with(&wanted), "{talk:?}");
    }
    // With a signature that is wrong.
    let mut der = renamed(b"eve");
    *der.last_mut().expect("a signature") ^= 1;
    let text = [authority.read("joe.key"), pem(&der)].concat();
    std::fs::write(authority.file("renamed.pem"), text).expect("a file");
    let talk = Sealed::new(Some("renamed")).ask(server.port, "localhost", ASK);
    assert!(talk.alert.is_some() && !talk.text.contains("alive"), "{talk:?}");
    server.program.stop();
}

#[test]
fn a_file_of_authorities_that_is_none_is_refused_by_the_right_sentence() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    let log = scratch.join("error.log");
    let own = authority.read("ca.pem");
    let damaged = "The certificate is damaged";
    let half = own[..own.len() / 2].to_owned();
    let cases = [
        ("missing.pem", None, "Cannot read the certificate file"),
        ("", None, "Cannot read the certificate file"),
        ("fifo", None, "Cannot read the certificate file"),
        ("long.pem", Some("x".repeat((1 << 20) + 1)), "Cannot read the certificate file"),
        ("empty.pem", Some(String::new()), "The certificate file is empty"),
        ("garbage.pem", Some("garbage\n".to_owned()), "The certificate file is not in PEM format"),
        ("key.pem", Some(authority.read("ca.key")), "No certificate in the certificate file"),
        ("cut.pem", Some(half.clone()), damaged),
        ("cut2.pem", Some(format!("{own}{half}")), damaged),
        ("character.pem", Some(own.replacen("MII", "M!I", 1)), damaged),
        ("broken.pem", Some(format!("{own}{}", own.replacen("MII", "AAA", 1))), damaged),
        (
            "joined.pem",
            Some(format!("{}{own}", own.trim_end())),
            "Two sections of the certificate file meet in one line",
        ),
    ];
    let mut server = serve(&[&format!("error_log_file={log}")]);
    let fifo = std::ffi::CString::new(scratch.join("fifo")).expect("a path");
    // SAFETY: `fifo` is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    for (number, (name, content, sentence)) in cases.iter().enumerate() {
        if let Some(content) = content {
            scratch.write(name, content);
        }
        let path = scratch.join(name);
        assert_eq!(&set(&mut server, "ssl_ca_certificate", &path), sentence, "{name}");
        let lines = scratch.read("error.log");
        assert_eq!(lines.lines().count(), number + 1, "{lines}");
        let last = lines.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("ssl_ca_certificate: {path}: ")), "{last}");
    }
    // The old one stands.
    assert!(talk(server.port, &TLS13, Some("joe")).text.ends_with("alive"));
    let alert = talk(server.port, &TLS13, None).alert;
    assert_eq!(alert, Some(Alert::CertificateRequired));
    server.program.stop();
}

#[test]
fn the_commands_of_the_documentation_make_what_they_promise() {
    needs!("openssl", "curl");
    let text = include_str!("../../docs/tls.md");
    let is_command =
        |line: &&str| ["openssl ", "printf "].iter().any(|start| line.starts_with(start));
    let commands = text.lines().filter_map(|line| line.strip_prefix("    ")).filter(is_command);
    let scratch = Scratch::new();
    for command in commands.chain(["cat server.key server.crt > server.pem"]) {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(scratch.join(""))
            .output()
            .expect("a shell");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
    }
    let place = |name: &str| scratch.join(name);
    let server = Server::start(&[
        &format!("ssl_certificate={}", place("server.pem")),
        &format!("ssl_ca_certificate={}", place("ca.pem")),
    ]);
    let output = outside("curl")
        .args(["-sS", "--max-time", &deadline_secs(), "--cacert", &place("server.crt")])
        .args(["--cert", &place("joe.crt"), "--key", &place("joe.key")])
        .args(["-o", &place("answer"), &format!("https://127.0.0.1:{}/echo", server.port)])
        .output()
        .expect("curl");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert!(scratch.read("answer").contains("\nClient-Cert: :MII"), "{}", scratch.read("answer"));
    server.program.stop();
}
