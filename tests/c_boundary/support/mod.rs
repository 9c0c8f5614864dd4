//! What the tests need to speak about C programs and about bytes on the wire.
//!
//! Nothing here sleeps: a test waits for a line, for bytes or for the end of a connection, and the
//! deadline only says when waiting has become a failure.

#[cfg(feature = "tls")]
mod certificates;
mod client;
mod dav;
mod held_folder;
#[macro_use]
mod needs;
mod program;
mod scratch;
#[cfg(feature = "tls")]
mod sealed;
mod server;
mod toolchain;
mod trace;
#[cfg(feature = "tls")]
mod tunnel;
mod websocket;

#[cfg(feature = "tls")]
pub use certificates::{Authority, pem};
pub use client::{Client, Response, exchange, until_arrived};
pub use dav::{Dav, LOCK};
pub use held_folder::HeldFolder;
pub use needs::{lacks, outside};
pub use program::{Program, command_for};
pub use scratch::{Elsewhere, Mounted, Scratch};
#[cfg(feature = "tls")]
pub use sealed::{Sealed, Talk, leaf};
pub use server::{Server, request};
pub use toolchain::{
    Link, compile_example, compile_program, compile_with, compiles, has_32_bits, library, root,
    tool,
};
pub use trace::{Call, Trace};
#[cfg(feature = "tls")]
pub use tunnel::{Tunnel, client_config, open};
pub use websocket::{Websocket, WebsocketServer, close_payload, frame, handshake, header};

use std::time::{Duration, Instant};

/// When waiting for a program or for its bytes has become a failure: also on a machine that is ten times
/// slower than those on which the tests are written, and busy.
pub fn deadline() -> Duration {
    Duration::from_secs(match () {
        () if is_checked() => 300,
        () if !runner().is_empty() => 120,
        () => 60,
    })
}

/// The same in seconds, for programs that take it as an argument.
pub fn deadline_secs() -> String {
    deadline().as_secs().to_string()
}

/// What runs the C programs where they are those of another machine (`MG_TEST_RUNNER`), else "".
pub fn runner() -> String {
    std::env::var("MG_TEST_RUNNER").unwrap_or_default()
}

/// Whether the C programs run under qemu's emulation of a machine, which shows some things that no
/// real one would: then it is said what is not tried.
pub fn under_qemu(not_tried: &str) -> bool {
    if is_emulated() {
        eprintln!("not tried under qemu: {not_tried}");
    }
    is_emulated()
}

/// Whether the C programs run under valgrind (`MG_TEST_VALGRIND=1`).
pub fn under_valgrind() -> bool {
    std::env::var_os("MG_TEST_VALGRIND").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether the C programs and the library are built with sanitizers (`MG_TEST_SANITIZE=1`): see
/// `tests/sanitizers/run`.
pub fn under_sanitizers() -> bool {
    std::env::var_os("MG_TEST_SANITIZE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether something looks at each access to memory, and has memory and time of its own for that.
pub fn is_checked() -> bool {
    under_valgrind() || under_sanitizers()
}

/// Whether system calls of the C programs cannot be made to fail: under valgrind, which strace would trace
/// instead, and where they are those of another machine.
pub fn calls_cannot_fail() -> bool {
    let is_elsewhere = !runner().is_empty();
    if is_elsewhere {
        eprintln!("not tried on other machines: system calls that fail");
    }
    is_elsewhere || under_valgrind()
}

/// `count`, or less of it where valgrind, sanitizers or an emulator make each step dear.
pub fn as_many_as(count: usize, where_dear: usize) -> usize {
    if is_checked() || is_emulated() { where_dear } else { count }
}

fn is_emulated() -> bool {
    runner().starts_with("qemu-")
}

/// Bytes as text that shows every control character.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// Repeats `attempt` until it succeeds; it must, before the deadline.
#[track_caller]
pub fn until(what: &str, mut attempt: impl FnMut() -> bool) {
    let end = Instant::now() + deadline();
    while !attempt() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        // For the server, where it has no processor of its own.
        std::thread::yield_now();
    }
}

/// The lines of an error log that hold `what`, and how many failures they stand for: one that comes
/// too often is counted.
pub fn failures(log: &str, what: &str) -> (usize, usize) {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(what)).collect();
    let count = |line: &&str| -> usize {
        let counted = line.split_once(" more within a second: ");
        let number = counted.and_then(|(start, _)| start.rsplit(' ').next());
        number.map_or(1, |number| number.parse().expect("a number"))
    };
    (lines.len(), lines.iter().map(count).sum())
}

/// Runs `test` on every case and fails at the end, naming all cases that failed.
#[track_caller]
pub fn for_each<Case>(
    cases: impl IntoIterator<Item = Case>,
    name: impl Fn(&Case) -> String,
    test: impl Fn(&Case),
) {
    let mut failed = Vec::new();
    for case in cases {
        let run = std::panic::AssertUnwindSafe(|| test(&case));
        if std::panic::catch_unwind(run).is_err() {
            eprintln!("in the case {}", name(&case));
            failed.push(name(&case));
        }
    }
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
}
