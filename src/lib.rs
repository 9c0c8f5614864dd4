//! The embedded web server API of Mongoose 5.0 for C and C++ programs.
//!
//! Imports run downwards only. `ffi` is the C interface and the only caller of user code. `server`
//! is the event loop, a state machine that never calls C. `connection` is one client: its socket,
//! and the state of its conversation. `answer` makes what is sent, `site` decides which answer a
//! request gets, and `exchange` has the values that pass between them. The modules below are
//! formats, files and tools. What a build leaves out (`docs/sizes.md`) has a stand-in of the same form in
//! its place, a file `absent.rs`. `tests/layers.rs` has the order, and `docs/architecture.md` the map.

#![allow(non_camel_case_types)]
// Of these machines Rust has no standard library made, and the compilers that make it take this.
#![cfg_attr(
    any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc",
        target_arch = "sparc64",
        target_arch = "csky",
        target_arch = "hexagon"
    ),
    feature(asm_experimental_arch)
)]

pub mod abi;
pub mod acl;
pub mod answer;
pub mod auth;
#[cfg(feature = "cgi")]
pub mod cgi;
#[cfg(not(feature = "cgi"))]
#[path = "cgi/absent.rs"]
pub mod cgi;
pub mod clock;
pub mod connection;
#[cfg(feature = "webdav")]
pub mod dav;
#[cfg(not(feature = "webdav"))]
#[path = "dav/absent.rs"]
pub mod dav;
pub mod exchange;
pub mod ffi;
pub mod files;
pub mod helpers;
pub mod http;
pub mod listening;
pub mod log;
pub mod long_files;
pub mod options;
pub mod pages;
pub mod pattern;
pub mod peer;
pub mod routes;
pub mod server;
pub mod shared;
pub mod site;
#[cfg(test)]
mod test_folder;
pub mod timers;
pub mod tls;
pub mod websocket;
