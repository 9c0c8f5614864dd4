//! Websockets as values (RFC 6455, RFC 7692): bytes in, values out, no sockets.
#![forbid(unsafe_code)]

pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod message;
mod utf8;
