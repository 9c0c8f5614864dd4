//! The options of TLS: what is read when one is set, what new connections speak from then on, and
//! what they do not speak any more because a value was refused (fail closed).
//!
//! Owns the settings that are in force. Refuses to know how certificates are read and checked,
//! which is in the room `tls`.

use std::ffi::CStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::Server;
use crate::files::secrets::Place;
use crate::options::{OPTIONS, OptionId, VerifyClient};
use crate::tls::setup::{Pem, Setup, TEXT};
use crate::tls::{Authorities, Certificate, Identity, Refusal};

/// The number of bytes of a file that are searched for a key.
const MAX_KEY_FILE: u64 = 1 << 20;

/// The settings of TLS.
#[derive(Default)]
pub struct Certificates {
    /// The settings in force.
    setup: Setup,
    /// The options of which a value was refused while none was in force.
    missing: Vec<OptionId>,
}

/// A setting that was read, and has not taken effect.
struct Loaded {
    setup: Setup,
    identity: Option<Identity>,
    /// The files that were read, as they were before.
    files: Vec<Option<Metadata>>,
}

impl Server {
    /// Sets an option of TLS. What is refused leaves the old value in force; if there is none, new
    /// connections are barred.
    pub(super) fn set_tls(
        &mut self,
        id: OptionId,
        value: Option<&[u8]>,
    ) -> Result<(), &'static CStr> {
        match self.load(id, value) {
            Ok(loaded) => {
                match value.is_some_and(|value| takes_text(id) && Pem::of(value).is_text()) {
                    true => {
                        // Neither the configuration nor C gets hold of a key.
                        self.cx.options.set(id, None)?;
                        self.cx.options.store_text(id, Some(TEXT.to_bytes()));
                    }
                    false => self.cx.options.set(id, value)?,
                }
                self.certificates.setup = loaded.setup;
                self.certificates.missing.retain(|missing| *missing != id);
                self.hide_keys(id, loaded.files);
                self.cx.tls.show(loaded.identity);
                self.close_if_unsafe();
                Ok(())
            }
            Err(refusal) => {
                self.cx.complain(&refusal.detail);
                self.hide_refused_keys(id, value);
                if !self.cx.options.is_set(id) && id != OptionId::SslVerifyClient {
                    self.certificates.missing.retain(|missing| *missing != id);
                    self.certificates.missing.push(id);
                    self.close_if_unsafe();
                }
                Err(refusal.sentence)
            }
        }
    }

    /// Reads what a value names, and makes of it what new connections share.
    fn load(&self, id: OptionId, value: Option<&[u8]>) -> Result<Loaded, Refusal> {
        let name = name_of(id);
        let mut setup = self.certificates.setup.clone();
        let mut files = Vec::new();
        let mut look = |pem: &Pem<'_>| {
            files.push(match pem {
                Pem::File(path) => fs::metadata(path).ok(),
                Pem::Text(_) => None,
            });
        };
        let config = self.cx.options.with(id, value).map_err(|sentence| {
            let detail = format!("{name}: {}", sentence.to_string_lossy());
            Refusal { sentence, detail }
        })?;
        match id {
            OptionId::SslCertificate => {
                let pem = value.map(Pem::of);
                pem.iter().for_each(&mut look);
                let certificate = pem.map(|pem| Certificate::load(&name, &pem));
                setup.certificate = certificate.transpose()?;
            }
            OptionId::SslCaCertificate => {
                let pem = value.map(Pem::of);
                pem.iter().for_each(&mut look);
                let authorities = pem.map(|pem| Authorities::load(&name, &pem));
                setup.authorities = authorities.transpose()?;
            }
            OptionId::SslCertificates => {
                let load = |(host, path): (String, _)| {
                    let pem = Pem::File(path);
                    look(&pem);
                    Ok((host, Certificate::load(&name, &pem)?))
                };
                let named = config.ssl_certificates.iter();
                let named = named.map(|(host, path)| (host.clone(), path.as_path()));
                setup.named = named.map(load).collect::<Result<_, _>>()?;
            }
            OptionId::SslProtocols => setup.protocols = config.ssl_protocols,
            _ => setup.verify = config.ssl_verify_client.unwrap_or_default(),
        }
        let identity = setup.identity()?;
        Ok(Loaded { setup, identity, files })
    }

    /// Bars new connections where TLS cannot be spoken as it was asked for, and also connections
    /// that have spoken plain HTTP so far.
    fn close_if_unsafe(&mut self) {
        let Some(reason) = self.lack() else { return };
        if self.cx.tls.fail_closed(reason) {
            self.conns.iter_mut().for_each(|conn| conn.bar());
        }
    }

    /// Returns what TLS lacks, if new connections have to be barred for it.
    fn lack(&self) -> Option<&'static str> {
        let Certificates { setup, missing } = &self.certificates;
        let requires = self.cx.options.config.ssl_verify_client == Some(VerifyClient::Require);
        let is_missing = |id: OptionId| missing.contains(&id);
        if !cfg!(feature = "tls") {
            None
        } else if is_missing(OptionId::SslCaCertificate) {
            Some("ssl_ca_certificate was refused, and none is in force")
        } else if is_missing(OptionId::SslProtocols) {
            Some("ssl_protocols was refused, and no value of it is in force")
        } else if requires && setup.authorities.is_none() {
            Some("ssl_verify_client is require, and no ssl_ca_certificate is set")
        } else if !missing.is_empty() && !setup.has_certificate() {
            Some("no certificate is in force")
        } else {
            None
        }
    }

    /// Hides the files with keys that an option names now.
    fn hide_keys(&mut self, id: OptionId, files: Vec<Option<Metadata>>) {
        let config = &self.cx.options.config;
        let secrets = &mut self.cx.files.secrets;
        let mut read = files.into_iter();
        match id {
            OptionId::SslCertificate => {
                secrets.set(Place::Key, config.ssl_certificate.clone());
                if let Some(read) = read.next().flatten() {
                    secrets.set_in_use(Place::Key, &read);
                }
            }
            OptionId::SslCertificates => {
                let paths = config.ssl_certificates.iter().map(|(_, path)| path.clone());
                secrets.set_keys(paths.zip(read).collect());
            }
            OptionId::SslCaCertificate => {
                let path = config.ssl_ca_certificate.clone();
                secrets.set(Place::Authorities, path.filter(|path| holds_key(path)));
            }
            _ => {}
        }
    }

    /// Hides the files of a refused value that hold a key all the same, for example one with a
    /// password.
    pub(super) fn hide_refused_keys(&mut self, id: OptionId, value: Option<&[u8]>) {
        let Ok(config) = self.cx.options.with(id, value) else { return };
        let paths: Vec<&Path> = match id {
            OptionId::SslCertificate => config.ssl_certificate.iter().map(AsRef::as_ref).collect(),
            OptionId::SslCaCertificate => {
                config.ssl_ca_certificate.iter().map(AsRef::as_ref).collect()
            }
            OptionId::SslCertificates => {
                config.ssl_certificates.iter().map(|(_, path)| path.as_path()).collect()
            }
            _ => Vec::new(),
        };
        for path in paths {
            if holds_key(path)
                && let Ok(found) = fs::metadata(path)
            {
                self.cx.files.secrets.note(Place::Key, &found);
            }
        }
    }
}

fn name_of(id: OptionId) -> String {
    OPTIONS[id as usize].0.to_string_lossy().into_owned()
}

/// Returns whether the value of an option may be PEM text.
fn takes_text(id: OptionId) -> bool {
    matches!(id, OptionId::SslCertificate | OptionId::SslCaCertificate)
}

/// Returns whether a file holds a key.
fn holds_key(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    // A FIFO must not block the server.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let Ok(file) = options.open(path) else { return false };
    let mut text = Vec::new();
    file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(MAX_KEY_FILE).read_to_end(&mut text).is_ok()
        && memchr::memmem::find(&text, b"PRIVATE KEY-----").is_some()
}
