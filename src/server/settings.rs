//! What happens when an option changes.

use std::ffi::{CStr, OsStr};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use mio::unix::SourceFd;

use super::connection::Phase;
use super::listener::Listener;
use super::{FORKS, Server, user};
use crate::files::cache::Cache;
use crate::files::secrets::Place;
use crate::log::shown;
use crate::options::{OptionId, parse_listen};

/// Files that are kept open at most.
const CACHED_DESCRIPTORS: usize = 128;

/// So much of a file that was refused as a certificate is searched for a key.
const MAX_KEY_FILE: u64 = 1 << 20;

const CANNOT_BIND: &CStr = c"Cannot bind to port";

impl Server {
    /// Sets an option; `None` and the empty text reset it. The sentence of an error is for people.
    pub fn set_option(&mut self, id: OptionId, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let value = value.filter(|value| !value.is_empty());
        self.shown_options[id as usize] = None;
        match id {
            OptionId::ListeningPort => self.listen_on(value)?,
            OptionId::SslCertificate => {
                let read = value.and_then(|path| std::fs::metadata(OsStr::from_bytes(path)).ok());
                if let Err(refusal) = self.set_certificate(value) {
                    // It may be a key all the same, with a password for example.
                    if let (Some(path), Some(read)) = (value, read)
                        && holds_key(Path::new(OsStr::from_bytes(path)), &read)
                    {
                        self.secrets.note(Place::Key, &read);
                    }
                    return Err(refusal);
                }
                self.secrets.set(Place::Key, self.options.config.ssl_certificate.clone());
                if let Some(read) = read {
                    self.secrets.set_in_use(Place::Key, &read);
                }
            }
            OptionId::RunAsUser => {
                if let Some(name) = value {
                    user::become_user(name).map_err(|error| {
                        let name = shown(OsStr::from_bytes(name));
                        self.complain(None, &format!("run_as_user: {name}: {error}"));
                        match error.kind() {
                            io::ErrorKind::NotFound => c"There is no such user",
                            _ => c"Cannot change to this user",
                        }
                    })?;
                }
                self.options.set(id, value)?;
            }
            _ => self.options.set(id, value)?,
        }
        self.shortcuts.clear();
        self.note_logs();
        self.apply(id);
        Ok(())
    }

    fn apply(&mut self, id: OptionId) {
        let config = &self.options.config;
        match id {
            OptionId::AccessLogFile => {
                if self.forks != FORKS.load(Ordering::Relaxed) {
                    // The parent writes what waits.
                    self.access_log.forget_waiting();
                }
                self.access_log.set_path(config.access_log_file.as_deref(), self.clock.unix);
                self.secrets.set(Place::AccessLog, absolute(config.access_log_file.as_deref()));
                self.tend_logs();
            }
            OptionId::ErrorLogFile => {
                self.error_log.set_path(config.error_log_file.as_deref(), self.clock.unix);
                self.secrets.set(Place::ErrorLog, absolute(config.error_log_file.as_deref()));
                self.tend_logs();
            }
            OptionId::GlobalAuthFile => {
                self.secrets.set(Place::GlobalPasswords, config.global_auth_file.clone());
            }
            OptionId::DavAuthFile => {
                self.secrets.set(Place::DavPasswords, config.dav_auth_file.clone());
            }
            OptionId::ExtraMimeTypes | OptionId::FileCacheBytes => self.renew_cache(),
            OptionId::MaxConnections => self.accept_paused = false,
            OptionId::CgiTimeoutMs => {
                self.clock.update();
                self.file_programs();
            }
            OptionId::IdleTimeoutMs
            | OptionId::RequestTimeoutMs
            | OptionId::WebsocketPingIntervalMs => {
                self.clock.update();
                for index in 0..self.conns.len() {
                    let phase = self.conn(index).map(|conn| conn.phase);
                    if phase.is_some_and(|phase| phase != Phase::Lingering) {
                        self.set_timer(index);
                    }
                }
            }
            _ => self.publish_limits(),
        }
    }

    /// Finds out what the options that name keys, password files and logs lead to.
    #[inline]
    pub(super) fn look_at_secrets(&mut self) {
        if !self.secrets.is_empty() {
            self.note_logs();
            self.secrets.look(self.look);
        }
    }

    /// Remembers which logs are open, since their paths may soon lead elsewhere.
    pub(super) fn note_logs(&mut self) {
        let logs = [(Place::AccessLog, &self.access_log), (Place::ErrorLog, &self.error_log)];
        for (place, log) in logs {
            self.secrets.note_open(place, log.identity(), || log.metadata());
        }
    }

    /// Forgets all files, whose fields hold media types.
    pub(super) fn renew_cache(&mut self) {
        let config = &self.options.config;
        let types = config.extra_mime_types.clone();
        self.cache = Cache::new(config.file_cache_bytes, CACHED_DESCRIPTORS, types);
    }

    /// Tells other threads what they must not exceed.
    pub(super) fn publish_limits(&self) {
        let config = &self.options.config;
        let hub = self.hub;
        hub.iterate_timeout_ms.store(config.iterate_timeout_ms, Ordering::Relaxed);
        hub.max_send_queue.store(config.max_send_queue_bytes, Ordering::Relaxed);
        hub.max_buffered.store(config.max_buffered_bytes, Ordering::Relaxed);
    }

    fn listen_on(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let Some(value) = value else {
            self.replace_listener(None);
            return self.options.set(OptionId::ListeningPort, None);
        };
        let address = parse_listen(value).inspect_err(|refusal| {
            let value = shown(OsStr::from_bytes(value));
            self.complain(None, &format!("listening_port: {value}: {}", refusal.to_string_lossy()));
        })?;
        let current = self.listener.as_ref().and_then(Listener::address);
        if current != Some(address) {
            let listener = self.bind(address).map_err(|error| {
                self.complain(None, &format!("listening_port: cannot bind to {address}: {error}"));
                CANNOT_BIND
            })?;
            self.replace_listener(Some(listener));
        }
        self.options.set(OptionId::ListeningPort, Some(value))?;
        if address.port() == 0 {
            self.show_address(address.ip(), !value.contains(&b':'));
        }
        Ok(())
    }

    /// Binds, if need be in place of our own socket, which may be what is in the way.
    fn bind(&mut self, address: SocketAddr) -> io::Result<Listener> {
        let error = match Listener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let Some(old) = self.listener.as_ref().filter(|old| !old.is_shared()) else {
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
            Err(error) => self.complain(
                None,
                &format!("listening_port: cannot bind to {old_address} again: {error}"),
            ),
        })
    }

    /// Shows the port that was picked, in the form in which one was asked for.
    fn show_address(&mut self, ip: IpAddr, bare: bool) {
        let Some(address) = self.listener.as_ref().and_then(Listener::address) else {
            return;
        };
        let text = match bare {
            true => address.port().to_string(),
            false => SocketAddr::new(ip, address.port()).to_string(),
        };
        self.options.store_text(OptionId::ListeningPort, Some(text.as_bytes()));
    }

    pub(super) fn replace_listener(&mut self, listener: Option<Listener>) {
        self.shown_options[OptionId::ListeningPort as usize] = None;
        if let (Some(poll), Some(old)) = (&self.poll, &self.listener)
            && old.registered
            && old.is_valid()
            && !self.is_forked()
        {
            // Closing does not end its events while another process holds it open.
            let _ = poll.registry().deregister(&mut SourceFd(&old.fd()));
        }
        self.listener = listener;
    }

    /// Takes over a listening descriptor; -1 stops listening.
    pub fn set_listening_socket(&mut self, fd: i32) {
        if fd == -1 {
            self.replace_listener(None);
            self.options.store_text(OptionId::ListeningPort, None);
            return;
        }
        match Listener::adopt(fd) {
            Ok(listener) => {
                self.replace_listener(Some(listener));
                let address = self.listener.as_ref().and_then(Listener::address);
                if let Some(address) = address {
                    let bare = address.ip() == IpAddr::from([0, 0, 0, 0]);
                    self.show_address(address.ip(), bare);
                }
            }
            Err(error) => self.complain(None, &format!("cannot use descriptor {fd}: {error}")),
        }
    }

    /// The listening descriptor, or -1.
    pub fn listening_socket(&self) -> i32 {
        self.listener.as_ref().map_or(-1, Listener::fd)
    }
}

/// Whether a file that was refused as a certificate has a key in it. What is no file, as a FIFO, could be
/// waited for without end.
fn holds_key(path: &Path, meta: &Metadata) -> bool {
    let mut text = Vec::new();
    meta.is_file()
        && File::open(path).is_ok_and(|file| {
            file.take(MAX_KEY_FILE).read_to_end(&mut text).is_ok()
                && memchr::memmem::find(&text, b"PRIVATE KEY-----").is_some()
        })
}

/// A path that stays the same when the program changes its directory.
fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}
