//! A client that takes everything that may come of a request: an answer, a cut one, or none. It judges nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long a client waits: who waits longer has been forgotten.
pub fn patience() -> Duration {
    let named = std::env::var("MG_INJECT_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(named.unwrap_or(20))
}

/// A complete answer, or a message of a websocket (with status 0).
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field; "" where it is absent.
    pub fn field(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        values.next().map_or("", |(_, value)| value)
    }
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Seen {
    Answer(Answer),
    /// The connection ended before the answer did; what came of it.
    Cut(String),
    /// Nothing came in time; what came before.
    Nothing(String),
    /// What is no answer.
    Nonsense(String),
}

enum Stream {
    Plain(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection to the server.
pub struct Peer {
    stream: Stream,
    received: Vec<u8>,
}

/// What has gone wrong in a read: `Seen` without what came before.
enum Trouble {
    Cut,
    Nothing,
    Nonsense(String),
}

type Taken<T> = Result<T, Trouble>;

impl Peer {
    /// Connects; the kernel does so for a server that does not accept yet.
    pub fn open(port: u16) -> Option<Peer> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, patience()).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(patience())).ok()?;
        stream.set_write_timeout(Some(patience())).ok()?;
        Some(Peer { stream: Stream::Plain(stream), received: Vec::new() })
    }

    /// Speaks TLS from now on; the handshake goes with the first bytes.
    pub fn sealed(self, config: Arc<ClientConfig>) -> Option<Peer> {
        let Stream::Plain(stream) = self.stream else { return None };
        let name = "localhost".try_into().ok()?;
        let session = ClientConnection::new(config, name).ok()?;
        let stream = Stream::Sealed(Box::new(StreamOwned::new(session, stream)));
        Some(Peer { stream, received: Vec::new() })
    }

    pub fn local_port(&self) -> u16 {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Sealed(sealed) => &sealed.sock,
        };
        stream.local_addr().map_or(0, |address| address.port())
    }

    /// Sends what the server takes: it may have closed already, and what it said is still to be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Peer {
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes.as_ref()),
            Stream::Sealed(sealed) => {
                sealed.write_all(bytes.as_ref()).and_then(|()| sealed.flush())
            }
        };
        self
    }

    fn receive(&mut self) -> Taken<()> {
        let mut buf = [0; 16384];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut buf),
            Stream::Sealed(sealed) => sealed.read(&mut buf),
        };
        match read {
            Ok(0) => Err(Trouble::Cut),
            Ok(len) => {
                self.received.extend_from_slice(&buf[..len]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Trouble::Nothing),
                ErrorKind::InvalidData => Err(Trouble::Nonsense(error.to_string())),
                _ => Err(Trouble::Cut),
            },
        }
    }

    fn take(&mut self, len: usize) -> Taken<Vec<u8>> {
        while self.received.len() < len {
            self.receive()?;
        }
        Ok(self.received.drain(..len).collect())
    }

    fn take_through(&mut self, end: &str) -> Taken<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.received, end.as_bytes()) {
                let bytes = self.take(at + end.len())?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            self.receive()?;
        }
    }

    fn take_answer(&mut self, is_head: bool) -> Taken<Answer> {
        let head = self.take_through("\r\n\r\n")?;
        let nonsense = || Trouble::Nonsense(head.clone());
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status: u16 = status.and_then(|text| text.parse().ok()).ok_or_else(nonsense)?;
        if status == 100 {
            return self.take_answer(is_head);
        }
        let mut answer = Answer { status, head, body: Vec::new() };
        if is_head || status == 204 || status == 304 || status == 101 {
            return Ok(answer);
        }
        if answer.field("Transfer-Encoding") == "chunked" {
            loop {
                let line = self.take_through("\r\n")?;
                let len = usize::from_str_radix(line.trim_end(), 16)
                    .map_err(|_| Trouble::Nonsense(format!("a chunk of {line:?}")))?;
                let chunk = self.take(len + 2)?;
                if len == 0 {
                    return Ok(answer);
                }
                answer.body.extend_from_slice(&chunk[..len]);
            }
        }
        match answer.field("Content-Length").parse() {
            Ok(len) => answer.body = self.take(len)?,
            Err(_) => {
                let end = loop {
                    if let Err(trouble) = self.receive() {
                        break trouble;
                    }
                };
                match end {
                    Trouble::Cut => answer.body = std::mem::take(&mut self.received),
                    trouble => return Err(trouble),
                }
            }
        }
        Ok(answer)
    }

    fn take_frame(&mut self) -> Taken<Answer> {
        let head = self.take(2)?;
        let len = match head[1] {
            126 => {
                let bytes = self.take(2)?;
                usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
            127 => {
                let bytes = self.take(8)?;
                bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
            }
            len => usize::from(len),
        };
        let body = self.take(len)?;
        match head[0] & 15 {
            // A Close goes before an end.
            8 => Err(Trouble::Cut),
            9 | 10 => self.take_frame(),
            _ => Ok(Answer { status: 0, head: format!("{:02x}", head[0]), body }),
        }
    }

    fn seen(&mut self, taken: Taken<Answer>) -> Seen {
        let rest =
            || String::from_utf8_lossy(&self.received[..self.received.len().min(300)]).into();
        match taken {
            Ok(answer) => Seen::Answer(answer),
            Err(Trouble::Cut) => Seen::Cut(rest()),
            Err(Trouble::Nothing) => Seen::Nothing(rest()),
            Err(Trouble::Nonsense(text)) => Seen::Nonsense(text),
        }
    }

    /// The next answer.
    pub fn answer(&mut self) -> Seen {
        let taken = self.take_answer(false);
        self.seen(taken)
    }

    /// The next message of a websocket.
    pub fn message(&mut self) -> Seen {
        let taken = self.take_frame();
        self.seen(taken)
    }

    /// Sends a request; what came of it.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Seen {
        self.send(request).answer()
    }
}
