//! The program `mongoose` as people use it: built by `make`, started with arguments, and asked over
//! sockets.

#[macro_use]
#[path = "../c_boundary/support/needs.rs"]
mod needs;
#[path = "../c_boundary/support/make.rs"]
mod make;
#[allow(dead_code)]
#[path = "../c_boundary/support/scratch.rs"]
mod scratch;
mod support;

mod completions;
mod passwords;
mod refusals;
mod sharing;
mod signals;
mod systemd;
mod terminals;
mod tls;
mod uploads;

use needs::{lacks, outside};

/// More than the slowest machine takes for anything.
fn deadline() -> std::time::Duration {
    std::time::Duration::from_secs(120)
}
