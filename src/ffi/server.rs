//! The C functions that take a `struct mg_server *`: options, handlers, polling and iteration.
//!
//! Owns the calls of the program: nothing of the server is borrowed meanwhile. Knows nothing of
//! connections, whose work is in `connection`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use super::guard::{c_str, catch, guard};
use super::hold::{self, Hold, hub};
use crate::abi::IterateFn;
use crate::abi::{mg_connection, mg_handler_t, mg_server};
use crate::clock::unix_seconds;
use crate::exchange::context::FORKS;
use crate::long_files;
use crate::options::{OptionId, lookup};
use crate::server::walks::Job;
use crate::server::{Server, Step};
use crate::shared::faults;
use crate::shared::hub::{Hub, Message, Param, Ticket};
use crate::shared::slots::Slot;

/// Creates a server. It does nothing until it is given options and polled: no socket and no file is
/// opened here. `server_param` may be anything, also NULL; handlers see it as
/// `conn->server_param`. C++ programs pass `this`.
///
/// Returns NULL when there is no memory. The server is freed by mg_destroy_server().
///
/// SIGPIPE is ignored from now on. Any thread may call this.
#[unsafe(no_mangle)]
pub extern "C" fn mg_create_server(server_param: *mut c_void) -> *mut mg_server {
    guard(ptr::null_mut(), || {
        prepare_process();
        faults::keep_quiet(hold::is_inside);
        // Rust aborts the process when a small allocation fails. If a large one succeeds before,
        // that is unlikely.
        if Vec::<u8>::new().try_reserve_exact(256 * 1024).is_err() {
            return ptr::null_mut();
        }
        let hub = Hub::acquire();
        hub.forks.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        let server = Box::new(Server::new(hub, server_param));
        hub.server.store(Box::into_raw(server).cast(), Ordering::Release);
        ptr::from_ref(hub).cast_mut().cast()
    })
}

/// Counts the forks of the process from now on, and ignores SIGPIPE.
fn prepare_process() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // At once: later the numbers of these descriptors may mean other files.
        long_files::leave_parent();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function uses atomic variables, and calls that a child may use (fstat, close).
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    // SAFETY: SIG_IGN is no handler, and no code runs.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Closes every connection, frees the server and sets `*server` to NULL. NULL and a pointer to
/// NULL are allowed.
///
/// Called from inside a handler of this server, from another thread or from a signal handler while
/// mg_poll_server() runs, it sets `*server` to NULL and returns, and the running poll frees the
/// server when it ends. Threads that wait in mg_iterate_over_connections() are released.
/// Pointers to connections may still be passed to mg_write() and mg_websocket_write() afterwards,
/// which then do nothing.
///
/// # Safety
/// `server` is NULL or points to NULL or to what `mg_create_server` returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_destroy_server(server: *mut *mut mg_server) {
    guard((), || {
        // SAFETY: by the caller's promise.
        let Some(server) = (unsafe { server.as_mut() }) else {
            return;
        };
        // SAFETY: as above.
        let hub = unsafe { hub(*server) };
        *server = ptr::null_mut();
        if let Some(hub) = hub {
            hold::destroy(hub);
        }
    });
}

/// Sets an option by its name. `value` is copied. NULL or "" unsets the option or resets it to
/// its default.
///
/// Returns NULL if the option is set, else a static English sentence that says why not; then the
/// old value stays. `listening_port` binds at once, `run_as_user` changes the user at once,
/// and the files that `ssl_certificate`, `ssl_certificates` and `ssl_ca_certificate` name are read
/// at once, also if they are the same as before. If one is refused and there is no older one, plain
/// HTTP is answered with 503 from then on, until a valid one is set or the option is unset.
///
/// To be called by the thread that polls, between polls or inside handlers. From another thread
/// during a poll the call is handed to the polling thread and waited for.
///
/// # Safety
/// `server` is NULL or from `mg_create_server`; `name` and `value` are NULL or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_set_option(
    server: *mut mg_server,
    name: *const c_char,
    value: *const c_char,
) -> *const c_char {
    let sentence = |sentence: &'static CStr| sentence.as_ptr();
    guard(sentence(c"Internal error"), || {
        // SAFETY: by the caller's promise.
        let (hub, name, value) = unsafe { (hub(server), c_str(name), c_str(value)) };
        let Some(hub) = hub else {
            return sentence(c"No server");
        };
        let Some(id) = name.and_then(lookup) else {
            return sentence(c"No such option");
        };
        let value = value.map(<[u8]>::to_vec);
        let set = on_server(hub, move |server| server.set_option(id, value.as_deref()));
        match set {
            Some(Ok(())) => ptr::null(),
            Some(Err(refusal)) => sentence(refusal),
            None => sentence(c"The server is busy"),
        }
    })
}

/// Returns the value of an option, which is its default if it was not set. For `listening_port`
/// this is the port that was bound.
///
/// Returns NULL for an unknown name, "" for an option that is unset. The string stays valid for
/// ever, and does not change when the option does.
///
/// To be called by the thread that polls; see mg_set_option().
///
/// # Safety
/// `server` is NULL or from `mg_create_server`; `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_get_option(
    server: *const mg_server,
    name: *const c_char,
) -> *const c_char {
    guard(ptr::null(), || {
        // SAFETY: by the caller's promise.
        let (hub, name) = unsafe { (hub(server), c_str(name)) };
        let (Some(hub), Some(id)) = (hub, name.and_then(lookup)) else {
            return ptr::null();
        };
        match on_server(hub, move |server| Kept(shown(server, id))) {
            Some(Kept(text)) => text,
            None => ptr::null(),
        }
    })
}

/// A string that is never freed.
#[derive(Clone, Copy)]
struct Kept(*const c_char);
// SAFETY: it points to memory that is never written to again.
unsafe impl Send for Kept {}

/// All strings that `mg_get_option` has returned, so that leak checkers find them in use.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Returns the text of an option for C. Programs keep such strings, and some free them: each value
/// is copied with `malloc` when it is first requested, and not accessed again.
fn shown(server: &mut Server, id: OptionId) -> *const c_char {
    let text = server.cx.options.get(id);
    if text.is_empty() {
        return c"".as_ptr();
    }
    let shown = &mut server.cx.shown_options[id as usize];
    if let Some(copy) = shown {
        return *copy;
    }
    // SAFETY: `text` is a C string.
    let copy = unsafe { libc::strdup(text.as_ptr()) }.cast_const();
    if !copy.is_null() {
        *shown = Some(copy);
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(Kept(copy));
    }
    copy
}

/// Runs one turn of the server's loop: waits up to `milliseconds` for an event (0: does not wait;
/// negative counts as 0), then accepts, reads, calls handlers and writes. To be called in a loop,
/// by one thread.
///
/// Returns the time in seconds since 1970. With NULL it sleeps. Called from inside a handler of
/// the same server, or while another thread polls it, it returns at once. A C++ exception that
/// leaves a handler passes through; the next poll goes on, without that handler's connection.
///
/// # Safety
/// `server` is NULL or from `mg_create_server`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mg_poll_server(
    server: *mut mg_server,
    milliseconds: c_int,
) -> c_uint {
    let wait = u32::try_from(milliseconds).unwrap_or(0);
    // SAFETY: by the caller's promise.
    let Some(hub) = (unsafe { hub(server) }) else {
        std::thread::sleep(Duration::from_millis(u64::from(wait)));
        return unix_seconds() as c_uint;
    };
    let Some(hold) = Hold::poll(hub) else {
        return unix_seconds() as c_uint;
    };
    with_server(&hold, |server| server.begin(wait));
    loop {
        match with_server(&hold, Server::step) {
            Some(Step::Call(conn, handler)) => {
                // SAFETY: this is a handler of the program, with a connection that is open. Nothing
                // of the server is borrowed during the call; an exception unwinds nothing but
                // `hold`.
                let result = unsafe { handler(conn) };
                with_server(&hold, |server| server.returned(result));
            }
            Some(Step::Iterate(conn, func, param)) => {
                // SAFETY: as above.
                unsafe { func(conn, param) };
                visited(&hold, conn);
            }
            Some(Step::Done) | None => break,
        }
    }
    drop(hold);
    unix_seconds() as c_uint
}

/// Runs a piece of the loop. If it panics, its connection is closed, since the state of the connection
/// is lost, and the server goes on.
fn with_server<R>(hold: &Hold, body: impl FnOnce(&mut Server) -> R) -> Option<R> {
    match catch(Err(()), || Ok(hold.with(body))) {
        Ok(result) => result,
        Err(()) => {
            catch(None, || hold.with(|server| server.recover(&faults::take_last())));
            None
        }
    }
}

/// Notes that the program's function has returned from a connection.
fn visited(hold: &Hold, conn: *mut mg_connection) {
    // SAFETY: `conn` is the pointer of a slot.
    let slot = unsafe { Slot::from_c(conn) };
    with_server(hold, |server| slot.map(|slot| server.visited(slot)));
}

/// Adds a handler for every request whose path begins with `uri`, byte for byte; "/" matches all.
/// Of several that match, the one added last is called. `uri` is copied.
///
/// The handler runs inside mg_poll_server(), once the whole request is there. One that is added
/// inside a handler counts from the next request on. It sees all methods.
///
/// To be called by the thread that polls; see mg_set_option().
///
/// # Safety
/// `server` is NULL or from `mg_create_server`; `uri` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_add_uri_handler(
    server: *mut mg_server,
    uri: *const c_char,
    handler: mg_handler_t,
) {
    guard((), || {
        // SAFETY: by the caller's promise.
        let (hub, uri) = unsafe { (hub(server), c_str(uri)) };
        let (Some(hub), Some(uri), Some(handler)) = (hub, uri, handler) else {
            return;
        };
        let uri = uri.to_vec();
        on_server(hub, move |server| server.add_handler(&uri, handler));
    });
}

/// Sets the handler that is called before every error response (4xx and 5xx, except 401); NULL
/// removes it. `conn->status_code` is the error. If the handler returns 0, its output is dropped
/// and the standard response is sent; otherwise its output is the response.
///
/// To be called by the thread that polls; see mg_set_option().
///
/// # Safety
/// `server` is NULL or from `mg_create_server`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_set_http_error_handler(server: *mut mg_server, handler: mg_handler_t) {
    guard((), || {
        // SAFETY: by the caller's promise.
        if let Some(hub) = unsafe { hub(server) } {
            on_server(hub, move |server| server.set_error_handler(handler));
        }
    });
}

/// Listens on `sock`, a bound and listening socket, in place of the one so far; -1 stops listening.
/// The socket may be one that another server uses already: then both accept from it, each in its
/// own thread. It is closed when the last server that uses it is freed, unless the descriptor is
/// another file by then. A descriptor that is no socket is refused; the error log says so.
///
/// To be called by the thread that polls; see mg_set_option().
///
/// # Safety
/// `server` is NULL or from `mg_create_server`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_set_listening_socket(server: *mut mg_server, sock: c_int) {
    guard((), || {
        // SAFETY: by the caller's promise.
        if let Some(hub) = unsafe { hub(server) } {
            on_server(hub, move |server| server.set_listening_socket(sock));
        }
    });
}

/// Returns the listening socket, or -1 if there is none. It still belongs to the server.
///
/// To be called by the thread that polls; see mg_set_option().
///
/// # Safety
/// `server` is NULL or from `mg_create_server`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_get_listening_socket(server: *mut mg_server) -> c_int {
    guard(-1, || {
        // SAFETY: by the caller's promise.
        let hub = unsafe { hub(server) };
        hub.and_then(|hub| on_server(hub, |server| server.listening_socket())).unwrap_or(-1)
    })
}

/// Calls `func` for each open websocket (each open connection, if the option `iterate_over` is
/// "all"), with `param` passed through. Those that close meanwhile are skipped, none is visited
/// twice. `func` may write to the connection; `conn->content` is "" there, or the last message of
/// the websocket where the option `iterate_content` is "last". With `func` NULL the connections are
/// only counted.
///
/// Any thread may call this at any time: `func` then runs on the thread that polls, and the call
/// returns when that is done. On the polling thread itself, and while no thread has polled yet, it
/// runs in place.
///
/// Returns the number of connections that were visited; -1 for NULL, when the polling thread has not
/// begun within `iterate_timeout_ms` or does not go on for so long, or when the server is destroyed.
///
/// # Safety
/// `server` is NULL or from `mg_create_server`, and may be destroyed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mg_iterate_over_connections(
    server: *mut mg_server,
    func: Option<unsafe extern "C-unwind" fn(conn: *mut mg_connection, param: *mut c_void)>,
    param: *mut c_void,
) -> c_int {
    // SAFETY: by the caller's promise.
    let Some(hub) = (unsafe { hub(server) }) else {
        return -1;
    };
    let Some(hold) = Hold::walk(hub) else {
        return guard(-1, || iterate_elsewhere(hub, func, Param(param)));
    };
    let Some(before) = hold.with(|server| server.walks()) else {
        return -1;
    };
    let walk = Walk { hold, before };
    let begun =
        catch(None, || walk.hold.with(|server| server.iterate_in_place(func, Param(param))));
    let Some((count, walks)) = begun else {
        return -1;
    };
    if !walks {
        return count;
    }
    while let Some(Step::Iterate(conn, func, param)) =
        catch(None, || walk.hold.with(Server::next_in_place)).flatten()
    {
        // SAFETY: this is the program's function, with a connection that is open. Nothing of the
        // server is borrowed during the call.
        unsafe { func(conn, param) };
        visited(&walk.hold, conn);
    }
    count
}

/// A walk over the connections in place. It also ends when an exception leaves the program's
/// function.
struct Walk {
    hold: Hold,
    before: (usize, usize),
}

impl Drop for Walk {
    fn drop(&mut self) {
        catch(None, || self.hold.with(|server| server.end_walks(self.before)));
    }
}

/// Lets the polling thread iterate, and waits for the result.
fn iterate_elsewhere(hub: &'static Hub, func: Option<IterateFn>, param: Param) -> c_int {
    let ticket = Arc::new(Ticket::default());
    let message = Message::Iterate { func, param, ticket: ticket.clone() };
    match hub.queue.push(message) {
        Ok(()) => ticket.wait(patience(hub)),
        Err(_) => -1,
    }
}

/// Returns the longest time for which a thread waits for the polling thread to begin.
fn patience(hub: &Hub) -> Duration {
    Duration::from_millis(hub.iterate_timeout_ms.load(Ordering::Relaxed))
}

/// Runs `body` on the server: here, or on the thread that polls it now. Returns `None` if the
/// server has been freed, or if that thread does not begin within `iterate_timeout_ms`.
fn on_server<R: Send + 'static>(
    hub: &'static Hub,
    body: impl FnOnce(&mut Server) -> R + Send + 'static,
) -> Option<R> {
    if let Some(hold) = Hold::short(hub) {
        return hold.with(body);
    }
    let result = Arc::new(Mutex::new(None));
    let place = result.clone();
    let run = move |server: &mut Server| {
        let value = body(server);
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    };
    hand_over(hub, Box::new(run));
    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
    result.take()
}

/// Lets the polling thread run a job. Waits for its end, or until the time limit if it does not
/// begin.
#[cold]
fn hand_over(hub: &Hub, job: Job) {
    let ticket = Arc::new(Ticket::default());
    if hub.queue.push(Message::Run(Box::new(job), ticket.clone())).is_ok() {
        ticket.wait(patience(hub));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    unsafe extern "C-unwind" fn silent(_: *mut mg_connection) -> c_int {
        0
    }

    #[test]
    fn a_fault_of_the_library_ends_the_connection_that_it_was_in_and_no_other() {
        let log = std::env::temp_dir().join(format!("mongoose-fault-{}.log", std::process::id()));
        let path = std::ffi::CString::new(log.to_str().expect("UTF-8")).expect("no NUL");
        let mut server = mg_create_server(ptr::null_mut());
        // SAFETY: the server is used by this thread alone, and every string is one of C.
        unsafe {
            assert!(mg_set_option(server, c"error_log_file".as_ptr(), path.as_ptr()).is_null());
            let port = c"127.0.0.1:0";
            assert!(mg_set_option(server, c"listening_port".as_ptr(), port.as_ptr()).is_null());
            mg_add_uri_handler(server, c"/silent".as_ptr(), Some(silent));
            let address = CStr::from_ptr(mg_get_option(server, c"listening_port".as_ptr()));
            let connect = || TcpStream::connect(address.to_str().expect("text")).expect("connects");
            let [mut other, mut client] = [connect(), connect()];
            for _ in 0..3 {
                mg_poll_server(server, 10);
            }
            client
                .write_all(b"GET /silent HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n")
                .expect("sent");
            let inside = hub(server).expect("a server");
            Hold::short(inside).expect("free").with(|server| server.cx.has_fault = true);
            for _ in 0..3 {
                mg_poll_server(server, 10);
            }
            // It ends without an answer to the second request, which would look like that to the first.
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer);
            assert_eq!(answer, b"");
            other.write_all(b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n").expect("sent");
            for _ in 0..3 {
                mg_poll_server(server, 10);
            }
            other.read_to_end(&mut answer).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 404 "));
            mg_destroy_server(&raw mut server);
        }
        let logged = std::fs::read_to_string(&log).expect("a log");
        let _ = std::fs::remove_file(&log);
        assert_eq!(logged.matches("a fault of the library").count(), 1, "{logged}");
        assert!(logged.contains("heads.rs:") && logged.contains("a fault on purpose"), "{logged}");
    }

    #[test]
    fn a_fault_of_the_library_is_in_the_log_and_is_printed_nowhere() {
        let name = "ffi::server::tests::\
            a_fault_of_the_library_ends_the_connection_that_it_was_in_and_no_other";
        let tests = std::env::current_exe().expect("this program");
        let ran = std::process::Command::new(tests).args([name, "--exact", "--nocapture"]).output();
        let ran = ran.expect("started");
        let (out, err) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && out.contains("1 passed"), "{out}{err}");
        assert!(!out.contains("panicked") && !err.contains("panicked"), "{out}{err}");
    }
}
