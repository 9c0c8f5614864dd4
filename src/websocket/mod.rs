//! Websockets as values (RFC 6455, RFC 7692): bytes in, values out.
//!
//! Owns the handshake, the frames, and their assembly into messages. Knows no socket and no
//! handler.
#![forbid(unsafe_code)]

#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "absent.rs"]
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod long_message;
pub mod message;
mod utf8;
