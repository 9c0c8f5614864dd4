//! A client's side of one connection: bytes, answers of HTTP and frames of websockets, with TLS or without.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::world::World;

/// The time after which what has not come is lost: also on a machine that is ten times slower, and busy. The
/// servers' timeouts are longer, since they would end the connection, which something may excuse.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// The time after which a client that waits looks around.
pub const GLANCE: Duration = Duration::from_millis(50);

/// Why a client does not go on.
#[derive(Debug)]
pub enum Trouble {
    /// A promise is broken, whatever else happens.
    Wrong(String),
    /// The connection has ended, or an answer was an error: there may be an excuse for it.
    Broken(String),
    /// The world ends.
    Over,
}

pub enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buf),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

pub struct Wire<'a> {
    world: &'a World,
    stream: Stream,
    pub owner: u32,
    received: Vec<u8>,
    /// How much one read takes at most.
    pub pace: usize,
}

/// An answer of HTTP.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl<'a> Wire<'a> {
    pub fn connect(
        world: &'a World,
        (address, is_secure): (SocketAddr, bool),
        owner: u32,
    ) -> Result<Wire<'a>, Trouble> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .map_err(|error| Trouble::Broken(format!("connect: {error}")))?;
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(GLANCE)).expect("a time");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time");
        let stream = match is_secure {
            #[cfg(feature = "tls")]
            true => sealed::sealed(stream),
            _ => Stream::Plain(stream),
        };
        let mut wire = Wire { world, stream, owner, received: Vec::new(), pace: 65_536 };
        wire.shake_hands()?;
        Ok(wire)
    }

    /// Waits for the end of a handshake of TLS.
    fn shake_hands(&mut self) -> Result<(), Trouble> {
        #[cfg(feature = "tls")]
        if let Stream::Tls(stream) = &mut self.stream {
            let end = Instant::now() + PATIENCE;
            while stream.conn.is_handshaking() {
                match stream.conn.complete_io(&mut stream.sock) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if self.world.has_failed() {
                            return Err(Trouble::Over);
                        }
                        if Instant::now() > end {
                            let text = format!("{} waits for the end of a handshake", self.owner);
                            return Err(Trouble::Wrong(text));
                        }
                    }
                    Err(error) => return Err(Trouble::Broken(format!("handshake: {error}"))),
                }
            }
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                Trouble::Wrong(format!("{} has waited for {PATIENCE:?} to send", self.owner))
            }
            _ => Trouble::Broken(format!("send: {error}")),
        })
    }

    /// Sends bytes in pieces that are cut anywhere.
    pub fn send_in_pieces(
        &mut self,
        bytes: &[u8],
        random: &mut super::random::Random,
    ) -> Result<(), Trouble> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = match random.below(3) {
                0 => 1 + random.below(rest.len()),
                1 => 1 + random.below(rest.len().min(20)),
                _ => rest.len(),
            };
            self.send(&rest[..len])?;
            rest = &rest[len..];
            if random.chance(20) {
                std::thread::sleep(Duration::from_millis(random.below(8) as u64));
            }
        }
        Ok(())
    }

    /// Reads what is there, or waits for a short time; whether there may be more.
    pub fn glance(&mut self) -> Result<bool, Trouble> {
        if self.world.has_failed() {
            return Err(Trouble::Over);
        }
        let start = self.received.len();
        self.received.resize(start + self.pace, 0);
        let read = self.stream.read(&mut self.received[start..]);
        self.received.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => Ok(count > 0),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(true),
                _ => Ok(false),
            },
        }
    }

    /// Reads until there is more.
    fn more(&mut self, what: &str) -> Result<(), Trouble> {
        let end = Instant::now() + PATIENCE;
        let before = self.received.len();
        loop {
            if !self.glance()? {
                let port = self.stream.socket().local_addr().map_or(0, |address| address.port());
                let text = format!(
                    "{} (port {port}) was left by the server while it waited for {what}",
                    self.owner
                );
                return Err(Trouble::Broken(text));
            }
            if self.received.len() > before {
                return Ok(());
            }
            if self.world.ledger.is_abandoned(self.owner) {
                let text = format!("an answer to {} was refused", self.owner);
                return Err(Trouble::Broken(text));
            }
            if Instant::now() > end {
                let text = format!("{} waits in vain for {what}", self.owner);
                return Err(Trouble::Wrong(text));
            }
        }
    }

    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes bytes that have been looked at.
    pub fn consume(&mut self, len: usize) {
        self.received.drain(..len);
    }

    fn take(&mut self, len: usize, what: &str) -> Result<Vec<u8>, Trouble> {
        while self.received.len() < len {
            self.more(what)?;
        }
        Ok(self.received.drain(..len).collect())
    }

    fn line(&mut self, what: &str) -> Result<String, Trouble> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.received, b"\r\n") {
                let line = self.take(at + 2, what)?;
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more(what)?;
        }
    }

    /// Reads the head of an answer: its status, and the values of the fields that frame it.
    pub fn head(&mut self, what: &str) -> Result<(u16, Framing), Trouble> {
        let line = self.line(what)?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status
            .ok_or_else(|| Trouble::Wrong(format!("{} got {line:?} for {what}", self.owner)))?;
        let mut framing = Framing::End;
        loop {
            let line = self.line(what)?;
            if line.is_empty() {
                return Ok((status, framing));
            }
            let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("Content-Length") {
                framing = Framing::Length(value.parse().map_err(|_| Trouble::Wrong(line.clone()))?);
            } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
                framing = Framing::Chunks;
            } else if name.eq_ignore_ascii_case("Sec-WebSocket-Extensions") {
                framing = Framing::Compressed;
            }
        }
    }

    /// Reads the next answer.
    pub fn answer(&mut self, what: &str) -> Result<Answer, Trouble> {
        let (status, framing) = self.head(what)?;
        let body = match framing {
            Framing::Length(len) => self.take(len, what)?,
            Framing::Chunks => {
                let mut body = Vec::new();
                loop {
                    let line = self.line(what)?;
                    let len = usize::from_str_radix(&line, 16).map_err(|_| {
                        Trouble::Wrong(format!("{}: a chunk of {line:?} in {what}", self.owner))
                    })?;
                    body.extend(self.take(len, what)?);
                    let end = self.take(2, what)?;
                    if end != b"\r\n" {
                        let text = format!("{}: a chunk without its end in {what}", self.owner);
                        return Err(Trouble::Wrong(text));
                    }
                    if len == 0 {
                        break body;
                    }
                }
            }
            Framing::End | Framing::Compressed => {
                let mut end = Instant::now() + PATIENCE;
                loop {
                    let before = self.received.len();
                    if !self.glance()? {
                        break std::mem::take(&mut self.received);
                    }
                    if self.received.len() > before {
                        end = Instant::now() + PATIENCE;
                    }
                    if Instant::now() > end {
                        let text = format!("{}: {what} has no end", self.owner);
                        return Err(Trouble::Wrong(text));
                    }
                }
            }
        };
        Ok(Answer { status, body })
    }

    /// Takes a frame of the server, if it is whole: its first byte and its payload.
    pub fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, Trouble> {
        let bytes = &self.received;
        let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        let number = |range: std::ops::Range<usize>| {
            let bytes = bytes.get(range)?.iter();
            Some(bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
        };
        let sized = match second {
            126 => number(2..4).map(|len| (4, len)),
            127 => number(2..10).map(|len| (10, len)),
            len if *len < 126 => Some((2, usize::from(*len))),
            _ => return Err(Trouble::Wrong(format!("{} got a masked frame", self.owner))),
        };
        let Some((start, len)) = sized else { return Ok(None) };
        if len > 1 << 24 {
            return Err(Trouble::Wrong(format!("{} got a frame of {len} bytes", self.owner)));
        }
        if bytes.len() < start + len {
            return Ok(None);
        }
        let frame = (*first, bytes[start..start + len].to_vec());
        self.consume(start + len);
        Ok(Some(frame))
    }

    /// Leaves by a reset.
    pub fn reset(self) {
        let socket = self.stream.socket();
        rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Sends no more.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }
}

/// How an answer ends.
#[derive(PartialEq)]
pub enum Framing {
    End,
    Length(usize),
    Chunks,
    /// Of a websocket, whose messages may be compressed.
    Compressed,
}

/// Clients that speak TLS with whomever they meet.
#[cfg(feature = "tls")]
mod sealed {
    use super::Stream;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    };
    use std::net::TcpStream;
    use std::sync::{Arc, OnceLock};

    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// All clients share tickets, as those of one browser do.
    pub fn sealed(stream: TcpStream) -> Stream {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let config = CONFIG.get_or_init(|| {
            let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
            Arc::new(config)
        });
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config.clone(), name).expect("a session");
        Stream::Tls(Box::new(StreamOwned::new(session, stream)))
    }
}
