//! The public C structures and the types of C functions.
//!
//! Owns the binary interface: object files that were compiled against the header of 5.0 read these
//! fields at fixed offsets, by the C ABI of the machine. Knows nothing of how the fields are
//! filled.

use std::ffi::{c_char, c_int, c_uchar, c_void};

/// A web server. Programs hold pointers to it only.
pub struct mg_server {
    _opaque: (),
}

/// One header field of a request: name and value, NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mg_header {
    pub name: *const c_char,
    pub value: *const c_char,
}

/// The number of header fields that a program sees. The library itself reads and obeys more.
pub const MAX_VISIBLE_HEADERS: usize = 30;

/// A connection and its request, as a handler sees them.
///
/// The program may write `connection_param`, `content` and the one byte behind it; all else is
/// read-only. Strings belong to the library and live until the handler returns or, if the
/// response is continued later, until that response is complete; afterwards they are empty strings,
/// `query_string` is NULL and `num_headers` 0.
#[repr(C)]
pub struct mg_connection {
    /// "GET", "POST", "PROPFIND", ...
    pub request_method: *const c_char,
    /// Path of the request, percent-decoded, dot segments removed.
    pub uri: *const c_char,
    /// "1.0" or "1.1".
    pub http_version: *const c_char,
    /// Undecoded text behind `?`, or NULL if the target has no `?`.
    pub query_string: *const c_char,
    /// Textual address of the peer; an IPv4-mapped IPv6 address is shown as IPv4.
    pub remote_ip: [c_char; 48],
    /// Port of the peer, in host byte order.
    pub remote_port: c_int,
    /// Number of entries in `http_headers`, 0 to 30.
    pub num_headers: c_int,
    /// The first 30 header fields.
    pub http_headers: [mg_header; 30],
    /// Content of the request, or payload of the websocket message. A writable NUL follows its last
    /// byte.
    pub content: *mut c_char,
    /// Number of bytes in `content`.
    pub content_len: c_int,
    /// 1 on a websocket connection, else 0.
    pub is_websocket: c_int,
    /// Inside the HTTP error handler: the error. Elsewhere 0, then the status of `mg_send_status`.
    pub status_code: c_int,
    /// First byte of the websocket frame; 0 on HTTP.
    pub wsbits: c_uchar,
    /// Argument of `mg_create_server`.
    pub server_param: *mut c_void,
    /// Pointer for the program's own use. NULL when the connection is accepted, and kept until it
    /// closes.
    pub connection_param: *mut c_void,
}

/// A request handler. For HTTP its return value is ignored; for websocket messages non-zero
/// closes the connection; for the HTTP error handler 0 asks for the standard error page.
///
/// It runs on the thread that polls the server. It may call any function of this library, and a
/// C++ handler may throw: the exception passes through `mg_poll_server`.
pub type mg_handler_t = Option<unsafe extern "C-unwind" fn(conn: *mut mg_connection) -> c_int>;

/// A handler of the program.
pub type Handler = unsafe extern "C-unwind" fn(*mut mg_connection) -> c_int;

/// The function of `mg_iterate_over_connections`.
pub type IterateFn = unsafe extern "C-unwind" fn(*mut mg_connection, *mut c_void);

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    // Chooses between the number for pointers of 8 bytes and that for pointers of 4 bytes.
    const fn by_pointer(eight: usize, four: usize) -> usize {
        if size_of::<usize>() == 8 { eight } else { four }
    }
    assert!(size_of::<usize>() == 8 || size_of::<usize>() == 4);
    assert!(align_of::<mg_connection>() == size_of::<usize>());
    assert!(size_of::<mg_connection>() == by_pointer(608, 340));
    assert!(offset_of!(mg_connection, request_method) == by_pointer(0, 0));
    assert!(offset_of!(mg_connection, uri) == by_pointer(8, 4));
    assert!(offset_of!(mg_connection, http_version) == by_pointer(16, 8));
    assert!(offset_of!(mg_connection, query_string) == by_pointer(24, 12));
    assert!(offset_of!(mg_connection, remote_ip) == by_pointer(32, 16));
    assert!(offset_of!(mg_connection, remote_port) == by_pointer(80, 64));
    assert!(offset_of!(mg_connection, num_headers) == by_pointer(84, 68));
    assert!(offset_of!(mg_connection, http_headers) == by_pointer(88, 72));
    assert!(offset_of!(mg_connection, content) == by_pointer(568, 312));
    assert!(offset_of!(mg_connection, content_len) == by_pointer(576, 316));
    assert!(offset_of!(mg_connection, is_websocket) == by_pointer(580, 320));
    assert!(offset_of!(mg_connection, status_code) == by_pointer(584, 324));
    assert!(offset_of!(mg_connection, wsbits) == by_pointer(588, 328));
    assert!(offset_of!(mg_connection, server_param) == by_pointer(592, 332));
    assert!(offset_of!(mg_connection, connection_param) == by_pointer(600, 336));
};
