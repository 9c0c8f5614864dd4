//! A server of the library, without pointers.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use mongoose::abi::mg_server;
use mongoose::ffi::hold::{self, Hold};
use mongoose::ffi::server::{
    mg_create_server, mg_destroy_server, mg_get_option, mg_poll_server, mg_set_option,
};
use mongoose::shared::hub::Hub;

/// A server, which is destroyed at the end.
pub struct Server {
    server: *mut mg_server,
    hub: &'static Hub,
}

/// Ends the wait of a server, from any thread.
#[derive(Clone, Copy)]
pub struct Waker(&'static Hub);

impl Waker {
    pub fn wake(&self) {
        self.0.queue.wake();
    }
}

impl Server {
    /// Creates a server; `None` means that there is no memory.
    pub fn new() -> Option<Server> {
        let server = mg_create_server(std::ptr::null_mut());
        // SAFETY: it was just created.
        let hub = unsafe { hold::hub(server) }?;
        Some(Server { server, hub })
    }

    pub fn waker(&self) -> Waker {
        Waker(self.hub)
    }

    /// Sets an option, or says why not.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
            return Err("there is a zero byte in the value".to_owned());
        };
        // SAFETY: the server lives, and both are C strings.
        let refusal = unsafe { mg_set_option(self.server, name.as_ptr(), value.as_ptr()) };
        if refusal.is_null() {
            return Ok(());
        }
        // SAFETY: what is returned is a C string that is never freed.
        Err(unsafe { CStr::from_ptr(refusal) }.to_string_lossy().into_owned())
    }

    /// Returns the value of an option.
    pub fn get(&self, name: &CStr) -> Vec<u8> {
        // SAFETY: the server lives, and the name is a C string.
        let value = unsafe { mg_get_option(self.server, name.as_ptr()) };
        if value.is_null() {
            return Vec::new();
        }
        // SAFETY: what is returned is a C string that is never freed.
        unsafe { CStr::from_ptr(value) }.to_bytes().to_vec()
    }

    /// Runs one turn, which waits at most so many milliseconds.
    pub fn poll(&mut self, milliseconds: u16) {
        // SAFETY: the server lives.
        unsafe { mg_poll_server(self.server, milliseconds.into()) };
    }

    /// Listens on sockets that this process was started with.
    pub fn adopt(&mut self, sockets: &[RawFd]) -> Result<(), String> {
        let adopted = self.with(|server| server.set_listening_sockets(sockets));
        adopted.unwrap_or(Ok(())).map_err(|error| error.to_string())
    }

    /// Closes the connections that wait for a request, and returns the number of the others.
    pub fn close_idle(&mut self) -> usize {
        self.with(mongoose::server::Server::close_idle).unwrap_or(0)
    }

    fn with<R>(&mut self, body: impl FnOnce(&mut mongoose::server::Server) -> R) -> Option<R> {
        Hold::short(self.hub)?.with(body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: the server lives, and is not used any more.
        unsafe { mg_destroy_server(&mut self.server) };
    }
}
