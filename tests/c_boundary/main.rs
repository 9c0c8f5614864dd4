//! The library as a C program meets it: compiled C and C++ programs on one side, bytes on the
//! wire on the other.
//!
//! `MG_TEST_VALGRIND=1` runs every program under valgrind; `MG_TEST_SANITIZE=1` says that programs and
//! library are built with sanitizers, see `tests/sanitizers/run`; `MG_TEST_CFLAGS` adds flags to those of
//! the compiler, as `-fsanitize=address,undefined`; `CC` and `CXX` name other compilers. A test whose
//! outside program is missing (`needs!`) is skipped; with `MG_TEST_ALL=1` it fails. `MG_TEST_RUNNER`,
//! `MG_TEST_LIBRARY` and `MG_TEST_WORK` are for other machines: see `tests/cross/run`. `MG_TEST_PRELOAD`
//! names a library that each program is started with: see `tests/slow/run`.

// A small build leaves out tests, and so what only they use.
#![cfg_attr(
    not(all(feature = "tls", feature = "webdav", feature = "cgi", feature = "deflate")),
    allow(dead_code, unused_imports)
)]

#[macro_use]
mod support;

use support::lacks;

mod abi;
mod answers;
mod basic_auth;
mod cgi;
#[cfg(feature = "cgi")]
mod cgi_processes;
mod cluster;
#[cfg(feature = "webdav")]
mod dav_depth;
#[cfg(feature = "webdav")]
mod dav_failing;
#[cfg(feature = "webdav")]
mod dav_hostile;
#[cfg(feature = "webdav")]
mod dav_locks;
#[cfg(feature = "webdav")]
mod dav_loss;
#[cfg(feature = "webdav")]
mod dav_meanwhile;
#[cfg(feature = "webdav")]
mod dav_moves;
#[cfg(feature = "webdav")]
mod dav_names;
#[cfg(feature = "webdav")]
mod dav_parts;
#[cfg(feature = "webdav")]
mod dav_properties;
#[cfg(feature = "webdav")]
mod dav_times;
#[cfg(feature = "webdav")]
mod dav_tolerance;
#[cfg(feature = "webdav")]
mod dav_trees;
#[cfg(feature = "webdav")]
mod dav_uploads;
mod early_answers;
mod errors;
mod event_loop;
mod examples;
mod failing_files;
mod freshness;
mod helpers;
mod hostile;
mod keep_alive;
mod limits;
mod listings;
mod local_sockets;
mod logs;
#[cfg(feature = "webdav")]
mod long_files;
#[cfg(feature = "deflate")]
mod long_messages;
mod options;
mod password_files;
mod passwords;
mod paths;
mod persistence;
mod ports;
mod proxies;
mod proxy_programs;
mod ranges;
#[cfg(feature = "tls")]
mod redirections;
mod representations;
mod requests;
mod sanitizers;
mod secrets;
mod send_family;
mod sending;
mod slow_files;
mod small_builds;
mod ssi;
mod static_files;
mod symlinks;
mod targets;
mod threads;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_clients;
#[cfg(feature = "tls")]
mod tls_closed;
#[cfg(feature = "tls")]
mod tls_hostile;
#[cfg(feature = "tls")]
mod tls_names;
#[cfg(feature = "tls")]
mod tls_records;
mod traces;
mod traversal;
#[cfg(feature = "webdav")]
mod upload_forms;
#[cfg(feature = "webdav")]
mod uploads;
mod websocket_handshake;
mod websocket_threads;
mod websockets;
