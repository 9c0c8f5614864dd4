//! The public C structures. Their layout is the binary interface: object files that were compiled
//! against the old header read these fields at fixed offsets.

use std::ffi::{c_char, c_int, c_uchar, c_void};

/// A web server. Programs only ever hold a pointer to it.
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

/// How many header fields a program sees. The library itself reads and obeys more.
pub const MAX_VISIBLE_HEADERS: usize = 30;

/// What a handler gets to see of a connection and its request.
///
/// The program may write `connection_param`, `content` and the one byte behind it; all else is
/// read-only. Strings belong to the library and live until the handler returns or, where the
/// answer is given later, until that answer is complete; afterwards they are empty strings,
/// `query_string` is NULL and `num_headers` 0.
#[repr(C)]
pub struct mg_connection {
    /// "GET", "POST", "PROPFIND", ...
    pub request_method: *const c_char,
    /// Path of the request, percent-decoded, dot segments removed.
    pub uri: *const c_char,
    /// "1.0" or "1.1".
    pub http_version: *const c_char,
    /// Undecoded text behind `?`, or NULL where the target has no `?`.
    pub query_string: *const c_char,
    /// Textual address of the peer; an IPv4-mapped IPv6 address is shown as IPv4.
    pub remote_ip: [c_char; 48],
    /// Port of the peer, in host byte order.
    pub remote_port: c_int,
    /// Number of entries in `http_headers`, 0 to 30.
    pub num_headers: c_int,
    /// The first 30 header fields.
    pub http_headers: [mg_header; 30],
    /// Request body or websocket payload. A writable NUL follows its last byte.
    pub content: *mut c_char,
    /// Bytes in `content`.
    pub content_len: c_int,
    /// 1 on a websocket connection, else 0.
    pub is_websocket: c_int,
    /// Inside the HTTP error handler: the error. Elsewhere 0, then what `mg_send_status` sent.
    pub status_code: c_int,
    /// First byte of the websocket frame; 0 on HTTP.
    pub wsbits: c_uchar,
    /// What `mg_create_server` was given.
    pub server_param: *mut c_void,
    /// The program's own. NULL when the connection is accepted, kept for its life.
    pub connection_param: *mut c_void,
}

/// A request handler. For HTTP its return value is ignored; for websocket messages non-zero
/// closes the connection; for the HTTP error handler 0 asks for the standard error page.
///
/// It runs on the thread that polls the server. It may call any function of this library, and a
/// C++ handler may throw: the exception passes through `mg_poll_server`.
pub type mg_handler_t = Option<unsafe extern "C-unwind" fn(conn: *mut mg_connection) -> c_int>;

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(align_of::<mg_connection>() == size_of::<usize>());
    // The figures are those of 64-bit machines; elsewhere the rules of C give the layout.
    if size_of::<usize>() == 8 {
        assert!(size_of::<mg_connection>() == 608);
        assert!(offset_of!(mg_connection, request_method) == 0);
        assert!(offset_of!(mg_connection, uri) == 8);
        assert!(offset_of!(mg_connection, http_version) == 16);
        assert!(offset_of!(mg_connection, query_string) == 24);
        assert!(offset_of!(mg_connection, remote_ip) == 32);
        assert!(offset_of!(mg_connection, remote_port) == 80);
        assert!(offset_of!(mg_connection, num_headers) == 84);
        assert!(offset_of!(mg_connection, http_headers) == 88);
        assert!(offset_of!(mg_connection, content) == 568);
        assert!(offset_of!(mg_connection, content_len) == 576);
        assert!(offset_of!(mg_connection, is_websocket) == 580);
        assert!(offset_of!(mg_connection, status_code) == 584);
        assert!(offset_of!(mg_connection, wsbits) == 588);
        assert!(offset_of!(mg_connection, server_param) == 592);
        assert!(offset_of!(mg_connection, connection_param) == 600);
    }
};
