//! The protocol of new connections: plain HTTP, TLS, or none. TLS fails closed: where it was asked
//! for and cannot be spoken, plain HTTP does not take its place.
//!
//! Refuses to know sockets and connections.

use super::records::Records;
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
    /// None: TLS was asked for, but cannot be spoken as it was asked for. The text says why.
    Nothing(&'static str),
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
    pub sealed: Records,
}

impl Port {
    /// Begins a connection of a listening socket that speaks `speech`. `None` means that it cannot
    /// be served for now.
    pub fn open(&self, speech: Speech) -> Option<Opening> {
        match (&self.speaks, speech) {
            (_, Speech::Plain) | (Speaks::Plain, Speech::Any) => Some(Opening::Plain),
            (Speaks::Tls(identity), _) => Session::open(identity).map(Opening::Tls),
            (Speaks::Nothing(_), _) => Some(Opening::Barred),
            // The certificate is still to be set.
            (Speaks::Plain, Speech::Tls) => None,
        }
    }

    /// Shows this identity to new connections; with `None` they speak plain HTTP.
    pub fn show(&mut self, identity: Option<Identity>) {
        self.speaks = identity.map_or(Speaks::Plain, Speaks::Tls);
    }

    /// Bars new connections, since a setting for TLS was refused, for the reason that the error log
    /// shows. Returns true if new connections spoke plain HTTP before.
    pub fn fail_closed(&mut self, reason: &'static str) -> bool {
        let before = std::mem::replace(&mut self.speaks, Speaks::Nothing(reason));
        matches!(before, Speaks::Plain)
    }

    /// Returns the reason for which new connections are barred.
    pub fn reason(&self) -> &'static str {
        match self.speaks {
            Speaks::Nothing(reason) => reason,
            Speaks::Plain | Speaks::Tls(_) => "",
        }
    }
}
