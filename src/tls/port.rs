//! What the new connections of a server speak: HTTP in the clear, TLS, or nothing. TLS fails closed: where it was
//! asked for and cannot be spoken, plain HTTP does not take its place.
//!
//! Refuses to know sockets and connections.

use std::path::Path;

use super::{Identity, Refusal, Session};

/// What new connections speak.
#[derive(Default)]
enum Speaks {
    #[default]
    Plain,
    Tls(Identity),
    /// Nothing: it should be TLS, but the certificate was refused and no older one is in force.
    Nothing,
}

/// The beginning of a connection.
pub enum Opening {
    Plain,
    Tls(Box<Session>),
    /// It must not be served; see [`Port::fail_closed`].
    Barred,
}

/// What new connections speak, and the buffers that all which speak TLS share.
#[derive(Default)]
pub struct Port {
    speaks: Speaks,
    /// Records as they arrive.
    pub received: Vec<u8>,
    /// Records as they are sent.
    pub sealed: Vec<u8>,
}

impl Port {
    /// Begins a connection. `None` means that it cannot be served for now.
    pub fn open(&self) -> Option<Opening> {
        match &self.speaks {
            Speaks::Plain => Some(Opening::Plain),
            Speaks::Tls(identity) => Session::open(identity).map(Opening::Tls),
            Speaks::Nothing => Some(Opening::Barred),
        }
    }

    /// Reads the file with key and certificates that new connections are shown from then on.
    pub fn load(path: &Path) -> Result<Identity, Refusal> {
        Identity::load(path)
    }

    /// Shows this to new connections; with `None` they are in the clear.
    pub fn show(&mut self, identity: Option<Identity>) {
        self.speaks = identity.map_or(Speaks::Plain, Speaks::Tls);
    }

    /// Bars new connections, as a setting for TLS was refused, unless a certificate is in force. True if
    /// they were in the clear before. A library without TLS never speaks anything else.
    pub fn fail_closed(&mut self) -> bool {
        if !cfg!(feature = "tls") || !matches!(self.speaks, Speaks::Plain) {
            return false;
        }
        self.speaks = Speaks::Nothing;
        true
    }
}
