//! The C functions that need no server: fields and variables of a request, decoding, password files
//! and threads (`pthread_create`).
//!
//! Owns the conversion of arguments and results; the work is in `http`, `auth` and `files`. Knows
//! neither servers nor open connections.
#![allow(
    clippy::missing_safety_doc,
    reason = "the doc comments are the manual for C, and state the duties of the caller"
)]

use std::borrow::Cow;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::guard::{c_buf, c_bytes, c_str, guard};
use crate::abi::{MAX_VISIBLE_HEADERS, mg_connection};
use crate::auth::htpasswd;
use crate::files::mime;
use crate::http::form::{self, Var};
use crate::http::{header_value, multipart};
use crate::options::OPTIONS;

/// Returns the value of a header field of the request, or NULL if the request has none of this
/// name. Names compare in any case; of several fields the first counts. Only the first 30 fields
/// of a request are looked at.
///
/// The value belongs to the library and lives as long as the request, see `struct mg_connection`;
/// a connection without a request has no fields. To be called on the thread that polls the server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_get_header(
    conn: *const mg_connection,
    name: *const c_char,
) -> *const c_char {
    guard(ptr::null(), || {
        // SAFETY: NULL or a string of the caller's.
        let name = unsafe { c_str(name) };
        let Some(name) = name.filter(|_| !conn.is_null()) else {
            return ptr::null();
        };
        // SAFETY: connections are never unmapped, and only this thread writes to this one.
        let count = unsafe { (*conn).num_headers };
        let count = usize::try_from(count).map_or(0, |n| n.min(MAX_VISIBLE_HEADERS));
        for i in 0..count {
            // SAFETY: as above; `i` is below the length of the array.
            let field = unsafe { (*conn).http_headers[i] };
            // SAFETY: the first `num_headers` entries hold strings of the request.
            if unsafe { c_str(field.name) }.is_some_and(|n| n.eq_ignore_ascii_case(name)) {
                return field.value;
            }
        }
        ptr::null()
    })
}

/// Finds a form variable, in the query string first, then in the content of the request. Names
/// compare in any case. The decoded value is written to `buf`, followed by a NUL.
///
/// Returns the length of the value without the NUL, -1 if there is no such variable, -2 if `buf`
/// is too small (it then holds what fits), NULL or of size 0. `buf` is always terminated if it
/// has any size. To be called on the thread that polls the server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_get_var(
    conn: *const mg_connection,
    name: *const c_char,
    buf: *mut c_char,
    buf_len: usize,
) -> c_int {
    guard(-1, || {
        // SAFETY: NULL or `buf_len` bytes for us to write to.
        let Some(buf) = (unsafe { c_buf(buf, buf_len) }) else {
            return -2;
        };
        buf[0] = 0;
        // SAFETY: NULL or a string of the caller's.
        let name = unsafe { c_str(name) };
        let Some(name) = name.filter(|_| !conn.is_null()) else {
            return -1;
        };
        // SAFETY: connections are never unmapped, and only this thread writes to this one.
        let query = unsafe { c_str((*conn).query_string) };
        // SAFETY: as above; `content` has this length.
        let content = unsafe { c_bytes((*conn).content, (*conn).content_len) };
        for data in [query, content].into_iter().flatten() {
            match form::find_var(data, name, buf) {
                Var::Found(len) => return int(len),
                Var::TooSmall => return -2,
                Var::NotFound => {}
            }
        }
        -1
    })
}

/// Finds a value in the text of a header field such as `x=123, y=345, z="other value"`: Cookie,
/// Authorization and the like. The value is written to `buf`, without its quotes and followed by
/// a NUL.
///
/// A name counts at the start of the text and after a space, a comma or a semicolon. Returns the
/// length of the value without the NUL; 0 if it is empty, if there is no such name, if a quote
/// has no end, or if the value does not fit. Then `buf` is an empty string, if it has any size.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_parse_header(
    hdr: *const c_char,
    name: *const c_char,
    buf: *mut c_char,
    buf_size: usize,
) -> c_int {
    guard(0, || {
        // SAFETY: NULL or `buf_size` bytes for us to write to.
        let Some(buf) = (unsafe { c_buf(buf, buf_size) }) else {
            return 0;
        };
        buf[0] = 0;
        // SAFETY: NULL or strings of the caller's.
        match unsafe { (c_str(hdr), c_str(name)) } {
            (Some(header), Some(name)) => int(header_value::parse(header, name, buf)),
            _ => 0,
        }
    })
}

/// Returns the media type for a file name, by its extension in any case; "text/plain" for an
/// unknown extension, and for NULL. The string is constant. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_get_mime_type(file_name: *const c_char) -> *const c_char {
    guard(c"text/plain".as_ptr(), || {
        // SAFETY: NULL or a string of the caller's.
        let name = unsafe { c_str(file_name) };
        mime::builtin(name.unwrap_or_default()).as_ptr()
    })
}

/// Decodes percent-escapes, and `+` to a space where `is_form_url_encoded` is not 0. Broken
/// escapes stay as they are. `dst` may be `src`.
///
/// Returns the length without the NUL that is written behind the text, or -1 if `dst` is too
/// small; it then holds what fits, terminated.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_url_decode(
    src: *const c_char,
    src_len: c_int,
    dst: *mut c_char,
    dst_len: c_int,
    is_form_url_encoded: c_int,
) -> c_int {
    guard(-1, || {
        if src_len < 0 || dst_len < 0 {
            return 0;
        }
        let dst_size = dst_len as usize;
        // SAFETY: NULL or `src_len` bytes of the caller's.
        let text = unsafe { c_bytes(src, src_len) };
        let Some(text) = text.and_then(|text| apart(text, dst, dst_size)) else {
            return -1;
        };
        // SAFETY: NULL or `dst_len` bytes for us to write to; if they overlap with `src`, `text` is
        // a copy, and `src` is not read again.
        let Some(dst) = (unsafe { c_buf(dst, dst_size) }) else {
            return -1;
        };
        form::url_decode(&text, dst, is_form_url_encoded != 0).map_or(-1, int)
    })
}

/// Adds a user to a password file, changes the password, or deletes the user if `password` is NULL.
/// The file is created if it does not exist.
///
/// All other lines stay as they are. The file is replaced in one step, keeps its mode, and is
/// locked against a second writer. Returns 1 on success; 0 if the file cannot be written, or if
/// `domain` or `user` is NULL, empty, or contains a colon or a line break. On failure the file is
/// as before. The call returns when the new file is on the disk, which may take some milliseconds,
/// for which a handler keeps all clients waiting. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_modify_passwords_file(
    file: *const c_char,
    domain: *const c_char,
    user: *const c_char,
    password: *const c_char,
) -> c_int {
    guard(0, || {
        // SAFETY: NULL or strings of the caller's.
        let (names, password) =
            unsafe { ((c_str(file), c_str(domain), c_str(user)), c_str(password)) };
        let (Some(file), Some(domain), Some(user)) = names else {
            return 0;
        };
        let file = Path::new(OsStr::from_bytes(file));
        c_int::from(htpasswd::modify(file, domain, user, password).is_ok())
    })
}

/// Runs `func(param)` in a new thread. The thread is detached: its resources are freed when `func`
/// returns, without any further call.
///
/// Returns the thread's `pthread_t`, cast to a pointer, or NULL if the thread could not be started
/// or `func` is NULL. While the thread runs it may be cast back, for pthread_equal() and
/// pthread_kill(), for example. To wait for a detached thread is not possible: pthread_join() fails
/// at once (EINVAL with glibc; musl ends the program), and must not be called after the thread has
/// ended. A program that has to wait uses a mutex and a condition variable of its own.
///
/// `param` stays with the caller. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_start_thread(
    func: Option<extern "C" fn(param: *mut c_void) -> *mut c_void>,
    param: *mut c_void,
) -> *mut c_void {
    guard(ptr::null_mut(), || match func {
        // `pthread_t` is a number in glibc, and a pointer in musl.
        Some(func) => start_detached(func, param)
            .map_or(ptr::null_mut(), |thread| ptr::without_provenance_mut(thread as usize)),
        None => ptr::null_mut(),
    })
}

/// Reads one part of an uploaded form, whose content is of type multipart/form-data. `buf` must
/// begin with a boundary line, as the content of such a request does.
///
/// Returns the offset behind the part; to read the next part, add it to `buf` and subtract it from
/// `buf_len`. Returns 0 at the end, and if the content is malformed or not complete; then the names
/// are empty and `data` is NULL.
///
/// `var_name` gets the name of the form field and `file_name` the name of the file as the client
/// gives it, terminated; empty strings if there is none, and if it does not fit. A file name may
/// contain slashes and "..": it must be checked before it is used as a path. A backslash before a
/// quote, as some clients write it, is left out, any other stays; `%22`, which browsers write for a
/// quote, is not decoded. Either buffer may be NULL with length 0. `data` points into `buf`, is not
/// terminated, and belongs to the caller as `buf` does; `data` and `data_len` may be NULL. May be
/// called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_parse_multipart(
    buf: *const c_char,
    buf_len: c_int,
    var_name: *mut c_char,
    var_name_len: c_int,
    file_name: *mut c_char,
    file_name_len: c_int,
    data: *mut *const c_char,
    data_len: *mut c_int,
) -> c_int {
    guard(0, || {
        // SAFETY: NULL or `buf_len` bytes of the caller's.
        let body = unsafe { c_bytes(buf, buf_len) };
        // SAFETY: NULL or two buffers of these lengths for us to write to.
        let names = unsafe { (out(var_name, var_name_len), out(file_name, file_name_len)) };
        let (Some(body), (Some(var_name), Some(file_name))) = (body, names) else {
            return 0;
        };
        let part = multipart::next_part(body);
        let (name, file, range, next) = part.map_or((&b""[..], &b""[..], None, 0), |part| {
            (part.name, part.file_name, Some(part.data), part.next)
        });
        multipart::copy_name(name, var_name);
        multipart::copy_name(file, file_name);
        let found = range.map(|range| &body[range]);
        if !data.is_null() {
            // SAFETY: not NULL, hence the caller's own variable.
            unsafe { data.write(found.map_or(ptr::null(), |found| found.as_ptr().cast())) };
        }
        if !data_len.is_null() {
            // SAFETY: not NULL, hence the caller's own variable.
            unsafe { data_len.write(int(found.map_or(0, <[u8]>::len))) };
        }
        int(next)
    })
}

/// Returns the names and defaults of all options: name, default, name, default, and so on, closed
/// by NULL. A default is NULL where the option is unset. The array is constant. May be called
/// from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mg_get_valid_option_names() -> *mut *const c_char {
    OPTION_NAMES.0.as_ptr().cast_mut()
}

#[repr(transparent)]
struct OptionNames([*const c_char; 2 * OPTIONS.len() + 1]);

// SAFETY: the pointers lead to constant strings, and no code writes to the array.
unsafe impl Sync for OptionNames {}

static OPTION_NAMES: OptionNames = {
    let mut names = [ptr::null(); 2 * OPTIONS.len() + 1];
    let mut i = 0;
    while i < OPTIONS.len() {
        names[2 * i] = OPTIONS[i].0.as_ptr();
        if let Some(default) = OPTIONS[i].1 {
            names[2 * i + 1] = default.as_ptr();
        }
        i += 1;
    }
    OptionNames(names)
};

/// Returns a length as C has it. No request has a length that an `int` cannot hold.
fn int(len: usize) -> c_int {
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

/// Returns a buffer that may be NULL if its length is 0; a negative length gives `None`.
///
/// # Safety
/// As for `c_buf`.
unsafe fn out<'a>(buf: *mut c_char, len: c_int) -> Option<&'a mut [u8]> {
    match usize::try_from(len) {
        Ok(0) => Some(&mut []),
        // SAFETY: by the caller's promise.
        Ok(len) => unsafe { c_buf(buf, len) },
        Err(_) => None,
    }
}

/// Returns `text` itself, or a copy if the `dst_len` bytes at `dst` overlap with it; `None` if
/// there is no memory for the copy.
fn apart(text: &[u8], dst: *const c_char, dst_len: usize) -> Option<Cow<'_, [u8]>> {
    let (text_start, dst_start) = (text.as_ptr().addr(), dst.addr());
    let overlap = text_start < dst_start.saturating_add(dst_len)
        && dst_start < text_start.saturating_add(text.len());
    if !overlap {
        return Some(Cow::Borrowed(text));
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(text.len()).ok()?;
    copy.extend_from_slice(text);
    Some(Cow::Owned(copy))
}

/// Starts a detached thread. A thread of the standard library would have Rust frames below `func`,
/// and the program may leave `func` by `pthread_exit`.
///
/// The 5.0 library also started detached threads. A joinable thread would be a leak in all programs
/// that do not join it, which are nearly all. A thread that detaches itself at its end would make
/// `pthread_join` wait for ever if the thread never ends, so that such a program would no longer
/// stop.
fn start_detached(
    func: extern "C" fn(*mut c_void) -> *mut c_void,
    param: *mut c_void,
) -> Option<libc::pthread_t> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the pointer leads to room for the attributes.
    if unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let attributes = attributes.as_mut_ptr();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes were initialised above and are destroyed once, at the end; `thread`
    // is written by a pthread_create that succeeds, and read only then.
    unsafe {
        let detached = libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
        let started = detached == 0
            && libc::pthread_create(thread.as_mut_ptr(), attributes, func, param) == 0;
        libc::pthread_attr_destroy(attributes);
        started.then(|| thread.assume_init())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{CStr, CString};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Returns an empty connection, as after its request.
    fn closed_connection() -> mg_connection {
        // SAFETY: NULL pointers and zero numbers are values of all its fields.
        unsafe { std::mem::zeroed() }
    }

    /// Returns the string that C would read.
    fn text<'a>(string: *const c_char) -> Option<&'a str> {
        // SAFETY: the functions under test return NULL or strings that outlive the test.
        unsafe { c_str(string) }.map(|bytes| std::str::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn a_header_is_found_in_any_case_and_the_first_one_counts() {
        let mut conn = closed_connection();
        let fields = [(c"Host", c"a"), (c"X-A", c"1"), (c"x-a", c"2"), (c"Empty", c"")];
        for (place, (name, value)) in conn.http_headers.iter_mut().zip(fields) {
            (place.name, place.value) = (name.as_ptr(), value.as_ptr());
        }
        let header = |conn: &mg_connection, name: &CStr| {
            // SAFETY: both are valid for the call.
            text(unsafe { mg_get_header(conn, name.as_ptr()) })
        };
        assert_eq!(header(&conn, c"Host"), None);
        conn.num_headers = 4;
        assert_eq!(header(&conn, c"hOST"), Some("a"));
        assert_eq!(header(&conn, c"X-A"), Some("1"));
        assert_eq!(header(&conn, c"empty"), Some(""));
        assert_eq!(header(&conn, c"X-"), None);
        assert_eq!(header(&conn, c""), None);
        conn.num_headers = -1;
        assert_eq!(header(&conn, c"Host"), None);
        // SAFETY: NULL is allowed.
        unsafe {
            assert!(mg_get_header(ptr::null(), c"Host".as_ptr()).is_null());
            assert!(mg_get_header(&conn, ptr::null()).is_null());
        }
    }

    #[test]
    fn a_variable_is_looked_for_in_the_query_and_then_in_the_content() {
        let mut content = *b"a=3&b=body+text&long=y&";
        let mut conn = closed_connection();
        let mut buf = [b'x' as c_char; 10];
        let mut var = |conn: *const mg_connection, name: &CStr| {
            // SAFETY: the connection is NULL or valid, and so is the buffer.
            let len = unsafe { mg_get_var(conn, name.as_ptr(), buf.as_mut_ptr(), buf.len()) };
            (len, text(buf.as_ptr()).map(str::to_owned).expect("a string"))
        };
        let result = |len, value: &str| (len, value.to_owned());
        assert_eq!(var(&conn, c"a"), result(-1, ""));
        conn.query_string = c"a=1&A=2&long=1234567890".as_ptr();
        conn.content = content.as_mut_ptr().cast();
        conn.content_len = content.len() as c_int;
        assert_eq!(var(&conn, c"A"), result(1, "1"));
        assert_eq!(var(&conn, c"b"), result(9, "body text"));
        assert_eq!(var(&conn, c"long"), result(-2, "123456789"));
        assert_eq!(var(&conn, c"none"), result(-1, ""));
        assert_eq!(var(ptr::null(), c"a"), result(-1, ""));
        // SAFETY: NULL is allowed, and no byte is used of a buffer of size 0.
        unsafe {
            assert_eq!(mg_get_var(&conn, ptr::null(), buf.as_mut_ptr(), 10), -1);
            assert_eq!(mg_get_var(&conn, c"a".as_ptr(), ptr::null_mut(), 10), -2);
            assert_eq!(mg_get_var(&conn, c"a".as_ptr(), buf.as_mut_ptr(), 0), -2);
        }
    }

    #[test]
    fn a_value_is_taken_out_of_a_header() {
        let mut buf = [b'x' as c_char; 8];
        let mut parse = |header: *const c_char, name: *const c_char, size| {
            // SAFETY: NULL or constants; `size` is at most that of the buffer.
            let len = unsafe { mg_parse_header(header, name, buf.as_mut_ptr(), size) };
            (len, text(buf.as_ptr()).map(str::to_owned).expect("a string"))
        };
        let header = c"x=123, y=\"other\"".as_ptr();
        assert_eq!(parse(header, c"x".as_ptr(), 8), (3, "123".to_owned()));
        assert_eq!(parse(header, c"y".as_ptr(), 8), (5, "other".to_owned()));
        assert_eq!(parse(header, c"y".as_ptr(), 5), (0, String::new()));
        assert_eq!(parse(header, c"x".as_ptr(), 8), (3, "123".to_owned()));
        assert_eq!(parse(header, ptr::null(), 8), (0, String::new()));
        assert_eq!(parse(header, c"x".as_ptr(), 8), (3, "123".to_owned()));
        assert_eq!(parse(ptr::null(), c"x".as_ptr(), 8), (0, String::new()));
        // SAFETY: NULL is allowed.
        let none = unsafe { mg_parse_header(header, c"x".as_ptr(), ptr::null_mut(), 8) };
        assert_eq!(none, 0);
    }

    #[test]
    fn a_file_name_gives_its_media_type() {
        // SAFETY: NULL or constant strings.
        unsafe {
            assert_eq!(text(mg_get_mime_type(c"a.PNG".as_ptr())), Some("image/png"));
            assert_eq!(text(mg_get_mime_type(c"a".as_ptr())), Some("text/plain"));
            assert_eq!(text(mg_get_mime_type(ptr::null())), Some("text/plain"));
        }
    }

    #[test]
    fn decoding_also_works_in_place() {
        let mut buf = *b"a%20b+c.......";
        let at = buf.as_mut_ptr().cast::<c_char>();
        // SAFETY: all pointers lead into `buf`, with room for their lengths, or are NULL.
        unsafe {
            assert_eq!(mg_url_decode(at, 7, at, 8, 1), 5);
            assert_eq!(text(at), Some("a b c"));
            assert_eq!(mg_url_decode(c"a+b".as_ptr(), 3, at, 4, 0), 3);
            assert_eq!(text(at), Some("a+b"));
            assert_eq!(mg_url_decode(c"foo".as_ptr(), 3, at, 3, 0), -1);
            assert_eq!(text(at), Some("fo"));
            assert_eq!(mg_url_decode(ptr::null(), 0, at, 3, 0), 0);
            assert_eq!(text(at), Some(""));
            assert_eq!(mg_url_decode(ptr::null(), 1, at, 3, 0), -1);
            assert_eq!(mg_url_decode(c"foo".as_ptr(), 3, ptr::null_mut(), 3, 0), -1);
            assert_eq!(mg_url_decode(c"foo".as_ptr(), 3, at, 0, 0), -1);
            assert_eq!(mg_url_decode(c"foo".as_ptr(), -1, at, 3, 0), 0);
            assert_eq!(mg_url_decode(c"foo".as_ptr(), 3, at, -1, 0), 0);
        }
    }

    #[test]
    fn a_password_file_is_changed_or_the_call_fails() {
        let name = format!("utility-test-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = CString::new(path.as_os_str().as_bytes()).expect("a path");
        let (file, joe, x) = (file.as_ptr(), c"joe".as_ptr(), c"x".as_ptr());
        // SAFETY: NULL or strings that live through the block.
        unsafe {
            assert_eq!(mg_modify_passwords_file(file, x, joe, x), 1);
            let text = std::fs::read_to_string(&path).expect("the file");
            assert!(text.starts_with("joe:x:") && text.len() == 39);
            assert_eq!(mg_modify_passwords_file(file, x, joe, ptr::null()), 1);
            assert_eq!(std::fs::read(&path).expect("the file"), b"");
            assert_eq!(mg_modify_passwords_file(file, c"a:b".as_ptr(), joe, x), 0);
            assert_eq!(mg_modify_passwords_file(file, x, c"".as_ptr(), x), 0);
            assert_eq!(mg_modify_passwords_file(file, x, ptr::null(), x), 0);
            assert_eq!(mg_modify_passwords_file(file, ptr::null(), joe, x), 0);
            assert_eq!(mg_modify_passwords_file(ptr::null(), x, joe, x), 0);
            assert_eq!(mg_modify_passwords_file(c"/".as_ptr(), x, joe, x), 0);
        }
        std::fs::remove_file(&path).expect("the file to be there");
    }

    #[test]
    fn a_thread_is_started_with_its_parameter() {
        extern "C" fn report(param: *mut c_void) -> *mut c_void {
            // SAFETY: the test passes a sender that it has given away.
            let sender = unsafe { Box::from_raw(param.cast::<mpsc::Sender<()>>()) };
            sender.send(()).expect("a receiver");
            ptr::null_mut()
        }
        let (sender, receiver) = mpsc::channel::<()>();
        let param = Box::into_raw(Box::new(sender)).cast();
        // SAFETY: `report` takes the parameter over; NULL is allowed.
        unsafe {
            assert!(!mg_start_thread(Some(report), param).is_null());
            assert!(mg_start_thread(None, ptr::null_mut()).is_null());
        }
        let reported = receiver.recv_timeout(Duration::from_secs(10));
        assert_eq!(reported, Ok(()));
    }

    #[test]
    fn the_parts_of_an_upload_are_read_in_a_loop() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\\\"b\"\r\n\r\n1\r\n\
            --x\r\nContent-Disposition: form-data; name=f; filename=too-long\r\n\r\n22\r\n\
            --x--\r\n";
        let expected = [("a\"b", "", &b"1"[..]), ("f", "", b"22"), ("", "", b"")];
        let mut at = 0;
        for (expected_name, expected_file, expected_data) in expected {
            let (mut name, mut file) = ([b'x' as c_char; 4], [b'x' as c_char; 8]);
            let (mut data, mut data_len) = (ptr::null(), -1);
            let rest = &body[at..];
            // SAFETY: all pointers and lengths are those of local variables.
            let next = unsafe {
                mg_parse_multipart(
                    rest.as_ptr().cast(),
                    int(rest.len()),
                    name.as_mut_ptr(),
                    int(name.len()),
                    file.as_mut_ptr(),
                    int(file.len()),
                    &mut data,
                    &mut data_len,
                )
            };
            assert_eq!(text(name.as_ptr()), Some(expected_name));
            assert_eq!(text(file.as_ptr()), Some(expected_file));
            // SAFETY: `data` leads into `body`, or is NULL with length 0.
            assert_eq!(unsafe { c_bytes(data, data_len) }, Some(expected_data));
            assert_eq!(next == 0, expected_name.is_empty());
            at += next as usize;
        }
        assert_eq!(&body[at..], b"--x--\r\n");
    }

    #[test]
    fn a_call_that_cannot_read_a_part_gives_0() {
        let body = c"--x\r\n\r\n1\r\n--x--".as_ptr();
        let call = |buf, len, name, name_len| {
            // SAFETY: NULL, or `len` bytes of a constant; no byte of `name` is written to.
            unsafe {
                mg_parse_multipart(
                    buf,
                    len,
                    name,
                    name_len,
                    ptr::null_mut(),
                    0,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            }
        };
        assert_eq!(call(body, 15, ptr::null_mut(), 0), 10);
        assert_eq!(call(body, 14, ptr::null_mut(), 0), 0);
        assert_eq!(call(body, -1, ptr::null_mut(), 0), 0);
        assert_eq!(call(ptr::null(), 0, ptr::null_mut(), 0), 0);
        assert_eq!(call(ptr::null(), 15, ptr::null_mut(), 0), 0);
        assert_eq!(call(body, 15, ptr::null_mut(), 1), 0);
        assert_eq!(call(body, 15, ptr::null_mut(), -1), 0);
    }

    #[test]
    fn the_option_names_are_closed_by_null() {
        let names = mg_get_valid_option_names();
        // SAFETY: the array has two entries for each option, and one more.
        let entry = |i| unsafe { *names.add(i) };
        for (i, (name, default)) in OPTIONS.iter().enumerate() {
            assert_eq!(text(entry(2 * i)), name.to_str().ok());
            let default = default.map(|default| default.to_str().expect("UTF-8"));
            assert_eq!(text(entry(2 * i + 1)), default);
        }
        assert!(entry(2 * OPTIONS.len()).is_null());
    }
}
