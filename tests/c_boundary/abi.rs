//! The binary interface: exported names, layout, and a header that every compiler takes.

use crate::support::{Link, Program, compiles, library, root, tool};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const FUNCTIONS: [&str; 28] = [
    "mg_add_uri_handler",
    "mg_create_server",
    "mg_destroy_server",
    "mg_get_header",
    "mg_get_listening_socket",
    "mg_get_mime_type",
    "mg_get_option",
    "mg_get_valid_option_names",
    "mg_get_var",
    "mg_iterate_over_connections",
    "mg_md5",
    "mg_modify_passwords_file",
    "mg_parse_header",
    "mg_parse_multipart",
    "mg_poll_server",
    "mg_printf",
    "mg_printf_data",
    "mg_send_data",
    "mg_send_header",
    "mg_send_status",
    "mg_set_http_error_handler",
    "mg_set_listening_socket",
    "mg_set_option",
    "mg_start_thread",
    "mg_url_decode",
    "mg_vprintf",
    "mg_websocket_write",
    "mg_write",
];

fn output_of(program: &str, args: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(args).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names of the symbols that `nm` prints with one of these type letters.
fn symbols(listing: &str, letters: &str) -> BTreeSet<String> {
    let symbol = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let name = words.next()?.split('@').next()?.to_owned();
        letters.contains(words.next()?).then_some(name)
    };
    listing.lines().filter_map(symbol).collect()
}

#[test]
fn the_shared_library_exports_the_functions_of_the_api_and_nothing_else() {
    let listing = output_of(&tool("NM", "nm"), &["-D", "--defined-only"], &library(Link::Shared));
    let exported = symbols(&listing, "TtWwVvDdBbRrGgSsiu");
    let wanted: BTreeSet<String> = FUNCTIONS.iter().map(|name| name.to_string()).collect();
    assert_eq!(exported, wanted);
}

#[test]
fn the_static_library_holds_every_function_of_the_api() {
    // Not by nm, which may stumble over the LLVM bitcode in a release archive.
    let listing = output_of("readelf", &["-s", "--wide"], &library(Link::Static));
    let defined: BTreeSet<&str> = listing
        .lines()
        .filter(|line| line.contains(" FUNC ") && line.contains(" GLOBAL "))
        .filter(|line| !line.contains(" UND "))
        .filter_map(|line| line.split_whitespace().next_back())
        .collect();
    let missing: Vec<_> = FUNCTIONS.iter().filter(|name| !defined.contains(**name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn the_shared_library_carries_its_soname() {
    let listing = output_of("readelf", &["-d"], &library(Link::Shared));
    let soname = listing.lines().find(|line| line.contains("SONAME")).unwrap_or_default();
    assert!(soname.ends_with("[libmongoose.so.5]"), "{soname:?}");
}

/// The compiler for files of this kind, and Clang where it is installed.
fn compilers(source: &str) -> Vec<String> {
    let is_c = source.ends_with(".c");
    let (own, clang) =
        if is_c { (tool("CC", "cc"), "clang") } else { (tool("CXX", "c++"), "clang++") };
    let there = Command::new(clang).arg("--version").output().is_ok();
    [own].into_iter().chain(there.then(|| clang.to_owned())).collect()
}

/// What each of the compilers says about a file in `tests/programs`.
fn judged(source: &str, flags: &[&str]) -> Vec<(String, Result<(), String>)> {
    let path = root().join("tests/programs").join(source);
    let judge = |compiler: String| {
        let verdict = compiles(&compiler, &path, flags);
        (compiler, verdict)
    };
    compilers(source).into_iter().map(judge).collect()
}

#[track_caller]
fn is_taken(source: &str, flags: &[&str]) {
    for (compiler, verdict) in judged(source, flags) {
        if let Err(message) = verdict {
            panic!("{source} {flags:?}, {compiler}:\n{message}");
        }
    }
}

#[test]
fn the_header_compiles_without_a_warning_in_every_dialect_of_c() {
    for standard in ["c89", "c99", "c11", "gnu89", "gnu17"] {
        is_taken("abi.c", &[&format!("-std={standard}")]);
    }
}

#[test]
fn the_header_compiles_without_a_warning_in_every_dialect_of_cpp() {
    needs!("c++");
    for standard in ["c++98", "c++11", "c++17", "c++20", "gnu++17"] {
        is_taken("abi.cpp", &[&format!("-std={standard}")]);
    }
}

#[test]
fn a_cpp_program_may_have_an_mg_header_of_its_own() {
    needs!("c++");
    for order in [&[][..], &["-DOWN_FIRST"]] {
        for kind in [&[][..], &["-DOWN_TYPEDEF"]] {
            for standard in ["-std=c++98", "-std=c++17"] {
                is_taken("own_header.cpp", &[&[standard], order, kind].concat());
            }
        }
    }
}

#[test]
fn formats_that_do_not_fit_are_warned_of_unless_the_program_does_not_want_it() {
    const UNCHECKED: &str = "-DMONGOOSE_NO_FORMAT_CHECKS";
    let warned = |flags: &[&str], warning: &str| {
        for (compiler, verdict) in judged("formats.c", flags) {
            let message = verdict.expect_err(&compiler);
            assert!(message.contains(warning), "{flags:?}, {compiler}:\n{message}");
        }
    };
    is_taken("formats.c", &["-DCASE=0"]);
    is_taken("formats.c", &["-DCASE=0", UNCHECKED]);
    for case in ["-DCASE=1", "-DCASE=2"] {
        warned(&[case], "format");
        is_taken("formats.c", &[case, UNCHECKED]);
    }
    for case in ["-DCASE=3", "-DCASE=4"] {
        warned(&[case, "-Wformat-security"], "format-security");
        is_taken("formats.c", &[case, "-Wformat-security", UNCHECKED]);
    }
    // A missing NULL is no matter of formats.
    for more in [&[][..], &[UNCHECKED]] {
        warned(&[&["-DCASE=5"], more].concat(), "sentinel");
    }
}

#[test]
fn the_header_does_not_declare_what_old_programs_declare_themselves() {
    let header = root().join("include/mongoose.h");
    let text = output_of(&tool("CC", "cc"), &["-E", "-P"], &header);
    for name in ["mg_vprintf", "mg_url_decode"] {
        assert!(!text.contains(&format!("{name}(")), "{name} is declared");
    }
}

fn links_and_runs(program: &str) {
    for link in [Link::Shared, Link::Static] {
        let path = crate::support::compile_program(program, link);
        Program::start_file(&path, &[]).wait_for_end();
    }
}

#[test]
fn every_function_links_and_the_layout_is_the_old_one() {
    links_and_runs("abi.c");
}

#[test]
fn a_cpp_program_links_and_sees_the_header_structure_as_a_member() {
    needs!("c++");
    links_and_runs("abi.cpp");
}
