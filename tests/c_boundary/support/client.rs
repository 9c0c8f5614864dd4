//! A small HTTP client that shows bytes, not a browser: it sends what it is given.

use super::{deadline, shown};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// One connection to a server.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    was_reset: bool,
}

/// One answer, taken apart.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and header fields, without the empty line.
    pub head: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header field; `None` where it is absent. It must not be there twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice in\n{}", self.head);
        value
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Connects over IPv4.
    pub fn connect(port: u16) -> Client {
        Client::connect_to(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    /// Connects over IPv6.
    pub fn connect6(port: u16) -> Client {
        Client::connect_to(IpAddr::V6(Ipv6Addr::LOCALHOST), port)
    }

    /// Connects to an address of this machine.
    pub fn connect_to(address: IpAddr, port: u16) -> Client {
        let address = SocketAddr::new(address, port);
        let stream = TcpStream::connect_timeout(&address, deadline())
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        Client::of(stream)
    }

    fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(deadline())).expect("a read deadline");
        stream.set_write_timeout(Some(deadline())).expect("a write deadline");
        Client { stream, received: Vec::new(), was_reset: false }
    }

    /// Connects over IPv4 from this address of the machine.
    pub fn connect_from(source: Ipv4Addr, port: u16) -> Client {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((source, 0))).expect("an address of this machine");
        connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a connection");
        Client::of(socket.into())
    }

    /// Connects to a Unix domain socket; the name of an abstract one begins with `@`.
    pub fn connect_local(name: &str) -> Client {
        let stream = match name.strip_prefix('@') {
            Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixStream::connect_addr(&address)),
            None => UnixStream::connect(name),
        };
        let stream = stream.unwrap_or_else(|error| panic!("connect to {name}: {error}"));
        stream.set_read_timeout(Some(deadline())).expect("a read deadline");
        stream.set_write_timeout(Some(deadline())).expect("a write deadline");
        // What is done with it is the same for all streams.
        let stream = TcpStream::from(OwnedFd::from(stream));
        Client { stream, received: Vec::new(), was_reset: false }
    }

    /// Another handle to the same connection, that only sends.
    pub fn sender(&self) -> impl Write + Send + use<> {
        self.stream.try_clone().expect("another handle")
    }

    /// The client's own port.
    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().expect("an address").port()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.stream.write_all(bytes.as_ref()).expect("the server takes the bytes");
        self
    }

    /// Sends bytes, and waits until the server's socket has them: what another connection sends from
    /// now on comes behind them, and a turn that begins now finds them. (A kernel that is busy delivers what
    /// was sent some time later, also on one machine.)
    pub fn send_through(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.send(bytes);
        until_arrived(&self.stream);
        self
    }

    /// The same for as long as the server takes bytes: it may have closed already.
    pub fn try_send_through(&mut self, bytes: impl AsRef<[u8]>) {
        if self.try_send(bytes) {
            until_arrived(&self.stream);
        }
    }

    /// Sends bytes for as long as the server takes them: it may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends `bytes` again and again until the server has stopped reading; how much it took.
    pub fn send_until_stuck(&mut self, bytes: &[u8]) -> usize {
        let patience = deadline() / 120;
        self.stream.set_write_timeout(Some(patience)).expect("a write deadline");
        let mut sent = 0;
        while sent < 1 << 30 {
            match self.stream.write(&bytes[sent % bytes.len()..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.set_write_timeout(Some(deadline())).expect("a write deadline");
                    return sent;
                }
                Err(error) => panic!("after {sent} bytes: {error}"),
            }
        }
        panic!("the server takes everything");
    }

    /// Shuts the sending side.
    pub fn finish_sending(&mut self) -> &mut Client {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Reads one answer, whatever delimits it.
    pub fn response(&mut self) -> Response {
        self.read_response(true)
    }

    /// Reads one answer that has no body, as the answer to HEAD has not.
    pub fn response_without_body(&mut self) -> Response {
        self.read_response(false)
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).response()
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) -> &mut Client {
        let wanted = wanted.as_ref();
        while self.received.len() < wanted.len() && wanted.starts_with(&self.received) {
            if !self.read_more("the expected bytes") {
                break;
            }
        }
        let len = wanted.len().min(self.received.len());
        let found: Vec<u8> = self.received.drain(..len).collect();
        assert!(found == wanted, "expected\n{}\ngot\n{}", shown(wanted), shown(&found));
        self
    }

    /// The server has closed, orderly, and has sent nothing more.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "expected the end, got\n{}", shown(&rest));
    }

    /// Reads up to the end. The end must be an orderly one, without a reset.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.rest_or_reset();
        assert!(!self.was_reset, "connection reset after\n{}", shown(&rest));
        rest
    }

    /// Reads up to the end, be it a reset.
    pub fn rest_or_reset(&mut self) -> Vec<u8> {
        while self.read_more("the end of the connection") {}
        std::mem::take(&mut self.received)
    }

    /// The same, and whether it was one.
    pub fn rest_and_end(&mut self) -> (Vec<u8>, bool) {
        (self.rest_or_reset(), self.was_reset)
    }

    /// Waits until `len` bytes have arrived and gives them, or fewer at the end.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() < len && self.read_more("more bytes") {}
        let len = len.min(self.received.len());
        self.received.drain(..len).collect()
    }

    /// Reads what has arrived, however little it is, and what arrives meanwhile.
    pub fn take_what_is_there(&mut self) -> Vec<u8> {
        while self.has_news_from_socket() && self.read_more("more bytes") {}
        std::mem::take(&mut self.received)
    }

    /// Whether bytes have arrived, or the end.
    pub fn has_news(&self) -> bool {
        !self.received.is_empty() || self.has_news_from_socket()
    }

    fn has_news_from_socket(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket that does not wait");
        let news = self.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
        self.stream.set_nonblocking(false).expect("a socket that waits");
        news
    }

    /// Reads through the next `end`, and gives everything up to and with it.
    pub fn take_through(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.received, end.as_bytes()) {
                let taken: Vec<u8> = self.received.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let more = self.read_more(end);
            assert!(more, "no {end:?} in\n{}", shown(&self.received));
        }
    }

    /// Waits that long for bytes; whether there are some, or the end.
    pub fn has_news_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a read deadline");
        let news = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(Some(deadline())).expect("a read deadline");
        news || !self.received.is_empty()
    }

    /// Makes the close of this socket a reset.
    pub fn reset(self) {
        // Dropping a socket with unread input resets; a zero linger does so in every case.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and `linger` is valid for `len` bytes.
        let done = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                len,
            )
        };
        assert_eq!(done, 0, "SO_LINGER");
    }

    fn read_response(&mut self, has_body: bool) -> Response {
        let head = self.take_through("\r\n\r\n");
        let head = head.trim_end_matches("\r\n").to_owned();
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let fields = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut response = Response { status, head, fields, body: Vec::new() };
        if !has_body || status < 200 || status == 204 || status == 304 {
            return response;
        }
        if response.field("Transfer-Encoding") == Some("chunked") {
            response.body = self.read_chunks();
        } else if let Some(len) = response.field("Content-Length") {
            let len = len.parse().unwrap_or_else(|_| panic!("length {len:?}"));
            response.body = self.take(len);
            assert_eq!(response.body.len(), len, "the body is cut:\n{}", response.head);
        } else {
            response.body = self.rest();
        }
        response
    }

    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.take_through("\r\n");
            let len = usize::from_str_radix(line.trim_end(), 16)
                .unwrap_or_else(|_| panic!("chunk size {line:?}"));
            body.extend(self.take(len));
            self.expect("\r\n");
            if len == 0 {
                return body;
            }
        }
    }

    fn read_more(&mut self, what: &str) -> bool {
        let mut buf = [0; 65536];
        match self.stream.read(&mut buf) {
            Ok(len) => {
                self.received.extend_from_slice(&buf[..len]);
                len > 0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("waited in vain for {what}, have\n{}", shown(&self.received))
            }
            Err(_) => {
                self.was_reset = true;
                false
            }
        }
    }
}

/// Sends all of `bytes`, shuts the sending side, and gives all that comes back.
#[track_caller]
pub fn exchange(port: u16, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut client = Client::connect(port);
    client.try_send(bytes);
    client.finish_sending();
    client.rest()
}

/// Waits until the other side's socket has all that was sent, or the connection is over.
pub fn until_arrived(stream: &TcpStream) {
    let end = Instant::now() + deadline();
    loop {
        let mut unconfirmed: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the call writes an int.
        let asked =
            unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unconfirmed) };
        assert_eq!(asked, 0, "TIOCOUTQ");
        let mut polled = [PollFd::new(stream, PollFlags::empty())];
        let is_over = rustix::event::poll(&mut polled, Some(&Timespec::default())) == Ok(1);
        if unconfirmed == 0 || is_over {
            return;
        }
        assert!(Instant::now() < end, "the server's socket does not take {unconfirmed} bytes");
        std::thread::yield_now();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
