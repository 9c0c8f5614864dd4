//! Each call of the library fails once, in each way that it can: `make inject`.
//!
//! A scenario is played once without a failure, under a shim that writes down the calls that the library makes
//! (`shim.c`). Then it is played again and again, in a new process each time: for each of these calls, and for
//! each error that it can return (`calls.rs`), that call fails. What has to hold all the same stands in
//! `playing.rs`.
//!
//! It runs by itself, on Linux on x86-64 (`tests/inject/run`).

#![allow(dead_code, unused_imports, unused_macros)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod calls;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod control;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod peer;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod playing;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod runner;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod scenarios;
#[macro_use]
#[path = "../c_boundary/support/mod.rs"]
mod support;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod world;

use support::lacks;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    runner::run(std::env::args().skip(1).collect())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("calls are made to fail on Linux on x86-64 only");
}
