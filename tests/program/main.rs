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

use needs::{lacks, outside};
