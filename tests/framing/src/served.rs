//! The same streams, over real connections to a real server, in one piece or in two. The program that it
//! calls sees the requests that `ours.rs` has read, and clients get the answers that `answers.rs` has judged.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use mongoose::abi::{mg_connection, mg_server};
use mongoose::exchange::request::Request;
use mongoose::ffi::connection::mg_write;
use mongoose::ffi::server::{mg_add_uri_handler, mg_create_server, mg_poll_server, mg_set_option};
use mongoose::http::request::Expectation;
use mongoose::http::response::{Answer, RequestFacts};

use crate::answers::{self, End, Written};
use crate::ours::{self, Ours};

/// Polls without news after which a connection that should have ended is stuck.
const PATIENCE: u32 = 100_000;

/// A request as the program sees it: its method, and its content.
type Shown = (Vec<u8>, Vec<u8>);

thread_local! {
    static SHOWN: RefCell<Vec<Shown>> = const { RefCell::new(Vec::new()) };
    static WRITTEN: RefCell<Written> = RefCell::default();
}

unsafe fn write(conn: *mut mg_connection, bytes: &[u8]) {
    // SAFETY: the caller has the connection from the library.
    unsafe { mg_write(conn, bytes.as_ptr().cast(), bytes.len() as c_int) };
}

unsafe extern "C-unwind" fn note(conn: *mut mg_connection) -> c_int {
    // SAFETY: the library shows a valid structure, and `content` is `content_len` bytes long.
    unsafe {
        let method = CStr::from_ptr((*conn).request_method).to_bytes().to_vec();
        let content = (*conn).content.cast::<u8>();
        let content = std::slice::from_raw_parts(content, (*conn).content_len as usize).to_vec();
        SHOWN.with_borrow_mut(|shown| shown.push((method, content)));
        write(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    1
}

/// Writes the answer that is to be tried, but its late pieces.
unsafe extern "C-unwind" fn answer(conn: *mut mg_connection) -> c_int {
    WRITTEN.with_borrow(|written| {
        for piece in written.pieces().take(written.late) {
            // SAFETY: the library shows a valid structure.
            unsafe { write(conn, piece) };
        }
    });
    1
}

unsafe extern "C-unwind" fn next(conn: *mut mg_connection) -> c_int {
    // SAFETY: the library shows a valid structure.
    unsafe { write(conn, answers::NEXT) };
    1
}

pub struct Served {
    server: *mut mg_server,
    address: SocketAddr,
    taken: Answer,
}

impl Served {
    pub fn new(number: u64) -> Self {
        let name = format!("mongoose-framing-{}-{number}", std::process::id());
        let port = CString::new(format!("unix:@{name}")).expect("a C string");
        // SAFETY: pointers from the library, and C strings.
        let server = unsafe {
            let server = mg_create_server(std::ptr::null_mut());
            let refusal = mg_set_option(server, c"listening_port".as_ptr(), port.as_ptr());
            assert!(refusal.is_null(), "cannot listen");
            mg_add_uri_handler(server, c"/".as_ptr(), Some(note));
            mg_add_uri_handler(server, c"/answer".as_ptr(), Some(answer));
            mg_add_uri_handler(server, c"/next".as_ptr(), Some(next));
            server
        };
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        Self { server, address, taken: Answer::default() }
    }

    /// Sends the pieces, and receives up to the end of the connection.
    fn talk(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut client = UnixStream::connect_addr(&self.address).expect("connects");
        client.set_nonblocking(true).expect("nonblocking");
        let mut received = Vec::new();
        let mut turn = |client: &mut UnixStream| {
            // SAFETY: the server lives as long as the process.
            unsafe { mg_poll_server(self.server, 0) };
            let mut buf = [0; 16 * 1024];
            loop {
                match client.read(&mut buf) {
                    Ok(0) => return true,
                    Ok(count) => received.extend_from_slice(&buf[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                    Err(_) => return true,
                }
            }
        };
        let mut ended = false;
        for piece in pieces {
            ended =
                ended || client.write_all(piece).is_err() || pieces.len() > 1 && turn(&mut client);
        }
        let _ = client.shutdown(Shutdown::Write);
        for waited in 0.. {
            if ended || turn(&mut client) {
                break;
            }
            assert!(waited < PATIENCE, "the connection does not end");
        }
        received
    }

    /// Whether the program is shown what `ours` has read.
    pub fn shows(&self, stream: &[u8], cut: usize, ours: &mut Ours) -> Result<(), String> {
        SHOWN.take();
        let (before, behind) = stream.split_at(cut.min(stream.len()));
        if before.is_empty() || behind.is_empty() {
            self.talk(&[stream]);
        } else {
            self.talk(&[before, behind]);
        }
        let shown = SHOWN.take();
        let (expected, is_all) = expected(stream, ours);
        let both = shown.len().min(expected.len());
        let fits = match is_all {
            true => shown == expected,
            false => shown[..both] == expected[..both],
        };
        let text = |list: &[Shown]| {
            let one = |(method, content): &Shown| {
                format!("{} {}", method.escape_ascii(), content.escape_ascii())
            };
            list.iter().map(one).collect::<Vec<_>>()
        };
        match fits {
            true => Ok(()),
            false => Err(format!("expected {:?}, shown {:?}", text(&expected), text(&shown))),
        }
    }

    /// Whether a client is sent what [`answers::take`] tells, and the next answer where the connection stays.
    pub fn answers(&mut self, written: &mut Written) -> Result<(), String> {
        let RequestFacts { head_only, chunks, persistent } = written.request;
        let method = if head_only { "HEAD" } else { "GET" };
        let connection = match (chunks, persistent) {
            (true, false) => "Connection: close\r\n",
            (false, true) => "Connection: keep-alive\r\n",
            _ => "",
        };
        let request = format!(
            "{method} /answer HTTP/1.{}\r\n{connection}\r\nGET /next HTTP/1.1\r\n\r\n",
            u8::from(chunks)
        );
        written.late = written.cuts.len();
        let mut expected = Vec::new();
        let end = answers::take(written, &mut self.taken, &mut expected);
        // What the program goes on with later is judged by the functions alone.
        if matches!(end, End::Waits | End::Silent) {
            return Ok(());
        }
        if end == End::Keeps {
            expected.extend_from_slice(answers::NEXT);
        }
        WRITTEN.with_borrow_mut(|place| std::mem::swap(place, written));
        let received = self.talk(&[request.as_bytes()]);
        WRITTEN.with_borrow_mut(|place| std::mem::swap(place, written));
        match received == expected {
            true => Ok(()),
            false => Err(format!("sent {}", received.escape_ascii())),
        }
    }
}

/// The requests that a program is shown of a stream, and whether these are all: behind some that are answered
/// without it the connection goes on or does not.
fn expected(stream: &[u8], ours: &mut Ours) -> (Vec<Shown>, bool) {
    let mut expected = Vec::new();
    let mut at = 0;
    while ours.read(stream, at) == ours::Read::Complete {
        let head = ours.head.clone();
        let bytes = &stream[ours.start..ours.start + head.len];
        let mut request = Request { buf: bytes.to_vec(), head, ..Request::default() };
        let is_located = request.locate();
        if is_located && request.path == b"*" && !ours.is_last(stream) && ours.head.minor > 0 {
            at = ours.end;
            continue;
        }
        let is_shown = is_located && request.path.starts_with(b"/");
        if request.method() == b"CONNECT" || ours.head.expects == Expectation::Unknown || !is_shown
        {
            return (expected, false);
        }
        // A handshake is the program's from its first message on, if it is one at all.
        if ours.head.upgrade {
            return (expected, false);
        }
        expected.push((request.method().to_vec(), ours.content.clone()));
        // The answer does not tell a client of HTTP/1.0 that the connection stays.
        if ours.is_last(stream) || ours.head.minor == 0 {
            break;
        }
        at = ours.end;
    }
    (expected, true)
}
