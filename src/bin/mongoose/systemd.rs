//! What systemd tells a service, and is told by it, in the environment: sockets (`sd_listen_fds(3)`) and
//! messages (`sd_notify(3)`). Without systemd there is nothing, and nothing is done.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::net::{SocketType, sockopt};

use crate::failure::Failure;
use crate::terminal;

/// The first descriptor that is passed.
const FIRST: RawFd = 3;
/// The largest number of sockets, as of entries of `listening_port`.
const MOST: RawFd = mongoose::listening::MAX_ENTRIES as RawFd;

/// Returns the listening sockets that were passed to this process.
pub fn sockets() -> Result<Vec<RawFd>, Failure> {
    let number = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(value.to_str().and_then(|text| text.parse::<RawFd>().ok()).ok_or(value))
    };
    // What was meant for another process is none of ours.
    if number("LISTEN_PID") != Some(Ok(std::process::id().cast_signed())) {
        return Ok(Vec::new());
    }
    let count = match number("LISTEN_FDS") {
        None => return Ok(Vec::new()),
        Some(Ok(count)) if (0..=MOST).contains(&count) => count,
        Some(value) => {
            let value = value.map_or_else(|text| text.display().to_string(), |n| n.to_string());
            return Err(Failure::usage(format!("LISTEN_FDS: {value} is no number of sockets")));
        }
    };
    let fds: Vec<RawFd> = (FIRST..FIRST + count).collect();
    for fd in &fds {
        check(*fd).map_err(|why| {
            Failure::usage(format!("LISTEN_FDS: descriptor {fd} cannot be used: {why}"))
        })?;
    }
    Ok(fds)
}

/// Says why a descriptor is no listening socket.
fn check(fd: RawFd) -> Result<(), String> {
    // SAFETY: only borrowed for these calls, which fail cleanly if it is not open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    match sockopt::socket_type(socket) {
        Err(error) => return Err(error.to_string()),
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Err("it is no stream socket".to_owned()),
    }
    match sockopt::socket_acceptconn(socket) {
        Ok(true) => Ok(()),
        Ok(false) => Err("it does not listen (a socket unit needs Accept=no)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Who started the service, and hears of its states.
pub struct Manager(Option<OsString>);

impl Manager {
    pub fn from_environment() -> Manager {
        Manager(std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()))
    }

    /// Says that all is ready, also after a reload.
    pub fn ready(&self, status: &str) {
        let status = status.replace(char::is_control, " ");
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Says that settings are read anew.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
    }

    /// Says that the end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, message: &str) {
        if let Some(name) = &self.0
            && let Err(error) = send(name.as_bytes(), message.as_bytes())
        {
            let name = name.display();
            terminal::complain(&format!("NOTIFY_SOCKET: {name}: {error}"));
        }
    }
}

/// Sends to a path, or to an abstract name, which is written with `@`.
fn send(name: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}
