//! The server's side of TLS, and an honest client of rustls' own: their records arrive in any
//! pieces, and some are damaged, left out or repeated. Nothing but what the client wrote comes out,
//! in its order; and all of it, where nothing was done to the records.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use mongoose::options::{Protocols, VerifyClient};
use mongoose::tls::records::Records;
use mongoose::tls::setup::{Pem, Setup};
use mongoose::tls::{Authorities, Certificate, Identity, Session};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read as _, Write as _};

const IDENTITY: &[u8] = include_bytes!("identity.pem");
/// The length of the server's buffer for records.
const WIRE: usize = 48 * 1024;
/// The longest input that a session may keep.
const KEPT: usize = 20 * 1024;
/// The room that records may take which the socket has not taken: those of 80 KiB, in a buffer that has
/// doubled.
const UNSENT: usize = 2 * 84 * 1024;
/// A client that sends more updates of its keys than 32 in a row is taken for an attacker.
const UPDATES: usize = 30;
/// Steps after which everything has arrived.
const PATIENCE: usize = 1000;

fn identity() -> &'static Identity {
    static IDENTITY_OF_SERVER: OnceLock<Identity> = OnceLock::new();
    IDENTITY_OF_SERVER.get_or_init(|| {
        let pem = Pem::Text(IDENTITY);
        let certificate = Certificate::load("fuzz", &pem).ok();
        let authorities = Authorities::load("fuzz", &pem).ok();
        assert!(certificate.is_some() && authorities.is_some());
        let (verify, protocols) = (VerifyClient::Optional, Protocols::default());
        let setup = Setup { certificate, authorities, verify, protocols, ..Setup::default() };
        setup.identity().ok().flatten().expect("an identity")
    })
}

/// The settings of a client, by version and by whether it shows a certificate. Sessions are resumed.
fn client_config(number: usize) -> Arc<ClientConfig> {
    static CONFIGS: OnceLock<Vec<Arc<ClientConfig>>> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| {
        let certificate = CertificateDer::from_pem_slice(IDENTITY).expect("a certificate");
        let configs = (0..4).map(|number| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).expect("an authority");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let version = if number & 1 == 0 { &TLS12 } else { &TLS13 };
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots);
            let key = PrivateKeyDer::from_pem_slice(IDENTITY).expect("a key");
            Arc::new(match number & 2 {
                0 => builder.with_no_client_auth(),
                _ => builder
                    .with_client_auth_cert(vec![certificate.clone()], key)
                    .expect("an identity"),
            })
        });
        configs.collect()
    });
    configs[number % configs.len()].clone()
}

/// Both sides, and what is on its way between them.
struct World {
    client: ClientConnection,
    server: Box<Session>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// What waits on the server to be sent.
    outbox: Vec<u8>,
    written: [Vec<u8>; 2],
    read: [Vec<u8>; 2],
    has_failed: bool,
    has_ended: bool,
    /// Nothing was done to the records of the client.
    is_honest: bool,
}

/// From the client to the server.
const UP: usize = 0;
const DOWN: usize = 1;

impl World {
    fn new(settings: usize) -> World {
        let name = ServerName::try_from("localhost").expect("a name");
        World {
            client: ClientConnection::new(client_config(settings), name).expect("a session"),
            server: Session::open(identity()).expect("a session"),
            to_server: Vec::new(),
            to_client: Vec::new(),
            outbox: Vec::new(),
            written: Default::default(),
            read: Default::default(),
            has_failed: false,
            has_ended: false,
            is_honest: true,
        }
    }

    /// Takes what the client has to send.
    fn pump(&mut self) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server).expect("a vector");
        }
    }

    /// The server's socket brings so many bytes.
    fn deliver_up(&mut self, count: usize) {
        if self.has_failed || self.has_ended {
            return;
        }
        let mut wire = vec![0; WIRE];
        let begin = self.server.begin_input(&mut wire);
        let count = count.min(self.to_server.len()).min(WIRE - begin);
        wire[begin..begin + count].copy_from_slice(&self.to_server[..count]);
        self.to_server.drain(..count);
        let read = &mut self.read[UP];
        let received = self
            .server
            .receive(&mut wire[..begin + count], |piece| read.extend_from_slice(piece));
        match received {
            Ok(ended) => self.has_ended = ended,
            Err(_) => self.has_failed = true,
        }
        let written = &self.written[UP];
        assert!(written.starts_with(&self.read[UP]), "what nobody wrote");
        let (kept, _) = self.server.recount();
        assert!(self.has_failed || kept <= KEPT + UNSENT, "{kept} kept");
    }

    /// The server's socket takes so many bytes.
    fn flush(&mut self, count: usize) {
        let mut records = Records::default();
        if self.server.fill(&self.outbox, false, &mut records).is_err() {
            assert!(self.has_failed || self.has_ended);
            return;
        }
        let records = records.as_slice();
        let count = count.min(records.len());
        self.to_client.extend_from_slice(&records[..count]);
        let done = self.server.sent(records, count);
        self.outbox.drain(..done);
    }

    fn deliver_down(&mut self, count: usize) {
        let count = count.min(self.to_client.len());
        let mut records = &self.to_client[..count];
        while !records.is_empty() && self.client.read_tls(&mut records).is_ok() {
            if self.client.process_new_packets().is_err() {
                // The server may have answered a hello that the client did not write.
                assert!(!self.is_honest, "the server sends nonsense");
                self.has_failed = true;
                break;
            }
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = self.client.reader().read(&mut buf) {
                self.read[DOWN].extend_from_slice(&buf[..count]);
            }
        }
        self.to_client.drain(..count);
        assert!(self.written[DOWN].starts_with(&self.read[DOWN]), "what the server did not write");
    }

    fn write_up(&mut self, count: usize) {
        let begin = self.written[UP].len();
        let text: Vec<u8> = (begin..begin + count).map(|n| (n % 251) as u8).collect();
        let Ok(taken) = self.client.writer().write(&text) else {
            // It was told that its records are damaged.
            assert!(!self.is_honest, "the client has failed");
            return;
        };
        self.written[UP].extend_from_slice(&text[..taken]);
    }

    fn write_down(&mut self, count: usize) {
        let begin = self.written[DOWN].len();
        let text: Vec<u8> = (begin..begin + count).map(|n| (n % 241) as u8).collect();
        self.outbox.extend_from_slice(&text);
        self.written[DOWN].extend(text);
    }

    /// Damages what is on its way to the server, in one of some manners.
    fn damage(&mut self, manner: usize, at: usize) {
        if self.to_server.is_empty() {
            return;
        }
        self.is_honest = false;
        let at = at % self.to_server.len();
        match manner % 4 {
            0 => self.to_server[at] ^= 1 << (manner % 8),
            1 => drop(self.to_server.drain(at..(at + 1 + manner).min(self.to_server.len()))),
            2 if self.to_server.len() < WIRE => self.to_server.extend_from_within(at..),
            2 => {}
            _ => self.to_server.insert(at, manner as u8),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [settings, script @ ..] = data else { return };
    let mut world = World::new(usize::from(*settings));
    let mut updates = 0;
    let mut steps = script.iter().map(|byte| usize::from(*byte));
    while let Some(step) = steps.next() {
        world.pump();
        let count = step & 31;
        match step >> 5 {
            0 => world.deliver_up(count + 1),
            1 => world.deliver_up(count * count * 8 + 1),
            2 => world.flush(count * 40),
            3 => world.deliver_down(count * count * 8 + 1),
            4 => world.write_up(count * 37),
            5 => world.write_down(count * 531),
            6 if updates < UPDATES => {
                // Only TLS 1.3 has new keys, and only behind a handshake.
                updates += usize::from(world.client.refresh_traffic_keys().is_ok());
            }
            6 => {}
            _ => world.damage(count, steps.next().unwrap_or_default() * (count + 1)),
        }
    }
    for _ in 0..PATIENCE {
        world.pump();
        world.deliver_up(usize::MAX);
        world.flush(usize::MAX);
        world.deliver_down(usize::MAX);
        world.pump();
        let is_quiet = world.to_server.is_empty() && world.to_client.is_empty();
        if world.has_failed || is_quiet && world.outbox.is_empty() {
            break;
        }
    }
    if world.is_honest {
        assert!(!world.has_failed && !world.server.is_handshaking());
        assert!(world.read == world.written, "something is missing");
        let certificate = world.server.peer_certificate().is_some();
        assert_eq!(certificate, settings & 2 != 0);
        world.client.send_close_notify();
        world.pump();
        world.deliver_up(usize::MAX);
        assert!(world.has_ended && !world.has_failed);
        assert!(!world.server.has_partial());
    }
});
