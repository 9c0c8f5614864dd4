//! Records that no honest client writes, under the keys of a real connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

use crate::support::{
    Authority, Server, as_many_as, client_config, deadline, for_each, open, request, shown,
};

/// The end of a connection that has no protocol any more, only keys (TLS 1.3).
struct Keys {
    stream: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
    sent: u64,
    received: u64,
}

impl Keys {
    fn connect(port: u16) -> Keys {
        let mut config = (*client_config()).clone();
        config.enable_secret_extraction = true;
        let mut session = open(config.into());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server");
        stream.set_read_timeout(Some(deadline())).expect("a deadline");
        // A whole answer, behind which no tickets come any more.
        session.writer().write_all(b"GET /alive HTTP/1.1\r\n\r\n").expect("room");
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive") {
            session.complete_io(&mut stream).expect("a handshake and an answer");
            let _ = session.reader().read_to_end(&mut answer);
        }
        let suite = session.negotiated_cipher_suite().expect("one was negotiated");
        let SupportedCipherSuite::Tls13(suite) = suite else { panic!("an old {suite:?}") };
        assert_eq!(suite.common.suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
        let secrets = session.dangerous_extract_secrets().expect("secrets");
        let ((sent, tx), (received, rx)) = (secrets.tx, secrets.rx);
        let (key, iv) = parts(tx);
        let encrypter = suite.aead_alg.encrypter(key, iv);
        let (key, iv) = parts(rx);
        let decrypter = suite.aead_alg.decrypter(key, iv);
        Keys { stream, encrypter, decrypter, sent, received }
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        let record = self.encrypter.encrypt(message, self.sent).expect("a record");
        self.sent += 1;
        record.encode()
    }

    fn send(&mut self, typ: ContentType, payload: &[u8]) -> &mut Keys {
        let record = self.record(typ, payload);
        self.stream.write_all(&record).expect("the server takes it");
        self
    }

    fn next(&mut self) -> (ContentType, Vec<u8>) {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).expect("a record");
        let mut payload = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.stream.read_exact(&mut payload).expect("its content");
        let typ = ContentType::from(header[0]);
        let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut payload);
        let plain = self.decrypter.decrypt(message, self.received).expect("a record for us");
        self.received += 1;
        (plain.typ, plain.payload.to_vec())
    }
}

fn parts(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv) {
    match secrets {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv),
        _ => panic!("other keys than those of AES-256"),
    }
}

fn serve() -> Server {
    Server::start(&[&format!("ssl_certificate={}", Authority::get().identity("ec"))])
}

/// Asks the other side for new keys, or tells it of ours.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

#[test]
fn a_message_that_is_not_complete_does_not_disturb_what_is_sent() {
    needs!("openssl");
    let mut server = serve();
    let answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello";
    for split in 1..KEY_UPDATE.len() {
        let mut client = Keys::connect(server.port);
        let key = format!("split{split}");
        let ask = request("GET", "1.1", &[&format!("keep {key}"), &format!("say {key}")]);
        let request = client.record(ContentType::ApplicationData, ask.as_bytes());
        let part = client.record(ContentType::Handshake, &KEY_UPDATE[..split]);
        client.stream.write_all(&[request, part].concat()).expect("the server takes it");
        server.expect_line(&key);
        // The part is in the server's hands when it answers another client.
        Keys::connect(server.port);
        assert!(server.late(&key, &format!("write {answer}")) > 0);
        let (typ, plain) = client.next();
        assert_eq!(typ, ContentType::ApplicationData);
        assert!(plain.ends_with(b"hello"), "{}", shown(&plain));
        client.send(ContentType::Handshake, &KEY_UPDATE[split..]);
    }
    Keys::connect(server.port);
    server.program.stop();
}

#[test]
fn records_without_sense_end_the_connection_and_nothing_else() {
    needs!("openssl");
    let server = serve();
    let many = as_many_as(200, 40);
    type Case = (&'static str, ContentType, Vec<u8>, usize);
    let cases: [Case; 8] = [
        ("empty data", ContentType::ApplicationData, Vec::new(), many),
        ("empty messages", ContentType::Handshake, Vec::new(), many),
        ("half a message, then another", ContentType::Handshake, vec![24, 0, 0], many),
        ("a message that is too long", ContentType::Handshake, vec![24, 0xff, 0xff, 0xff], 1),
        ("an unknown message", ContentType::Handshake, vec![99, 0, 0, 0], 1),
        ("a hello", ContentType::Handshake, vec![1, 0, 0, 0], 1),
        ("an unknown kind of record", ContentType::from(99), vec![0], 1),
        ("an alert", ContentType::Alert, vec![2, 40], 1),
    ];
    for_each(
        cases,
        |case| case.0.to_owned(),
        |(_, typ, payload, count)| {
            let mut client = Keys::connect(server.port);
            for _ in 0..*count {
                let record = client.record(*typ, payload);
                if client.stream.write_all(&record).is_err() {
                    break;
                }
            }
            // Whatever it says, it ends.
            let mut rest = Vec::new();
            let end = client.stream.read_to_end(&mut rest);
            let waited = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!waited, "it does not end");
            assert!(rest.len() < 200, "{}", shown(&rest));
        },
    );
    Keys::connect(server.port);
    server.program.stop();
}

#[test]
fn a_client_may_renew_its_keys() {
    needs!("openssl");
    // The new keys are of no interest here: a record under the old ones is an error then.
    let server = serve();
    let mut client = Keys::connect(server.port);
    client.send(ContentType::Handshake, &KEY_UPDATE);
    client.send(ContentType::ApplicationData, b"GET /alive HTTP/1.1\r\n\r\n");
    let (typ, plain) = client.next();
    assert_eq!((typ, plain), (ContentType::Alert, vec![2, 20]));
    Keys::connect(server.port);
    server.program.stop();
}
