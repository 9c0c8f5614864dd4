//! The Common Gateway Interface (RFC 3875): the environment of a program, its process, and the head
//! of its output.
//!
//! Knows neither connections nor the event loop, which are in `server::cgi`.

pub mod environment;
pub mod header;
pub mod process;
