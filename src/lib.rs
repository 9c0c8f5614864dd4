//! The embedded web server API of Mongoose 5.0 for C and C++ programs.
//!
//! `ffi` is the C interface and the only caller of user code; `server` is the event loop, a state
//! machine that never calls C; the modules below it know nothing of sockets. Imports run downwards
//! only: `ffi`, then `server`, then the rest, in the order of `tests/layers.rs`.

#![allow(non_camel_case_types)]

pub mod abi;
pub mod acl;
pub mod answer;
pub mod auth;
pub mod cgi;
pub mod clock;
pub mod connection;
pub mod dav;
pub mod exchange;
pub mod ffi;
pub mod files;
pub mod http;
pub mod log;
pub mod options;
pub mod pattern;
pub mod routes;
pub mod server;
pub mod shared;
pub mod site;
#[cfg(test)]
mod test_folder;
pub mod timers;
pub mod tls;
pub mod websocket;
