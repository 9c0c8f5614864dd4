//! Certificates by the name that a client asks for (SNI), as PEM text, and the versions of TLS.

use std::io::Read as _;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConnection, ProtocolVersion};

use crate::support::{Authority, Scratch, Sealed, Server, for_each, leaf, shown};

const ASK: &str = "GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Sets an option on the polling thread; the sentence, or `NULL`.
fn set(server: &mut Server, name: &str, value: &str) -> String {
    server.tell(&format!("io set {name} {value}"));
    server.program.expect_start(&format!("set {name}: "))
}

fn get(server: &mut Server, name: &str) -> String {
    server.tell(&format!("io get {name}"));
    server.program.expect_start(&format!("get {name}: "))
}

/// The files of certificates for some names, made once in each test.
fn hosts(prefix: &str) -> [String; 4] {
    let authority = Authority::get();
    let issue =
        |name: &str, hosts: &[&str]| authority.issue_for(&format!("{prefix}-{name}"), hosts);
    [
        issue("a", &["a.example.org"]),
        issue("wild", &["*.example.org"]),
        issue("deep", &["*.b.example.org"]),
        issue("local", &["device"]),
    ]
}

#[test]
fn the_most_special_name_decides_which_certificate_is_shown() {
    needs!("openssl");
    let [a, wild, deep, local] = hosts("special");
    let list = format!(
        "ssl_certificates=*.example.org={wild}, A.Example.ORG={a},*.b.example.org={deep},device={local}"
    );
    let default = format!("ssl_certificate={}", Authority::get().identity("ec"));
    let cases = [
        ("a.example.org", "special-a"),
        ("A.EXAMPLE.org", "special-a"),
        ("c.example.org", "special-wild"),
        ("C.Example.org", "special-wild"),
        ("b.example.org", "special-wild"),
        ("x.b.example.org", "special-deep"),
        // One label, and never the bare domain.
        ("x.c.example.org", "ec"),
        ("example.org", "ec"),
        ("aexample.org", "ec"),
        ("a.example.org.evil", "ec"),
        ("device", "special-local"),
        ("x.device", "ec"),
        ("localhost", "ec"),
        // Addresses are not names, and no client asks for one.
        ("127.0.0.1", "ec"),
    ];
    // In any order of the options.
    for args in [[&list, &default], [&default, &list]] {
        let server = Server::start(&args.map(String::as_str));
        for versions in [&[&TLS12][..], &[&TLS13]] {
            for (name, wanted) in cases {
                let talk = Sealed::with(versions, None, &[]).ask(server.port, name, ASK);
                assert!(talk.text.ends_with("alive"), "{name}: {talk:?}");
                assert!(talk.leaf == leaf(wanted), "{name} is not shown {wanted}");
            }
        }
        server.program.stop();
    }
}

#[test]
fn without_a_default_other_names_are_refused_and_plain_http_is_not_spoken() {
    needs!("openssl");
    let [a, ..] = hosts("alone");
    let server = Server::start(&[&format!("ssl_certificates=a.example.org={a}")]);
    let talk = Sealed::new(None).ask(server.port, "a.example.org", ASK);
    assert!(talk.text.ends_with("alive") && talk.leaf == leaf("alone-a"), "{talk:?}");
    for name in ["b.example.org", "127.0.0.1"] {
        let talk = Sealed::new(None).ask(server.port, name, ASK);
        assert_eq!(talk.alert, Some(AlertDescription::AccessDenied), "{name}");
    }
    assert_eq!(server.ask(ASK).status, 400);
    server.program.stop();
}

#[test]
fn a_list_is_renewed_by_setting_it_again_and_taken_whole_or_not_at_all() {
    needs!("openssl");
    let authority = Authority::get();
    let [a, wild, ..] = hosts("whole");
    let scratch = Scratch::new();
    let place = |name: &str| scratch.join(name);
    let renew = |name: &str, from: &str| {
        scratch.write(name, std::fs::read(from).expect("a file"));
    };
    renew("a.pem", &a);
    renew("b.pem", &wild);
    let list = format!("a.example.org={},b.example.org={}", place("a.pem"), place("b.pem"));
    let mut server = Server::start(&[
        &format!("ssl_certificate={}", authority.identity("ec")),
        &format!("ssl_certificates={list}"),
        &format!("error_log_file={}", place("error.log")),
    ]);
    let port = server.port;
    let shown = |name: &str| Sealed::new(None).ask(port, name, ASK).leaf;
    let all = || ["a.example.org", "b.example.org", "c.example.org"].map(shown);
    let first = [leaf("whole-a"), leaf("whole-wild"), leaf("ec")];
    assert!(all() == first);
    // What is in the files counts when the option is set.
    renew("a.pem", &authority.identity("other"));
    assert!(all() == first);
    let key = authority.read("ec.key");
    let chain = authority.read("ec.crt");
    let broken = [
        ("missing.pem", None, "Cannot read the certificate file"),
        ("empty.pem", Some(String::new()), "The certificate file is empty"),
        ("text.pem", Some("nothing\n".to_owned()), "The certificate file is not in PEM format"),
        ("key.pem", Some(key.clone()), "No certificate in the certificate file"),
        ("chain.pem", Some(chain.clone()), "No private key in the certificate file"),
        ("cut.pem", Some(format!("{key}{}", &chain[..100])), "The certificate is damaged"),
        (
            "alien.pem",
            Some(format!("{}{chain}", authority.read("other.key"))),
            "The private key does not belong to the certificate",
        ),
    ];
    for (name, content, sentence) in &broken {
        if let Some(content) = content {
            scratch.write(name, content);
        }
        // As the first, and as the last entry.
        for value in [
            format!("x.example.org={},{list}", place(name)),
            format!("{list},x.example.org={}", place(name)),
        ] {
            assert_eq!(&set(&mut server, "ssl_certificates", &value), sentence, "{name}");
            assert_eq!(get(&mut server, "ssl_certificates"), list, "{name}");
            assert!(all() == first, "{name}");
        }
        let log = scratch.read("error.log");
        let line = format!("ssl_certificates: {}: ", place(name));
        assert!(log.contains(&line), "{log}");
    }
    assert_eq!(set(&mut server, "ssl_certificates", &list), "NULL");
    assert!(all() == [leaf("other"), leaf("whole-wild"), leaf("ec")]);
    // One certificate, while the others stay.
    assert_eq!(set(&mut server, "ssl_certificate", &authority.identity("rsa")), "NULL");
    assert!(all() == [leaf("other"), leaf("whole-wild"), leaf("rsa")]);
    assert_eq!(set(&mut server, "ssl_certificate", &place("missing.pem")), broken[0].2);
    assert!(all() == [leaf("other"), leaf("whole-wild"), leaf("rsa")]);
    assert_eq!(set(&mut server, "ssl_certificates", ""), "NULL");
    assert!(all() == [leaf("rsa"), leaf("rsa"), leaf("rsa")]);
    server.program.stop();
}

#[test]
fn a_list_that_is_malformed_is_refused_by_the_right_sentence() {
    needs!("openssl");
    let file = Authority::get().identity("ec");
    let form = "Option value must be a list of host=file";
    let host = "A host of ssl_certificates must be a name as example.org or *.example.org";
    let cases = [
        (
            format!("a.example.org={file},A.example.ORG={file}"),
            "A host stands twice in ssl_certificates",
        ),
        (file.clone(), form),
        ("a.example.org=".to_owned(), form),
        (format!("={file}"), form),
        (",".to_owned(), form),
        (format!("127.0.0.1={file}"), host),
        (format!("[::1]={file}"), host),
        (format!("*={file}"), host),
        (format!("a.*.org={file}"), host),
        (format!("a*.example.org={file}"), host),
        (format!("a.example.org.={file}"), host),
        (format!("{}.org={file}", "x".repeat(64)), host),
        (format!("{}org={file}", "x.".repeat(130)), host),
        (format!("bücher.example={file}"), host),
        (
            "a.example.org=-----BEGIN CERTIFICATE-----".to_owned(),
            "ssl_certificates takes files, and no PEM text",
        ),
    ];
    let mut server = Server::start(&[&format!("ssl_certificate={file}")]);
    for (value, sentence) in &cases {
        assert_eq!(&set(&mut server, "ssl_certificates", value), sentence, "{value}");
        assert_eq!(get(&mut server, "ssl_certificates"), "");
    }
    // With a certificate in force, what is refused does not close the port.
    let talk = Sealed::new(None).ask(server.port, "a.example.org", ASK);
    assert!(talk.text.ends_with("alive"), "{talk:?}");
    server.program.stop();
}

#[test]
fn a_session_is_resumed_under_its_own_name_and_no_other() {
    needs!("openssl");
    let [a, wild, ..] = hosts("resumed");
    let list = format!("ssl_certificates=a.example.org={a},*.example.org={wild}");
    let ec = Authority::get().identity("ec");
    let mut server =
        Server::start(&[&list, &format!("ssl_certificate={ec}"), "ssl_protocols=1.3,1.2"]);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let client = Sealed::with(versions, None, &[]);
        let port = server.port;
        assert!(!client.ask(port, "a.example.org", ASK).is_resumed);
        assert!(client.ask(port, "a.example.org", ASK).is_resumed);
        // The client brings the session of the name before.
        let mut before = "a.example.org";
        for other in ["b.example.org", "c.example.org", "localhost", "127.0.0.1", before] {
            let talk = client.ask(port, other, ASK);
            assert!(!talk.is_resumed && talk.text.ends_with("alive"), "{before} {other}: {talk:?}");
            assert!(client.ask(port, other, ASK).is_resumed, "{other}");
            before = other;
        }
        // Each of the options ends all tickets, and a value that is refused ends none.
        let same = list.split_once('=').expect("a value").1.to_owned();
        for (name, value) in [
            ("ssl_certificate", ec.as_str()),
            ("ssl_certificates", same.as_str()),
            ("ssl_protocols", "1.2,1.3"),
            ("ssl_verify_client", "optional"),
            ("ssl_ca_certificate", &Authority::get().trusted()),
            ("ssl_ca_certificate", ""),
        ] {
            assert!(client.ask(port, "a.example.org", ASK).is_resumed);
            // Refused without an older value in force, this one closes the port.
            if (name, value.is_empty()) != ("ssl_ca_certificate", false) {
                assert_ne!(set(&mut server, name, "nonsense"), "NULL");
                assert!(client.ask(port, "a.example.org", ASK).is_resumed, "{name}");
            }
            assert_eq!(set(&mut server, name, value), "NULL");
            assert!(!client.ask(port, "a.example.org", ASK).is_resumed, "{name}");
        }
    }
    server.program.stop();
}

#[test]
fn the_versions_are_those_that_are_set() {
    needs!("openssl");
    let mut server =
        Server::start(&[&format!("ssl_certificate={}", Authority::get().identity("ec"))]);
    assert_eq!(get(&mut server, "ssl_protocols"), "1.2,1.3");
    for (value, has_12, has_13) in [
        ("1.2", true, false),
        ("1.3", false, true),
        (" 1.3 , 1.2 ", true, true),
        ("1.3,1.3", false, true),
        ("", true, true),
    ] {
        assert_eq!(set(&mut server, "ssl_protocols", value), "NULL", "{value}");
        for (version, number, is_spoken) in
            [(&TLS12, ProtocolVersion::TLSv1_2, has_12), (&TLS13, ProtocolVersion::TLSv1_3, has_13)]
        {
            let talk = Sealed::with(&[version], None, &[]).ask(server.port, "localhost", ASK);
            match is_spoken {
                true => assert_eq!(talk.version, Some(number), "{value}: {talk:?}"),
                false => {
                    let alert = Some(AlertDescription::ProtocolVersion);
                    assert_eq!(talk.alert, alert, "{value}: {talk:?}");
                }
            }
        }
    }
    let form = "Option value must be a list of 1.2 and 1.3";
    let old = "TLS before version 1.2 is not spoken";
    assert_eq!(set(&mut server, "ssl_protocols", "1.3"), "NULL");
    for (value, sentence) in [
        ("1.1", old),
        ("1.0,1.2", old),
        ("1.2,", form),
        (",", form),
        ("1.4", form),
        ("TLSv1.3", form),
        ("1.2 1.3", form),
        ("12", form),
    ] {
        assert_eq!(set(&mut server, "ssl_protocols", value), sentence, "{value}");
        assert_eq!(get(&mut server, "ssl_protocols"), "1.3");
    }
    let talk = Sealed::with(&[&TLS12], None, &[]).ask(server.port, "localhost", ASK);
    assert_eq!(talk.alert, Some(AlertDescription::ProtocolVersion));
    server.program.stop();
}

#[test]
fn the_value_may_be_pem_text_which_nobody_gets_to_see() {
    needs!("openssl");
    let authority = Authority::get();
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(authority.identity("ec")).expect("a file");
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut server = Server::start(&[&format!("ssl_certificate={text}"), &log]);
    assert_eq!(get(&mut server, "ssl_certificate"), "(text)");
    let port = server.port;
    let shown = || Sealed::new(None).ask(port, "localhost", ASK).leaf;
    assert!(shown() == leaf("ec"));
    // From inside a handler, too, and the program's own copy does not matter afterwards.
    let set_text = |server: &mut Server, name: &str, file: &str| {
        server.tell(&format!("io set_text {name} {file}"));
        server.program.expect_start(&format!("set {name}: "))
    };
    assert_eq!(set_text(&mut server, "ssl_certificate", &authority.identity("rsa")), "NULL");
    assert!(shown() == leaf("rsa"));
    let key = authority.read("ec.key");
    scratch.write("key", &key).write("chain", authority.read("ec.crt"));
    for (name, sentence) in [
        ("key", "No certificate in the certificate file"),
        ("chain", "No private key in the certificate file"),
    ] {
        assert_eq!(set_text(&mut server, "ssl_certificate", &scratch.join(name)), sentence);
        assert_eq!(get(&mut server, "ssl_certificate"), "(text)");
        assert!(shown() == leaf("rsa"));
    }
    // The text of the option is no value.
    assert_ne!(set(&mut server, "ssl_certificate", "(text)"), "NULL");
    assert_eq!(set_text(&mut server, "ssl_ca_certificate", &authority.trusted()), "NULL");
    assert_eq!(get(&mut server, "ssl_ca_certificate"), "(text)");
    let talk = Sealed::new(None).ask(port, "localhost", ASK);
    assert_eq!(talk.alert, Some(AlertDescription::CertificateRequired));
    assert_eq!(set(&mut server, "ssl_ca_certificate", ""), "NULL");
    assert_eq!(set(&mut server, "ssl_certificate", &authority.identity("ec")), "NULL");
    assert_eq!(get(&mut server, "ssl_certificate"), authority.identity("ec"));
    let log = scratch.read("error.log");
    let secret = key.lines().nth(1).expect("a line of the key");
    assert!(log.contains("ssl_certificate: (text): ") && !log.contains(secret), "{log}");
    server.program.stop();
}

/// The first words of a client of TLS 1.2, of which certificates can be read on the wire, with this
/// extension for the name.
fn hello(extension: &[u8]) -> Vec<u8> {
    let mut config = (*Sealed::with(&[&TLS12], None, &[]).0).clone();
    config.enable_sni = false;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config.into(), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a vector");
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    // Behind the headers of record and message, version and random bytes.
    let ciphers = 5 + 4 + 2 + 32 + 1 + usize::from(hello[43]);
    let compression = ciphers + 2 + number(ciphers);
    let extensions = compression + 1 + usize::from(hello[compression]);
    assert_eq!(extensions + 2 + number(extensions), hello.len());
    let added = [&[0, 0][..], &(extension.len() as u16).to_be_bytes(), extension].concat();
    for (at, before) in [(3, number(3)), (7, number(7)), (extensions, number(extensions))] {
        hello[at..at + 2].copy_from_slice(&((before + added.len()) as u16).to_be_bytes());
    }
    hello.extend(added);
    hello
}

/// The extension with these names (RFC 6066, section 3).
fn server_names(names: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.push(0);
        list.extend((name.len() as u16).to_be_bytes());
        list.extend_from_slice(name);
    }
    [&(list.len() as u16).to_be_bytes()[..], &list].concat()
}

#[test]
fn names_that_no_honest_client_asks_for_do_no_harm() {
    needs!("openssl");
    let [a, ..] = hosts("hostile");
    let server = Server::start(&[
        &format!("ssl_certificates=a.example.org={a}"),
        &format!("ssl_certificate={}", Authority::get().identity("ec")),
    ]);
    const ILLEGAL: u8 = 47;
    const DECODE: u8 = 50;
    let long = "x".repeat(300);
    let labels = "x.".repeat(149) + "xx";
    type Case<'a> = (&'a str, Vec<u8>, Result<&'a str, u8>);
    let one = |name: &str| server_names(&[name.as_bytes()]);
    let cases: [Case<'_>; 17] = [
        ("the name", one("a.example.org"), Ok("hostile-a")),
        ("in capitals", one("A.EXAMPLE.ORG"), Ok("hostile-a")),
        ("with a dot", one("a.example.org."), Ok("hostile-a")),
        ("another", one("b.example.org"), Ok("ec")),
        ("an address", one("127.0.0.1"), Ok("ec")),
        ("an address of IPv6", one("::1"), Ok("ec")),
        ("an address in brackets", one("[::1]"), Err(ILLEGAL)),
        ("300 bytes", one(&long), Err(ILLEGAL)),
        ("300 bytes in labels", one(&labels), Err(ILLEGAL)),
        ("empty", one(""), Err(DECODE)),
        ("a dot", one("."), Err(ILLEGAL)),
        ("NUL", one("a.example.org\0.evil"), Err(ILLEGAL)),
        ("a path", one("../../etc/passwd"), Err(ILLEGAL)),
        ("no UTF-8", server_names(&[b"\xff\xfe"]), Err(ILLEGAL)),
        ("two names", server_names(&[b"a.example.org", b"b.example.org"]), Err(DECODE)),
        ("no list", server_names(&[]), Err(DECODE)),
        ("nothing", Vec::new(), Err(DECODE)),
    ];
    for_each(
        cases,
        |(what, ..)| (*what).to_owned(),
        |(_, extension, wanted)| {
            let mut client = server.client();
            client.send(hello(extension));
            match wanted {
                Ok(name) => {
                    let (leaf, mut seen) = (leaf(name), Vec::new());
                    while memchr::memmem::find(&seen, &leaf).is_none() {
                        seen.extend(client.take(1));
                        assert!(seen.len() < 5000, "{}", shown(&seen));
                    }
                }
                Err(alert) => {
                    let mut alert_seen = [0; 7];
                    (&client.rest_or_reset()[..]).read_exact(&mut alert_seen).expect("an alert");
                    assert_eq!(alert_seen, [0x15, 3, 3, 0, 2, 2, *alert]);
                }
            }
        },
    );
    let talk = Sealed::new(None).ask(server.port, "a.example.org", ASK);
    assert!(talk.text.ends_with("alive"));
    server.program.stop();
}
