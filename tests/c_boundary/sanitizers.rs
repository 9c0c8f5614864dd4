//! That the sanitizers see faults at all, in a program and in the library. Only where they are built in.

use std::process::Command;

use crate::support::{Link, compile_program, for_each, under_sanitizers};

#[test]
fn faults_are_seen_in_the_program_and_in_the_library() {
    if !under_sanitizers() {
        return;
    }
    let program = compile_program("faulty.c", Link::Shared);
    let cases = [
        ("freed", "heap-use-after-free"),
        ("sum", "signed integer overflow"),
        ("leak", "detected memory leaks"),
        ("library", "heap-buffer-overflow"),
    ];
    for_each(
        cases,
        |(kind, _)| (*kind).to_owned(),
        |(kind, name)| {
            let output = Command::new(&program).arg(kind).output().expect("runs");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && told.contains(name), "{told}");
            // The access is in the library's own code, which is instrumented, and not in a function of C that
            // the sanitizer has taken over.
            let is_there = |line: &str| line.contains("#0 ") && line.contains("libmongoose.so");
            assert!(*kind != "library" || told.lines().any(is_there), "{told}");
        },
    );
    let output = Command::new(&program).arg("nothing").output().expect("runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
