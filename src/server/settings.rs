//! The immediate effects of setting an option: logs, user, timers, limits. Those of TLS are in
//! `certificates`, and those of `listening_port` in `ports`.
//!
//! Refuses to know how a value is parsed, which is in `options`.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Server, left_out, user};
use crate::files::secrets::Place;
use crate::log::shown;
use crate::options::{OPTIONS, OptionId};

impl Server {
    /// Sets an option. `None` and the empty text reset it. The sentence of an error is meant for
    /// people.
    pub fn set_option(&mut self, id: OptionId, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let value = value.filter(|value| !value.is_empty());
        self.cx.shown_options[id as usize] = None;
        if let Some((value, sentence)) = value.and_then(|v| Some((v, left_out::refusal(id, v)?))) {
            self.hide_refused(id, value);
            let name = OPTIONS[id as usize].0.to_string_lossy();
            self.cx.complain(&format!("{name}: {}", sentence.to_string_lossy()));
            return Err(sentence);
        }
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
        self.cx.renew_links();
        self.cx.note_logs();
        self.apply(id);
        Ok(())
    }

    /// Hides what a value names that is refused because its feature is not built in: clients must not
    /// get such a file either.
    fn hide_refused(&mut self, id: OptionId, value: &[u8]) {
        match id {
            OptionId::DavAuthFile => {
                let path = PathBuf::from(OsStr::from_bytes(value));
                self.cx.files.secrets.set(Place::DavPasswords, Some(path));
            }
            _ => self.hide_refused_keys(id, Some(value)),
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
            OptionId::DefaultCharset | OptionId::ExtraMimeTypes | OptionId::FileCacheBytes => {
                self.cx.renew_cache();
            }
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

/// Returns a path that stays the same when the program changes its directory.
fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}
