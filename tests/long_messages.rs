//! The promise of `owners` for messages that take many turns: whatever threads write, walk and leave, each
//! client gets what was queued for it, whole, once, and in the order of each writer.
//!
//! Every byte of a message follows from whom it is for, who wrote it, and its number. Some messages can
//! be compressed and some cannot, some are sent at once and some in shares; clients speak TLS or not,
//! agree on compression or not, read slowly, and leave while they are written to.
//!
//! `PROPTEST_CASES=1000` looks at so many random worlds.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::{Decompress, FlushDecompress};
use mongoose::abi::{mg_connection, mg_server};
use mongoose::ffi::connection::mg_websocket_write;
use mongoose::ffi::server::{
    mg_add_uri_handler, mg_create_server, mg_destroy_server, mg_get_option,
    mg_iterate_over_connections, mg_poll_server, mg_set_option,
};
use proptest::prelude::*;

/// The time without a byte for anybody after which what has not come is lost. Turns do not tell: thousands
/// of them are made in the time that a busy kernel takes to deliver something.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest number of bytes that a client reads between two turns.
const READ_AT_ONCE: usize = 1 << 20;

/// The number of a writer: threads, the one that polls, and one that walks.
const THREADS: usize = 3;
const POLLING: usize = 3;
const WALKING: usize = 4;

/// A connection as the program remembers it.
#[derive(Clone, Copy)]
struct Seen {
    conn: *mut mg_connection,
    client: usize,
}
// SAFETY: such pointers may be used by any thread at any time; that is what is tested.
unsafe impl Send for Seen {}

/// What was queued for a client by a writer: numbers of messages.
type Queued = HashMap<(usize, usize), Vec<u32>>;

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
static QUEUED: Mutex<Option<Queued>> = Mutex::new(None);
/// The number of the next message of each writer.
static NUMBERS: [AtomicU32; 5] = [const { AtomicU32::new(0) }; 5];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a writer does.
#[derive(Clone, Copy, Debug)]
struct Order {
    which: usize,
    len: usize,
    is_noise: bool,
}

/// The content of a message. All recipients of a walk get the same one, for which `client` is 0.
fn content(client: usize, writer: usize, number: u32, len: usize, is_noise: bool) -> Vec<u8> {
    let mut bytes = format!("<{client}/{writer}/{number}/{len}/{is_noise}>").into_bytes();
    let mut state = (client as u64) << 40 | (writer as u64) << 36 | u64::from(number) << 4 | 1;
    let name = bytes.clone();
    bytes.reserve(len + 8);
    while bytes.len() < len {
        if is_noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        } else {
            bytes.extend(&name);
        }
    }
    bytes.truncate(len.max(name.len()));
    bytes
}

/// Writes a message, and notes it if it was queued. One writer never runs twice at a time.
fn write(seen: Seen, client: usize, writer: usize, number: u32, order: Order) {
    let content = content(client, writer, number, order.len, order.is_noise);
    // SAFETY: a pointer that a handler was given, and bytes of that length.
    let written =
        unsafe { mg_websocket_write(seen.conn, 2, content.as_ptr().cast(), content.len()) };
    if written > 0 {
        let mut queued = lock(&QUEUED);
        let queued = queued.get_or_insert_default();
        queued.entry((seen.client, writer)).or_default().push(number);
    }
}

fn write_to_any(writer: usize, order: Order) {
    let seen = {
        let seen = lock(&SEEN);
        (!seen.is_empty()).then(|| seen[order.which % seen.len()])
    };
    if let Some(seen) = seen {
        let number = NUMBERS[writer].fetch_add(1, Ordering::Relaxed);
        write(seen, seen.client, writer, number, order);
    }
}

/// Each message of a client tells its number.
unsafe extern "C-unwind" fn note(conn: *mut mg_connection) -> c_int {
    // SAFETY: the library shows a valid structure to a handler.
    let (is_websocket, query) = unsafe { ((*conn).is_websocket, (*conn).query_string) };
    if is_websocket == 1 && !query.is_null() {
        // SAFETY: as above.
        let query = unsafe { CStr::from_ptr(query) }.to_str().expect("what the client sent");
        lock(&SEEN).push(Seen { conn, client: query.parse().expect("a number") });
    }
    0
}

struct Walk {
    number: u32,
    order: Order,
}

unsafe extern "C-unwind" fn visit(conn: *mut mg_connection, param: *mut c_void) {
    // SAFETY: the walk is on the stack of the thread that waits.
    let walk = unsafe { &*param.cast::<Walk>() };
    // SAFETY: the library shows a valid structure.
    let query = unsafe { (*conn).query_string };
    if !query.is_null() {
        // SAFETY: as above.
        let query = unsafe { CStr::from_ptr(query) }.to_str().expect("what the client sent");
        let seen = Seen { conn, client: query.parse().expect("a number") };
        write(seen, 0, WALKING, walk.number, walk.order);
    }
}

fn walk_over_all(server: usize, order: Order) {
    let number = NUMBERS[WALKING].fetch_add(1, Ordering::Relaxed);
    let mut walk = Walk { number, order };
    let server: *mut mg_server = std::ptr::with_exposed_provenance_mut(server);
    // SAFETY: from `mg_create_server`; this function may be called by any thread.
    unsafe { mg_iterate_over_connections(server, Some(visit), (&raw mut walk).cast()) };
}

struct Client {
    number: usize,
    stream: Stream,
    received: Vec<u8>,
    /// Set once the answer to the handshake has come.
    is_open: bool,
    /// The last message of each writer, and all messages.
    last: [Option<u32>; 5],
    seen: HashSet<(usize, u32)>,
    /// The bytes that it reads between two turns.
    pace: usize,
}

enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buf),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            // What the session keeps is sent as the client reads.
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.conn.writer().write_all(bytes),
        };
        written.expect("few bytes");
    }
}

impl Client {
    fn new(
        (address, is_secure): (SocketAddr, bool),
        number: usize,
        deflates: bool,
        pace: usize,
    ) -> Client {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("no delay");
        let mut stream = match is_secure {
            true => sealed(stream),
            false => Stream::Plain(stream),
        };
        let extension = match deflates {
            true => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            false => "",
        };
        stream.write(
            format!(
                "GET /ws?{number} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 {extension}\r\n"
            )
            .as_bytes(),
        );
        stream.write(b"\x81\x82\0\0\0\0hi");
        Client {
            number,
            stream,
            received: Vec::new(),
            is_open: false,
            last: [None; 5],
            seen: HashSet::new(),
            pace,
        }
    }

    /// Reads a share, and looks at what is complete. Returns the number of bytes.
    fn receive(&mut self) -> usize {
        let before = self.received.len();
        let mut buf = vec![0; 64 << 10];
        while self.received.len() - before < self.pace {
            match self.stream.read(&mut buf) {
                Ok(0) => panic!("client {} was left", self.number),
                Ok(count) => self.received.extend_from_slice(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("client {}: {error}", self.number),
            }
        }
        let count = self.received.len() - before;
        let mut at = 0;
        if !self.is_open
            && let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n")
        {
            assert!(self.received.starts_with(b"HTTP/1.1 101 "));
            self.is_open = true;
            at = end + 4;
        }
        while self.is_open
            && let Some((first, payload)) = frame(&self.received[at..])
        {
            let end = at + payload.end;
            let payload = self.received[at + payload.start..end].to_vec();
            self.look(match first {
                0x82 => payload,
                0xc2 => inflated(&payload),
                _ => panic!("client {} got a frame {first:x}", self.number),
            });
            at = end;
        }
        self.received.drain(..at);
        count
    }

    /// Compares a message with what it is to be.
    fn look(&mut self, message: Vec<u8>) {
        let end = message.iter().position(|byte| *byte == b'>').expect("a name");
        let name = std::str::from_utf8(&message[1..end]).expect("a name");
        let parts: Vec<&str> = name.split('/').collect();
        let [client, writer, number, len, is_noise] = parts[..] else { panic!("{name}") };
        let (client, writer): (usize, usize) =
            (client.parse().expect("a number"), writer.parse().expect("a number"));
        let wanted = if writer == WALKING { 0 } else { self.number };
        assert_eq!(client, wanted, "client {} got {name}", self.number);
        let number: u32 = number.parse().expect("a number");
        let expected =
            content(client, writer, number, len.parse().expect("a number"), is_noise == "true");
        assert!(message == expected, "client {}: {name} is damaged", self.number);
        let last = self.last[writer].replace(number);
        assert!(last < Some(number), "client {}: {name} comes after {last:?}", self.number);
        self.seen.insert((writer, number));
    }

    /// Returns a message that was queued and has not come.
    fn lacks(&self) -> Option<(usize, u32)> {
        let queued = lock(&QUEUED);
        (0..=WALKING).find_map(|writer| {
            let numbers = queued.as_ref()?.get(&(self.number, writer))?;
            let late = numbers.iter().find(|number| !self.seen.contains(&(writer, **number)))?;
            Some((writer, *late))
        })
    }
}

#[cfg(not(feature = "tls"))]
fn sealed(stream: TcpStream) -> Stream {
    Stream::Plain(stream)
}

#[cfg(feature = "tls")]
use sealed::sealed;

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
    use std::sync::Arc;

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

    pub fn sealed(stream: TcpStream) -> Stream {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        Stream::Tls(Box::new(StreamOwned::new(session, stream)))
    }
}

/// Returns the first byte of a frame and the place of its payload, if it is complete.
fn frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (begin, len) = match second {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        len => (2, u64::from(len)),
    };
    let end = begin + usize::try_from(len).expect("a length");
    (bytes.len() >= end).then_some((first, begin..end))
}

/// Inflates a message. No context is taken over from the one before.
fn inflated(payload: &[u8]) -> Vec<u8> {
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut inflater = Decompress::new(false);
    let mut out = Vec::with_capacity(1 << 20);
    while (inflater.total_in() as usize) < input.len() {
        out.reserve(1 << 20);
        let at = inflater.total_in() as usize;
        let before = (inflater.total_in(), inflater.total_out());
        inflater.decompress_vec(&input[at..], &mut out, FlushDecompress::Sync).expect("deflate");
        assert_ne!(before, (inflater.total_in(), inflater.total_out()), "an end inside");
    }
    out
}

fn new_server(is_secure: bool) -> (*mut mg_server, SocketAddr) {
    // SAFETY: pointers from the library, and C strings.
    unsafe {
        let server = mg_create_server(std::ptr::null_mut());
        let certificate = is_secure.then_some(c"fuzz/targets/identity.pem".to_owned());
        let options = [
            (c"listening_port", Some(c"127.0.0.1:0".to_owned())),
            (c"websocket_deflate", Some(c"yes".to_owned())),
            (c"websocket_ping_interval_ms", Some(c"0".to_owned())),
            (c"max_send_queue_bytes", Some(c"20000000".to_owned())),
            (c"ssl_certificate", certificate),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                assert!(mg_set_option(server, name.as_ptr(), value.as_ptr()).is_null(), "{name:?}");
            }
        }
        mg_add_uri_handler(server, c"/ws".as_ptr(), Some(note));
        let bound: *const c_char = mg_get_option(server, c"listening_port".as_ptr());
        let address = CStr::from_ptr(bound).to_str().ok().and_then(|text| text.parse().ok());
        (server, address.expect("an address"))
    }
}

fn order() -> impl Strategy<Value = Order> {
    let len = prop_oneof![
        3 => 40..200_usize,
        3 => 10_000..150_000_usize,
        1 => 200_000..1_200_000_usize,
        1 => 2_000_000..8_000_000_usize,
    ];
    (any::<usize>(), len, any::<bool>()).prop_map(|(which, len, is_noise)| Order {
        which,
        len,
        is_noise,
    })
}

/// What the thread that polls does between two turns.
#[derive(Clone, Debug)]
enum Event {
    Connect { deflates: bool, pace: usize },
    Leave { which: usize },
    Write(Order),
    Turns(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (any::<bool>(), 1_000..READ_AT_ONCE)
            .prop_map(|(deflates, pace)| Event::Connect { deflates, pace }),
        1 => any::<usize>().prop_map(|which| Event::Leave { which }),
        4 => order().prop_map(Event::Write),
        4 => (1..6_usize).prop_map(Event::Turns),
    ]
}

struct World {
    server: *mut mg_server,
    /// The address, and whether TLS is spoken there.
    address: (SocketAddr, bool),
    clients: Vec<Client>,
    connected: usize,
}

impl World {
    fn new(is_secure: bool) -> World {
        lock(&SEEN).clear();
        *lock(&QUEUED) = None;
        let (server, address) = new_server(is_secure);
        World { server, address: (address, is_secure), clients: Vec::new(), connected: 0 }
    }

    fn connect(&mut self, deflates: bool, pace: usize) {
        self.connected += 1;
        self.clients.push(Client::new(self.address, self.connected, deflates, pace));
    }

    /// Returns the number of bytes that have come.
    fn turn(&mut self) -> usize {
        // SAFETY: from `mg_create_server`.
        unsafe { mg_poll_server(self.server, 0) };
        self.clients.iter_mut().map(Client::receive).sum()
    }

    fn go_on(&mut self, event: &Event) {
        match *event {
            Event::Connect { deflates, pace } => self.connect(deflates, pace),
            Event::Leave { which } if self.clients.len() > 2 => {
                self.clients.swap_remove(which % self.clients.len());
            }
            Event::Leave { .. } => {}
            Event::Write(order) => write_to_any(POLLING, order),
            Event::Turns(count) => (0..count).for_each(|_| _ = self.turn()),
        }
    }

    /// Waits until all is there.
    fn finish(&mut self) {
        let mut news = Instant::now();
        while let Some((client, lacks)) =
            self.clients.iter().find_map(|client| Some((client.number, client.lacks()?)))
        {
            if self.turn() > 0 {
                news = Instant::now();
            } else {
                assert!(news.elapsed() < PATIENCE, "client {client} waits in vain for {lacks:?}");
                std::thread::yield_now();
            }
        }
        (0..3).for_each(|_| _ = self.turn());
        for client in &self.clients {
            assert!(client.received.is_empty(), "client {} has a part of a frame", client.number);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]
    #[test]
    fn long_messages_arrive_whole_once_and_in_order(
        events in proptest::collection::vec(event(), 10..40),
        threads in proptest::collection::vec(proptest::collection::vec(order(), 0..12), THREADS),
        walks in proptest::collection::vec(order(), 0..4),
        is_secure in any::<bool>(),
    ) {
        let mut world = World::new(is_secure && cfg!(feature = "tls"));
        for number in 0..4 {
            world.connect(number % 2 == 0, READ_AT_ONCE);
        }
        while lock(&SEEN).len() < 4 {
            world.turn();
        }
        let server = world.server.expose_provenance();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut writers: Vec<_> = threads.iter().enumerate().map(|(writer, orders)| {
                let stop = &stop;
                scope.spawn(move || orders.iter().take_while(|_| !stop.load(Ordering::Relaxed))
                    .for_each(|order| write_to_any(writer, *order)))
            }).collect();
            writers.push(scope.spawn(|| walks.iter().take_while(|_| !stop.load(Ordering::Relaxed))
                .for_each(|order| walk_over_all(server, *order))));
            // A walk waits for this thread, also where it has found a fault.
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                events.iter().for_each(|event| world.go_on(event));
                while writers.iter().any(|writer| !writer.is_finished()) {
                    world.turn();
                }
            }));
            if let Err(found) = found {
                stop.store(true, Ordering::Relaxed);
                while writers.iter().any(|writer| !writer.is_finished()) {
                    // SAFETY: from `mg_create_server`.
                    unsafe { mg_poll_server(world.server, 0) };
                }
                std::panic::resume_unwind(found);
            }
        });
        world.finish();
        // SAFETY: from `mg_create_server`.
        unsafe { mg_destroy_server(&raw mut world.server) };
    }
}
