//! Programs from outside that a test cannot do without.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The list of those programs; it says how it reads.
const TOOLS: &str = include_str!("../../tools");

/// Ends the test here, as skipped, where one of these programs is missing: each is named as in
/// `tests/tools`. With `MG_TEST_ALL=1` the test fails instead, but for what no package brings.
macro_rules! needs {
    ($($tool:literal),+) => {
        if $crate::lacks(&[$($tool),+]) {
            return;
        }
    };
}

thread_local! {
    /// What the test on this thread has named by `needs!`.
    static NAMED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// A command for a program from outside. The test has to name it by `needs!`: without that it fails where
/// the program is missing, and only there.
#[track_caller]
pub fn outside(tool: &str) -> Command {
    assert_named(tool);
    Command::new(tool)
}

/// See [`outside`].
#[track_caller]
pub fn assert_named(tool: &str) {
    let is_named = NAMED.with_borrow(|named| named.contains(tool));
    // Further threads of a test have no name.
    let is_test = std::thread::current().name().is_some();
    assert!(is_named || !is_test, "the test runs {tool:?}, and does not say needs!({tool:?})");
}

/// Whether one of these is missing. Then it is noted for the end of `make test`.
pub fn lacks(tools: &[&str]) -> bool {
    NAMED.with_borrow_mut(|named| named.extend(tools.iter().map(|tool| tool.to_string())));
    let missing: Vec<_> = tools.iter().filter_map(|tool| package_if_missing(tool)).collect();
    if missing.is_empty() {
        return false;
    }
    // What no package brings is not for the test machine to install.
    let can_be_installed = missing.iter().any(|name| !name.starts_with("mount-"));
    let missing = missing.join(" ");
    if can_be_installed
        && std::env::var_os("MG_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
    {
        panic!("missing, by Debian's names: {missing}");
    }
    let thread = std::thread::current();
    let line = format!("{}\t{missing}\n", thread.name().unwrap_or("a test"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of skipped tests");
    // Not by a macro, whose text would be shown only where the test fails.
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    true
}

/// The package to install for a tool, if it is missing; its own name where no package brings it.
fn package_if_missing(tool: &str) -> Option<&'static str> {
    static KNOWN: Mutex<Option<HashMap<String, bool>>> = Mutex::new(None);
    let line = TOOLS.lines().find(|line| line.split(' ').next() == Some(tool));
    let line = line.unwrap_or_else(|| panic!("{tool:?} is not in tests/tools"));
    let mut parts = line.splitn(3, ' ').skip(1);
    let package = parts.next().unwrap_or_else(|| panic!("no package for {tool:?} in tests/tools"));
    // `CXX` and the like name another command.
    let own = if tool == "c++" { std::env::var("CXX").ok() } else { None };
    let check = match (own, parts.next()) {
        (Some(own), _) => format!("command -v {own}"),
        (None, Some(check)) => check.to_owned(),
        (None, None) => format!("command -v {tool}"),
    };
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let is_there = known.get_or_insert_default().entry(check).or_insert_with_key(|check| {
        let mut shell = Command::new("sh");
        shell.args(["-c", check]).stdin(Stdio::null()).stdout(Stdio::null());
        shell.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    (!*is_there).then_some(if package == "-" { line.split(' ').next()? } else { package })
}
