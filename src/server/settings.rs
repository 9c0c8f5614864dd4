//! The immediate effects of setting an option: logs, certificate, user, timers, limits.
//!
//! Refuses to know how a value is parsed, which is in `options`, and how the server listens, which is
//! in `ports`.

use std::ffi::{CStr, OsStr};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Server, user};
use crate::files::secrets::Place;
use crate::log::shown;
use crate::options::OptionId;
use crate::tls::Identity;

/// The number of bytes of a refused certificate file that are searched for a key.
const MAX_KEY_FILE: u64 = 1 << 20;

impl Server {
    /// Sets an option. `None` and the empty text reset it. The sentence of an error is meant for
    /// people.
    pub fn set_option(&mut self, id: OptionId, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let value = value.filter(|value| !value.is_empty());
        self.cx.shown_options[id as usize] = None;
        match id {
            OptionId::ListeningPort => self.listen_on(value)?,
            OptionId::SslCertificate => {
                let read = value.and_then(|path| std::fs::metadata(OsStr::from_bytes(path)).ok());
                if let Err(refusal) = self.set_certificate(value) {
                    // The file may hold a key all the same, for example with a password.
                    if let Some(read) = read.filter(|_| value.is_some_and(holds_key)) {
                        self.cx.files.secrets.note(Place::Key, &read);
                    }
                    return Err(refusal);
                }
                self.cx
                    .files
                    .secrets
                    .set(Place::Key, self.cx.options.config.ssl_certificate.clone());
                if let Some(read) = read {
                    self.cx.files.secrets.set_in_use(Place::Key, &read);
                }
            }
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

    /// Reads the certificate that new connections are shown from now on.
    fn set_certificate(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let identity = value.map(|path| Identity::load(Path::new(OsStr::from_bytes(path))));
        match identity.transpose() {
            Ok(identity) => {
                self.cx.options.set(OptionId::SslCertificate, value)?;
                self.cx.tls.show(identity);
                Ok(())
            }
            Err(refusal) => {
                self.cx.complain(&refusal.detail);
                if self.cx.tls.fail_closed() {
                    self.conns.iter_mut().for_each(|conn| conn.bar());
                }
                Err(refusal.sentence)
            }
        }
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
}

/// Returns whether a refused certificate file holds a key.
fn holds_key(path: &[u8]) -> bool {
    let mut options = OpenOptions::new();
    // A FIFO must not block the server.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let Ok(file) = options.open(OsStr::from_bytes(path)) else { return false };
    let mut text = Vec::new();
    file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(MAX_KEY_FILE).read_to_end(&mut text).is_ok()
        && memchr::memmem::find(&text, b"PRIVATE KEY-----").is_some()
}

/// Returns a path that stays the same when the program changes its directory.
fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}
