//! The Common Gateway Interface (RFC 3875): what a program is told, how it is started, and what
//! it says before its content. The event loop's side is in `server::cgi`.

pub mod environment;
pub mod header;
pub mod process;
