//! A port of our own behind which everything goes through TLS, so that tests which show plain bytes
//! can be had over TLS, too.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{Authority, deadline};

/// Each connection to `port` becomes one of its own to the server. An orderly end of the other side
/// is passed on in both directions. Where TLS was ended without its notice, or by an alert, the
/// end is a reset.
pub struct Tunnel {
    pub port: u16,
}

impl Tunnel {
    /// Lives as long as the process.
    pub fn to(server: u16) -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = client_config();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.expect("a connection");
                let far = TcpStream::connect(("127.0.0.1", server)).expect("the server");
                let session = open(config.clone());
                std::thread::spawn(move || relay(near, far, session));
            }
        });
        Tunnel { port }
    }
}

/// What a client that trusts the authority needs.
pub fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(Authority::get().trusted());
    roots.add(trusted.expect("the authority's certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client's side of a connection.
pub fn open(config: Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(config, name).expect("a session")
}

struct Ends {
    far: TcpStream,
    session: Mutex<ClientConnection>,
    /// Held while records are on their way, so that they keep their order.
    order: Mutex<()>,
}

impl Ends {
    /// Sends what the session has to send, after `change`.
    fn send(&self, change: impl FnOnce(&mut ClientConnection)) -> std::io::Result<()> {
        let _turn = self.order.lock().expect("no panic of the other side");
        let mut records = Vec::new();
        {
            let mut session = self.session.lock().expect("no panic of the other side");
            change(&mut session);
            while session.wants_write() {
                session.write_tls(&mut records)?;
            }
        }
        (&self.far).write_all(&records)
    }
}

fn relay(near: TcpStream, far: TcpStream, mut session: ClientConnection) {
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    far.set_read_timeout(Some(deadline())).expect("a deadline");
    while session.is_handshaking() {
        if session.complete_io(&mut &far).is_err() {
            return reset(&near);
        }
    }
    far.set_read_timeout(None).expect("no deadline");
    session.set_buffer_limit(None);
    let ends = Arc::new(Ends { far, session: Mutex::new(session), order: Mutex::new(()) });
    let (there, source) = (ends.clone(), near.try_clone().expect("another handle"));
    std::thread::spawn(move || send_all(&source, &there));
    if receive_all(&near, &ends) {
        let _ = near.shutdown(Shutdown::Write);
    } else {
        reset(&near);
    }
}

fn send_all(near: &TcpStream, ends: &Ends) {
    let mut buf = [0; 65536];
    while let Ok(count) = { near }.read(&mut buf) {
        let sent = ends.send(|session| match count {
            0 => session.send_close_notify(),
            count => session.writer().write_all(&buf[..count]).expect("no limit"),
        });
        if count == 0 || sent.is_err() {
            return;
        }
    }
    // The client has left by a reset.
    let _ = ends.far.shutdown(Shutdown::Both);
}

/// Whether the end is an orderly one.
fn receive_all(near: &TcpStream, ends: &Ends) -> bool {
    let mut buf = [0; 65536];
    loop {
        let Ok(count) = (&ends.far).read(&mut buf) else { return false };
        let mut plain = Vec::new();
        let (wants_write, ended) = {
            let mut session = ends.session.lock().expect("no panic of the other side");
            let mut records = &buf[..count];
            while !records.is_empty() {
                session.read_tls(&mut records).expect("a slice");
                let Ok(state) = session.process_new_packets() else { return false };
                let mut piece = vec![0; state.plaintext_bytes_to_read()];
                session.reader().read_exact(&mut piece).expect("what is there");
                plain.extend(piece);
                if state.peer_has_closed() {
                    break;
                }
            }
            let state = session.process_new_packets();
            (session.wants_write(), state.is_ok_and(|state| state.peer_has_closed()))
        };
        if { near }.write_all(&plain).is_err() {
            let _ = ends.far.shutdown(Shutdown::Both);
            return false;
        }
        if ended {
            return true;
        }
        if count == 0 || wants_write && ends.send(|_| {}).is_err() {
            return false;
        }
    }
}

fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("SO_LINGER");
    let _ = stream.shutdown(Shutdown::Read);
}
