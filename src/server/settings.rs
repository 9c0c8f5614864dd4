//! The immediate effects of setting an option: listening, logs, user, timers, limits. Those of TLS
//! are in `certificates`.
//!
//! Refuses to know how a value is parsed, which is in `options`.

use std::ffi::{CStr, OsStr};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::listener::Listener;
use super::{Server, user};
use crate::files::secrets::Place;
use crate::log::shown;
use crate::options::{OptionId, parse_listen};

/// The error for a port that cannot be bound.
const CANNOT_BIND: &CStr = c"Cannot bind to port";

impl Server {
    /// Sets an option. `None` and the empty text reset it. The sentence of an error is meant for
    /// people.
    pub fn set_option(&mut self, id: OptionId, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let value = value.filter(|value| !value.is_empty());
        self.cx.shown_options[id as usize] = None;
        match id {
            OptionId::ListeningPort => self.listen_on(value)?,
            OptionId::SslCaCertificate
            | OptionId::SslCertificate
            | OptionId::SslCertificates
            | OptionId::SslProtocols
            | OptionId::SslVerifyClient => self.set_tls(id, value)?,
            OptionId::RunAsUser => {
                if let Some(name) = value {
                    user::become_user(name).map_err(|error| {
                        let name = shown(OsStr::from_bytes(name));
                        self.cx.complain(&format!("run_as_user: {name}: {error}"));
                        match error.kind() {
                            io::ErrorKind::NotFound => c"There is no such user",
                            _ => c"Cannot change to this user",
                        }
                    })?;
                }
                self.cx.options.set(id, value)?;
            }
            _ => self.cx.options.set(id, value)?,
        }
        self.cx.files.shortcuts.clear();
        self.cx.note_logs();
        self.apply(id);
        Ok(())
    }

    /// Puts a new value of an option into effect.
    fn apply(&mut self, id: OptionId) {
        let config = &self.cx.options.config;
        match id {
            OptionId::AccessLogFile => {
                if self.cx.is_unnoticed_child() {
                    // The parent writes the lines that wait.
                    self.cx.logs.access.forget_waiting();
                }
                self.cx.logs.access.set_path(config.access_log_file.as_deref(), self.cx.clock.unix);
                self.cx
                    .files
                    .secrets
                    .set(Place::AccessLog, absolute(config.access_log_file.as_deref()));
                self.cx.logs.tend_now(self.cx.clock.unix);
            }
            OptionId::ErrorLogFile => {
                self.cx.logs.error.set_path(config.error_log_file.as_deref(), self.cx.clock.unix);
                self.cx
                    .files
                    .secrets
                    .set(Place::ErrorLog, absolute(config.error_log_file.as_deref()));
                self.cx.logs.tend_now(self.cx.clock.unix);
            }
            OptionId::GlobalAuthFile => {
                self.cx.files.secrets.set(Place::GlobalPasswords, config.global_auth_file.clone());
            }
            OptionId::DavAuthFile => {
                self.cx.files.secrets.set(Place::DavPasswords, config.dav_auth_file.clone());
            }
            OptionId::ExtraMimeTypes | OptionId::FileCacheBytes => self.cx.renew_cache(),
            OptionId::DocumentRoot => self.let_programs_be_watched(),
            OptionId::MaxConnections => self.acceptor.resume(),
            OptionId::CgiTimeoutMs => {
                self.cx.clock.update();
                let timeout = self.cx.options.config.cgi_timeout_ms;
                self.cx.programs.set_timeout(timeout, self.cx.clock.now);
            }
            OptionId::IdleTimeoutMs
            | OptionId::RequestTimeoutMs
            | OptionId::WebsocketPingIntervalMs => {
                self.cx.clock.update();
                for conn in self.conns.iter_mut() {
                    conn.timeouts_changed(&mut self.cx);
                }
            }
            _ => self.cx.publish_limits(),
        }
    }

    /// Listens where the option says, or nowhere.
    fn listen_on(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let Some(value) = value else {
            self.replace_listener(None);
            return self.cx.options.set(OptionId::ListeningPort, None);
        };
        let address = parse_listen(value).inspect_err(|refusal| {
            let value = shown(OsStr::from_bytes(value));
            self.cx.complain(&format!("listening_port: {value}: {}", refusal.to_string_lossy()));
        })?;
        let current = self.acceptor.listener().and_then(Listener::address);
        if current != Some(address) {
            let listener = self.bind(address).map_err(|error| {
                self.cx.complain(&format!("listening_port: cannot bind to {address}: {error}"));
                CANNOT_BIND
            })?;
            self.replace_listener(Some(listener));
        }
        self.cx.options.set(OptionId::ListeningPort, Some(value))?;
        if address.port() == 0 {
            self.show_address(address.ip(), !value.contains(&b':'));
        }
        Ok(())
    }

    /// Binds a socket, if necessary in place of the server's own, which may be in the way.
    fn bind(&mut self, address: SocketAddr) -> io::Result<Listener> {
        let error = match Listener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let Some(old) = self.acceptor.listener().filter(|old| !old.is_shared()) else {
            return Err(error);
        };
        let Some(old_address) = old.address() else {
            return Err(error);
        };
        if error.kind() != io::ErrorKind::AddrInUse || old_address.port() != address.port() {
            return Err(error);
        }
        self.replace_listener(None);
        Listener::bind(address).inspect_err(|_| match Listener::bind(old_address) {
            Ok(listener) => self.replace_listener(Some(listener)),
            Err(error) => self
                .cx
                .complain(&format!("listening_port: cannot bind to {old_address} again: {error}")),
        })
    }

    /// Shows the port that the kernel has chosen, in the form in which the program has asked for
    /// one.
    fn show_address(&mut self, ip: IpAddr, bare: bool) {
        let Some(address) = self.acceptor.listener().and_then(Listener::address) else {
            return;
        };
        let text = match bare {
            true => address.port().to_string(),
            false => SocketAddr::new(ip, address.port()).to_string(),
        };
        self.cx.options.store_text(OptionId::ListeningPort, Some(text.as_bytes()));
    }

    /// Replaces the listening socket, whose events end.
    pub(super) fn replace_listener(&mut self, listener: Option<Listener>) {
        self.cx.shown_options[OptionId::ListeningPort as usize] = None;
        if let Some(old) = self.acceptor.listener()
            && old.registered
            && old.is_valid()
            && !self.cx.is_unnoticed_child()
        {
            self.queue.unwatch_listener(old.fd());
        }
        self.acceptor.replace(listener);
    }

    /// Takes over a listening descriptor; -1 ends listening.
    pub fn set_listening_socket(&mut self, fd: i32) {
        if fd == -1 {
            self.replace_listener(None);
            self.cx.options.store_text(OptionId::ListeningPort, None);
            return;
        }
        match Listener::adopt(fd) {
            Ok(listener) => {
                self.replace_listener(Some(listener));
                let address = self.acceptor.listener().and_then(Listener::address);
                if let Some(address) = address {
                    let bare = address.ip() == IpAddr::from([0, 0, 0, 0]);
                    self.show_address(address.ip(), bare);
                }
            }
            Err(error) => self.cx.complain(&format!("cannot use descriptor {fd}: {error}")),
        }
    }

    /// Returns the listening descriptor, or -1.
    pub fn listening_socket(&self) -> i32 {
        self.acceptor.listener().map_or(-1, Listener::fd)
    }
}

/// Returns a path that stays the same when the program changes its directory.
fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}
