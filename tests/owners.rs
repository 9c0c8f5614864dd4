//! A promise, rather than rules: whatever requests, closes, upgrades, walks, ends of servers and writes that
//! come too late there are, and in whichever order, no byte reaches anybody but whom it is for.
//!
//! Every byte that the program here writes stands in a name, of the client and of the request that it
//! is for, and each client looks at the names that it gets. What the library says it has queued
//! has to arrive, too, unless the connection ends.
//!
//! `PROPTEST_CASES=100000` looks at so many random worlds.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongoose::abi::{mg_connection, mg_server};
use mongoose::ffi::connection::{
    mg_send_data, mg_send_header, mg_send_status, mg_websocket_write, mg_write,
};
use mongoose::ffi::server::{
    mg_add_uri_handler, mg_create_server, mg_destroy_server, mg_get_option,
    mg_iterate_over_connections, mg_poll_server, mg_set_http_error_handler, mg_set_option,
};
use proptest::prelude::*;

/// The time after which what has not come is lost. Turns do not tell: thousands of them are made in the time
/// that a busy kernel takes to deliver something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection as the program remembers it, for ever: for whom it was, and which request.
#[derive(Clone, Copy)]
struct Seen {
    conn: *mut mg_connection,
    client: usize,
    request: usize,
}
// SAFETY: such pointers may be used by any thread at any time; that is what is tested.
unsafe impl Send for Seen {}

/// What the handlers know.
#[derive(Default)]
struct Program {
    seen: Vec<Seen>,
    /// What another thread writes while the next handler runs: of `seen`, and how.
    meanwhile: Vec<(usize, How)>,
    /// Names that were queued, by the library's own word.
    accepted: HashMap<usize, usize>,
}

static PROGRAM: Mutex<Option<Program>> = Mutex::new(None);

fn program() -> MutexGuard<'static, Option<Program>> {
    PROGRAM.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_program<R>(body: impl FnOnce(&mut Program) -> R) -> R {
    body(program().get_or_insert_default())
}

/// How the program writes.
#[derive(Clone, Copy, Debug)]
enum How {
    Answer,
    Event,
    Frame,
    /// By the functions of the polling thread, if it is that.
    Data,
}

fn name(seen: Seen) -> String {
    format!("<{}/{}>", seen.client, seen.request)
}

/// Writes a name to the connection that it belongs to, or belonged to. `counts`: what is queued has to
/// arrive. While a handler runs that cannot be asked for, since it may complete the answer itself.
fn write(seen: Seen, how: How, counts: bool) {
    let name = name(seen);
    let text = match how {
        How::Answer => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
        }
        How::Event => format!("data: {name}\n\n"),
        How::Frame | How::Data => name,
    };
    let (data, len) = (text.as_ptr(), text.len());
    // SAFETY: pointers that a handler was given, and text of that length.
    let queued = unsafe {
        match how {
            How::Answer | How::Event => mg_write(seen.conn, data.cast(), len as c_int) > 0,
            How::Frame => mg_websocket_write(seen.conn, 1, data.cast(), len) > 0,
            How::Data => {
                mg_send_data(seen.conn, data.cast(), len as c_int);
                mg_send_data(seen.conn, data.cast(), 0);
                // It does not say what became of it.
                return;
            }
        }
    };
    if queued && counts {
        with_program(|program| *program.accepted.entry(seen.client).or_default() += 1);
    }
}

/// Notes whom a handler was called for: `?CLIENT/REQUEST`.
fn note(conn: *mut mg_connection) -> Option<Seen> {
    // SAFETY: the library shows a valid structure to a handler.
    let query = unsafe { (*conn).query_string };
    if query.is_null() {
        return None;
    }
    // SAFETY: as above.
    let query = unsafe { CStr::from_ptr(query) }.to_str().expect("what the client sent");
    let (client, request) = query.split_once('/').expect("what the client sent");
    let client = client.parse().expect("a number");
    let seen = Seen { conn, client, request: request.parse().expect("a number") };
    let meanwhile = with_program(|program| {
        program.seen.push(seen);
        std::mem::take(&mut program.meanwhile)
    });
    for (which, how) in meanwhile {
        from_another_thread(which, how, false);
    }
    Some(seen)
}

fn from_another_thread(which: usize, how: How, counts: bool) {
    if let Some(seen) = pick(which) {
        let thread = std::thread::spawn(move || {
            let seen = seen;
            write(seen, how, counts);
        });
        thread.join().expect("no panic");
    }
}

fn pick(which: usize) -> Option<Seen> {
    with_program(|program| {
        let count = program.seen.len();
        // Mostly of late, sometimes of old.
        let back = if which.is_multiple_of(4) { which } else { which % 8 };
        (count > 0).then(|| program.seen[count - 1 - back % count])
    })
}

unsafe extern "C-unwind" fn silent(conn: *mut mg_connection) -> c_int {
    note(conn);
    1
}

unsafe extern "C-unwind" fn at_once(conn: *mut mg_connection) -> c_int {
    if let Some(seen) = note(conn) {
        write(seen, How::Answer, false);
    }
    1
}

unsafe extern "C-unwind" fn stream(conn: *mut mg_connection) -> c_int {
    if let Some(seen) = note(conn) {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        // SAFETY: the connection of this handler.
        unsafe { mg_write(conn, head.as_ptr().cast(), head.len() as c_int) };
        write(seen, How::Event, false);
    }
    1
}

unsafe extern "C-unwind" fn data(conn: *mut mg_connection) -> c_int {
    if let Some(seen) = note(conn) {
        let name = name(seen);
        // SAFETY: the connection of this handler, and C strings.
        unsafe {
            mg_send_status(conn, 201);
            mg_send_header(conn, c"X-Name".as_ptr(), CString::new(&*name).expect("text").as_ptr());
            mg_send_data(conn, name.as_ptr().cast(), name.len() as c_int);
        }
    }
    1
}

/// Of websockets: each message is echoed with the name of the handshake.
unsafe extern "C-unwind" fn websocket(conn: *mut mg_connection) -> c_int {
    if let Some(seen) = note(conn) {
        // SAFETY: the library shows a valid structure.
        let how = match unsafe { (*conn).is_websocket } {
            0 => How::Answer,
            _ => How::Frame,
        };
        write(seen, how, false);
    }
    0
}

unsafe extern "C-unwind" fn error(conn: *mut mg_connection) -> c_int {
    note(conn);
    0
}

/// Walks over all connections, and writes its own name to each.
unsafe extern "C-unwind" fn visit(conn: *mut mg_connection, _: *mut c_void) {
    // SAFETY: the library shows a valid structure.
    let open = unsafe { !(*conn).query_string.is_null() };
    // Not `note`: what else is to be written is for handlers.
    let known =
        with_program(|program| program.seen.iter().rev().find(|seen| seen.conn == conn).copied());
    if let (true, Some(seen)) = (open, known) {
        // SAFETY: as above.
        write(
            seen,
            if unsafe { (*conn).is_websocket } == 1 { How::Frame } else { How::Event },
            true,
        );
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Connect,
    Ask { client: usize, uri: usize, method: usize, version: usize },
    Message { client: usize },
    Leave { client: usize, by_shutdown: bool },
    Poll,
    Write { which: usize, how: How, elsewhere: bool },
    Meanwhile { which: usize, how: How },
    Walk { elsewhere: bool },
    NewServer,
}

fn event() -> impl Strategy<Value = Event> {
    let how = prop_oneof![Just(How::Answer), Just(How::Event), Just(How::Frame), Just(How::Data)];
    prop_oneof![
        4 => Just(Event::Connect),
        12 => (any::<usize>(), 0..7_usize, 0..3_usize, 0..4_usize).prop_map(
            |(client, uri, method, version)| Event::Ask { client, uri, method, version }
        ),
        3 => any::<usize>().prop_map(|client| Event::Message { client }),
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(client, by_shutdown)| Event::Leave { client, by_shutdown }),
        12 => Just(Event::Poll),
        16 => (any::<usize>(), how.clone(), any::<bool>())
            .prop_map(|(which, how, elsewhere)| Event::Write { which, how, elsewhere }),
        4 => (any::<usize>(), how).prop_map(|(which, how)| Event::Meanwhile { which, how }),
        2 => any::<bool>().prop_map(|elsewhere| Event::Walk { elsewhere }),
        1 => Just(Event::NewServer),
    ]
}

struct Client {
    number: usize,
    stream: TcpStream,
    received: Vec<u8>,
    requests: usize,
    ended: bool,
}

struct World {
    server: *mut mg_server,
    address: SocketAddr,
    clients: Vec<Client>,
    /// Of all clients, also those that have left.
    connected: usize,
}

impl World {
    fn new() -> Self {
        *program() = None;
        let (server, address) = new_server();
        World { server, address, clients: Vec::new(), connected: 0 }
    }

    fn client(&mut self, which: usize) -> Option<&mut Client> {
        let count = self.clients.len();
        (count > 0).then(|| &mut self.clients[which % count])
    }

    fn go_on(&mut self, event: &Event) {
        match *event {
            Event::Connect => self.connect(),
            Event::Ask { client, uri, method, version } => {
                if let Some(client) = self.client(client) {
                    client.ask(uri, method, version);
                }
            }
            Event::Message { client } => {
                if let Some(client) = self.client(client) {
                    client.send(b"\x81\x82\0\0\0\0hi");
                }
            }
            Event::Leave { client, by_shutdown } => {
                let count = self.clients.len();
                if by_shutdown && let Some(client) = self.client(client) {
                    let _ = client.stream.shutdown(Shutdown::Write);
                } else if count > 0 {
                    self.clients.swap_remove(client % count);
                }
            }
            Event::Poll => self.poll(),
            Event::Write { which, how, elsewhere: true } if !matches!(how, How::Data) => {
                from_another_thread(which, how, true);
            }
            Event::Write { which, how, .. } => {
                if let Some(seen) = pick(which) {
                    write(seen, how, true);
                }
            }
            Event::Meanwhile { which, how } => {
                with_program(|program| program.meanwhile.push((which, how)));
            }
            Event::Walk { elsewhere } => self.walk(elsewhere),
            Event::NewServer => {
                // SAFETY: from `mg_create_server`.
                unsafe { mg_destroy_server(&raw mut self.server) };
                (self.server, self.address) = new_server();
            }
        }
    }

    fn connect(&mut self) {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("no delay");
        let number = self.connected;
        self.connected += 1;
        self.clients.push(Client {
            number,
            stream,
            received: Vec::new(),
            requests: 0,
            ended: false,
        });
    }

    fn poll(&mut self) {
        // SAFETY: from `mg_create_server`.
        unsafe { mg_poll_server(self.server, 0) };
        for client in &mut self.clients {
            client.receive();
        }
    }

    fn walk(&mut self, elsewhere: bool) {
        if !elsewhere {
            // SAFETY: from `mg_create_server`.
            unsafe { mg_iterate_over_connections(self.server, Some(visit), std::ptr::null_mut()) };
            return;
        }
        let server = self.server.expose_provenance();
        let thread = std::thread::spawn(move || {
            let server = std::ptr::with_exposed_provenance_mut(server);
            // SAFETY: as above; this function may be called by any thread.
            unsafe { mg_iterate_over_connections(server, Some(visit), std::ptr::null_mut()) }
        });
        while !thread.is_finished() {
            self.poll();
        }
        thread.join().expect("no panic");
    }

    /// Waits until nothing more comes, and looks at what has come.
    fn check(mut self) {
        let mut quiet = 0;
        let end = Instant::now() + PATIENCE;
        loop {
            let before: usize = self.clients.iter().map(|client| client.received.len()).sum();
            self.poll();
            let after: usize = self.clients.iter().map(|client| client.received.len()).sum();
            let lacks = self.clients.iter().find(|client| !client.has_all());
            quiet = if before == after && lacks.is_none() { quiet + 1 } else { 0 };
            if quiet == 3 {
                break;
            }
            let what = lacks.map(|client| (client.number, client.received.escape_ascii()));
            assert!(Instant::now() < end, "does not end; lost: {what:?}");
            std::thread::yield_now();
        }
        for client in &self.clients {
            client.look();
        }
        // SAFETY: from `mg_create_server`.
        unsafe { mg_destroy_server(&raw mut self.server) };
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        // Few bytes; where the server has ended the connection, they are lost.
        let _ = self.stream.write(bytes);
    }

    fn ask(&mut self, uri: usize, method: usize, version: usize) {
        let uri = ["/silent", "/now", "/stream", "/data", "/ws", "/none", "/ws"][uri];
        let method = ["GET", "GET", "POST"][method];
        let (version, fields) =
            [("1.1", ""), ("1.1", ""), ("1.0", ""), ("1.1", "Connection: close\r\n")][version];
        let upgrade = match uri {
            "/ws" => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            _ => fields,
        };
        let (number, request) = (self.number, self.requests);
        self.requests += 1;
        let text = format!("{method} {uri}?{number}/{request} HTTP/{version}\r\n{upgrade}\r\n");
        self.send(text.as_bytes());
    }

    fn receive(&mut self) {
        let mut buf = [0; 4096];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => break self.ended = true,
                Ok(count) => self.received.extend_from_slice(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break self.ended = true,
            }
        }
    }

    /// The names that have come.
    fn names(&self) -> Vec<(usize, usize)> {
        let text = String::from_utf8_lossy(&self.received);
        let number = |text: &str| text.parse().expect("a number");
        text.split('<')
            .skip(1)
            .map(|rest| rest.split_once('>').expect("a whole name").0)
            .map(|name| name.split_once('/').expect("a name"))
            .map(|(client, request)| (number(client), number(request)))
            .collect()
    }

    /// Whether all is there that was queued for it.
    fn has_all(&self) -> bool {
        let accepted = with_program(|program| program.accepted.get(&self.number).copied());
        self.ended || self.names().len() >= accepted.unwrap_or_default()
    }

    fn look(&self) {
        for (client, request) in self.names() {
            assert_eq!(client, self.number, "client {} got {client}/{request}", self.number);
            assert!(request < self.requests, "{} was never asked", request);
        }
    }
}

fn new_server() -> (*mut mg_server, SocketAddr) {
    // SAFETY: pointers from the library, and C strings.
    unsafe {
        let server = mg_create_server(std::ptr::null_mut());
        for (name, value) in [(c"listening_port", c"127.0.0.1:0"), (c"iterate_over", c"all")] {
            assert!(mg_set_option(server, name.as_ptr(), value.as_ptr()).is_null());
        }
        let handlers: [(_, unsafe extern "C-unwind" fn(_) -> _); 5] = [
            (c"/silent", silent),
            (c"/now", at_once),
            (c"/stream", stream),
            (c"/data", data),
            (c"/ws", websocket),
        ];
        for (uri, handler) in handlers {
            mg_add_uri_handler(server, uri.as_ptr(), Some(handler));
        }
        mg_set_http_error_handler(server, Some(error));
        let bound: *const c_char = mg_get_option(server, c"listening_port".as_ptr());
        let address = CStr::from_ptr(bound).to_str().ok().and_then(|text| text.parse().ok());
        (server, address.expect("an address"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn no_byte_reaches_anybody_but_whom_it_is_for(
        events in proptest::collection::vec(event(), 20..200)
    ) {
        let mut world = World::new();
        for _ in 0..3 {
            world.connect();
        }
        for event in &events {
            world.go_on(event);
        }
        world.check();
    }
}
