//! The protocol of new connections: plain HTTP, TLS, or none. TLS fails closed: where it was asked
//! for and cannot be spoken, plain HTTP does not take its place.
//!
//! Refuses to know sockets and connections.

use super::{Identity, Session};

/// The protocol that a listening socket was asked to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    /// TLS if a certificate is set, and plain HTTP otherwise.
    #[default]
    Any,
    Plain,
    Tls,
}

/// The protocol of new connections.
#[derive(Default)]
enum Speaks {
    #[default]
    Plain,
    Tls(Identity),
    /// None: TLS was asked for, but the certificate was refused and no older one is in force.
    Nothing,
}

/// The beginning of a connection.
pub enum Opening {
    Plain,
    Tls(Box<Session>),
    /// The connection must not be served; see [`Port::fail_closed`].
    Barred,
}

/// The protocol of new connections, and the buffers that all connections with TLS share.
#[derive(Default)]
pub struct Port {
    speaks: Speaks,
    /// Records as they are received.
    pub received: Vec<u8>,
    /// Records as they are sent.
    pub sealed: Vec<u8>,
}

impl Port {
    /// Begins a connection of a listening socket that speaks `speech`. `None` means that it cannot
    /// be served for now.
    pub fn open(&self, speech: Speech) -> Option<Opening> {
        match (&self.speaks, speech) {
            (_, Speech::Plain) | (Speaks::Plain, Speech::Any) => Some(Opening::Plain),
            (Speaks::Tls(identity), _) => Session::open(identity).map(Opening::Tls),
            (Speaks::Nothing, _) => Some(Opening::Barred),
            // The certificate is still to be set.
            (Speaks::Plain, Speech::Tls) => None,
        }
    }

    /// Shows this identity to new connections; with `None` they speak plain HTTP.
    pub fn show(&mut self, identity: Option<Identity>) {
        self.speaks = identity.map_or(Speaks::Plain, Speaks::Tls);
    }

    /// Bars new connections, since a setting for TLS was refused, unless a certificate is in force.
    /// Returns true if new connections spoke plain HTTP before. Without the feature `tls`, they
    /// never speak anything else.
    pub fn fail_closed(&mut self) -> bool {
        if !cfg!(feature = "tls") || !matches!(self.speaks, Speaks::Plain) {
            return false;
        }
        self.speaks = Speaks::Nothing;
        true
    }
}
