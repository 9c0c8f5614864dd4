//! A whole connection: bytes to a server with handlers, files, includes and a websocket. Whatever
//! they are, the connection ends once the client has said all, and the answers do not depend on
//! how the bytes were cut. What the program writes to connections of earlier clients goes nowhere.
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mongoose::ffi::connection::{mg_send_data, mg_send_header, mg_send_status};
use mongoose::ffi::connection::{mg_websocket_write, mg_write};
use mongoose::ffi::server::{mg_add_uri_handler, mg_create_server, mg_get_option};
use mongoose::ffi::server::{mg_poll_server, mg_set_http_error_handler, mg_set_option};
use mongoose::abi::{mg_connection, mg_server};
use mongoose::ffi::utility::{mg_get_header, mg_get_var, mg_parse_header, mg_parse_multipart};

/// Turns without news after which a connection that should have ended is stuck.
const PATIENCE: u32 = 2_000;

thread_local! {
    /// Connections whose handler has not answered.
    static SILENT: RefCell<Vec<*mut mg_connection>> = const { RefCell::new(Vec::new()) };
    /// All that handlers have seen of the current client.
    static SEEN: RefCell<Vec<*mut mg_connection>> = const { RefCell::new(Vec::new()) };
    /// The same of clients before it, as far as they are kept.
    static PAST: RefCell<VecDeque<*mut mg_connection>> = const { RefCell::new(VecDeque::new()) };
}

/// What is written too late.
const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
/// Connections of the past that are written to.
const PAST_CONNECTIONS: usize = 64;

fn note(conn: *mut mg_connection) {
    SEEN.with_borrow_mut(|seen| seen.push(conn));
}

/// The client has gone: what was its connection is of the past.
fn part() {
    SILENT.take();
    PAST.with_borrow_mut(|past| {
        past.extend(SEEN.take());
        let excess = past.len().saturating_sub(PAST_CONNECTIONS);
        past.drain(..excess);
    });
}

fn write_late() {
    PAST.with_borrow(|past| {
        for conn in past {
            // SAFETY: such pointers may be passed at any time.
            unsafe {
                mg_write(*conn, STRAY.as_ptr().cast(), STRAY.len() as c_int);
                mg_websocket_write(*conn, 1, STRAY.as_ptr().cast(), STRAY.len());
            }
        }
    });
}

/// One server, polled by the only thread there is.
struct Fixture {
    server: *mut mg_server,
    address: SocketAddr,
}
// SAFETY: the fuzzer calls the target from one thread.
unsafe impl Send for Fixture {}
// SAFETY: as above.
unsafe impl Sync for Fixture {}

/// Repeats the content, raw.
unsafe extern "C-unwind" fn raw(conn: *mut mg_connection) -> c_int {
    note(conn);
    // SAFETY: the library shows a valid structure, and `content` is `content_len` bytes long.
    unsafe {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", (*conn).content_len);
        mg_write(conn, head.as_ptr().cast(), head.len() as c_int);
        mg_write(conn, (*conn).content.cast(), (*conn).content_len);
    }
    1
}

/// Tells of everything that the helpers find.
unsafe extern "C-unwind" fn told(conn: *mut mg_connection) -> c_int {
    note(conn);
    let mut buf = [0 as c_char; 40];
    let (place, size) = (buf.as_mut_ptr(), buf.len());
    // SAFETY: all strings end in NUL, and the buffers are as long as is said.
    unsafe {
        assert_eq!(*(*conn).content.add((*conn).content_len as usize), 0);
        mg_send_status(conn, 203);
        for field in &(&(*conn).http_headers)[..(*conn).num_headers as usize] {
            assert!(!mg_get_header(conn, field.name).is_null());
            mg_parse_header(field.value, c"a".as_ptr(), place, size);
            mg_send_header(conn, c"X-Found".as_ptr(), place);
        }
        let found = mg_get_var(conn, c"a".as_ptr(), place, size);
        if found >= 0 {
            mg_send_data(conn, place.cast(), found);
        }
        let (mut at, mut data, mut len) = (0, std::ptr::null(), 0);
        loop {
            let (content, left) = ((*conn).content.add(at), (*conn).content_len - at as c_int);
            let (name, name_len) = (place, size as c_int);
            let mut file = [0 as c_char; 20];
            let next = mg_parse_multipart(
                content, left, name, name_len, file.as_mut_ptr(), 20, &raw mut data, &raw mut len,
            );
            if next <= 0 {
                break;
            }
            mg_send_data(conn, data.cast(), len);
            at += next as usize;
        }
        let method = (*conn).request_method;
        mg_send_data(conn, method.cast(), CStr::from_ptr(method).count_bytes() as c_int);
    }
    1
}

/// Ends with the connection.
unsafe extern "C-unwind" fn unframed(conn: *mut mg_connection) -> c_int {
    note(conn);
    let text = "HTTP/1.0 200 OK\r\n\r\nhello";
    // SAFETY: the library shows a valid structure.
    unsafe { mg_write(conn, text.as_ptr().cast(), text.len() as c_int) };
    1
}

/// Leaves the answer for later.
unsafe extern "C-unwind" fn silent(conn: *mut mg_connection) -> c_int {
    note(conn);
    SILENT.with_borrow_mut(|silent| silent.push(conn));
    1
}

fn break_silence() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
    for conn in SILENT.take() {
        // SAFETY: such pointers may be passed at any time.
        unsafe { mg_write(conn, text.as_ptr().cast(), text.len() as c_int) };
    }
}

/// Echoes messages.
unsafe extern "C-unwind" fn socket(conn: *mut mg_connection) -> c_int {
    note(conn);
    // SAFETY: as in `raw`.
    unsafe {
        if (*conn).is_websocket == 0 {
            return unframed(conn);
        }
        let opcode = c_int::from((*conn).wsbits & 15);
        mg_websocket_write(conn, opcode, (*conn).content, (*conn).content_len as usize);
        c_int::from((*conn).content_len == 3)
    }
}

/// Has its own page for one kind of error.
unsafe extern "C-unwind" fn error(conn: *mut mg_connection) -> c_int {
    note(conn);
    // SAFETY: the library shows a valid structure.
    unsafe {
        if (*conn).status_code != 405 {
            return 0;
        }
        mg_send_data(conn, b"no".as_ptr().cast(), 2);
    }
    1
}

fn make_files(root: &Path) {
    let files: [(&str, &[u8]); 6] = [
        ("a.txt", b"0123456789"),
        ("long.txt", &[b'x'; 40_000]),
        ("page.shtml", b"<!--#include file=\"a.txt\" --><!--#include virtual=\"page.shtml\" -->"),
        ("dir/index.html", b"index"),
        ("list/b c&d.txt", b""),
        ("guarded/.htpasswd", b"u:r:0123456789abcdef0123456789abcdef\n"),
    ];
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("mongoose-fuzz-{}", std::process::id()));
        make_files(&root);
        // SAFETY: pointers from the library, and C strings.
        unsafe {
            let server = mg_create_server(std::ptr::null_mut());
            let root = CString::new(root.to_str().expect("a path")).expect("a C string");
            for (name, value) in [
                (c"listening_port", c"127.0.0.1:0"),
                (c"document_root", root.as_c_str()),
                (c"ssi_pattern", c"**.shtml$"),
                (c"url_rewrites", c"/old=/new"),
                (c"hide_files_patterns", c"**/long*"),
                (c"cgi_pattern", c"nothing"),
                (c"websocket_deflate", c"yes"),
                (c"max_request_body_bytes", c"2000"),
                (c"max_websocket_message_bytes", c"2000"),
            ] {
                assert!(mg_set_option(server, name.as_ptr(), value.as_ptr()).is_null());
            }
            let handlers: [(_, unsafe extern "C-unwind" fn(_) -> _); 5] = [
                (c"/raw", raw),
                (c"/told", told),
                (c"/end", unframed),
                (c"/silent", silent),
                (c"/socket", socket),
            ];
            for (uri, handler) in handlers {
                mg_add_uri_handler(server, uri.as_ptr(), Some(handler));
            }
            mg_set_http_error_handler(server, Some(error));
            let bound = CStr::from_ptr(mg_get_option(server, c"listening_port".as_ptr()));
            let address = bound.to_str().ok().and_then(|text| text.parse().ok());
            Fixture { server, address: address.expect("an address") }
        }
    })
}

/// What the server says to `pieces`, up to the end of the connection.
fn answers<'a>(fixture: &Fixture, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut client = TcpStream::connect(fixture.address).expect("connects");
    client.set_nonblocking(true).expect("nonblocking");
    client.set_nodelay(true).expect("no delay");
    let mut received = Vec::new();
    let mut turn = |client: &mut TcpStream, wait| {
        // SAFETY: the server lives as long as the process.
        unsafe { mg_poll_server(fixture.server, wait) };
        break_silence();
        write_late();
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
        // Few bytes, which the socket's buffer always takes; where the server has ended the
        // connection, they are lost.
        ended |= client.write_all(piece).is_err();
        ended |= turn(&mut client, 0);
        if ended {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Write);
    for waited in 0.. {
        if ended || turn(&mut client, c_int::from(waited > 10)) {
            break;
        }
        assert!(waited < PATIENCE, "the connection does not end");
    }
    part();
    assert!(!received.windows(5).any(|window| window == b"stray"), "another client's answer");
    received
}

/// The answers without what differs from one time to the next.
fn comparable(answers: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(answers).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    for (before, behind) in [("Date: ", "\r\n"), ("nonce=\"", "\""), ("boundary=", "\r\n")] {
        let mut from = 0;
        while let Some(at) = text[from..].find(before) {
            let start = from + at + before.len();
            let Some(len) = text[start..].find(behind) else { break };
            let value = text[start..start + len].to_owned();
            from = start;
            match before {
                "boundary=" if !value.is_empty() => text = text.replace(&value, ""),
                _ => text.replace_range(start..start + len, ""),
            }
        }
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let [seed, stream @ ..] = data else { return };
    let fixture = fixture();
    let whole = answers(fixture, [stream].into_iter());
    let mut state = u32::from(*seed) | 1;
    let mut rest = stream;
    let pieces = std::iter::from_fn(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (state >> 24) as usize % 40 + 1;
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    let cut = answers(fixture, pieces);
    // Whether content is waited for may depend on whether it has come with the head.
    let expects = stream.to_ascii_lowercase().windows(6).any(|window| window == b"expect");
    if !expects {
        assert_eq!(comparable(&whole), comparable(&cut));
    }
});
