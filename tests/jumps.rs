//! The jumps of `src/ffi/jump.rs`, assembled for every CPU that Rust has with Linux: the compiler knows them
//! all, also those for which it has no standard library here.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// By their names in Rust: one of each kind of CPU and of each way to call a function.
const TARGETS: [&str; 20] = [
    "x86_64-unknown-linux-gnu",
    "i686-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
    "riscv64gc-unknown-linux-gnu",
    "riscv32gc-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
    "loongarch64-unknown-linux-gnu",
    "powerpc-unknown-linux-gnu",
    "powerpc64-unknown-linux-gnu",
    "powerpc64-unknown-linux-musl",
    "powerpc64le-unknown-linux-gnu",
    "mips-unknown-linux-gnu",
    "mipsel-unknown-linux-gnu",
    "mipsisa32r6-unknown-linux-gnu",
    "mips64el-unknown-linux-gnuabi64",
    "mipsisa64r6-unknown-linux-gnuabi64",
    "sparc64-unknown-linux-gnu",
    "csky-unknown-linux-gnuabiv2",
    "hexagon-unknown-linux-musl",
];

/// What a library without a library needs to be one.
const FRAME: &str = r#"
#![feature(no_core, lang_items, rustc_attrs, asm_experimental_arch)]
#![allow(internal_features, stable_features, unused)]
#![no_core]
#![crate_type = "lib"]
#[lang = "pointee_sized"] pub trait PointeeSized {}
#[lang = "meta_sized"] pub trait MetaSized: PointeeSized {}
#[lang = "sized"] pub trait Sized: MetaSized {}
#[lang = "copy"] pub trait Copy: Sized {}
#[rustc_builtin_macro] macro_rules! naked_asm { ($($words:tt)*) => {} }
"#;

/// A function that jumps to another one, as those of `src/ffi/variadic.rs` do.
const FUNCTION: &str = r#"
unsafe extern "C" { fn the_hidden_one(); }
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn the_exported_one() { naked_asm!(jump_to!(), sym the_hidden_one) }
"#;

/// Compiles a file for another machine; the words of the compiler if it refuses. What makes a library
/// without the standard one is only for compilers under development, or by this variable.
fn assemble(source: &Path, target: &str) -> Result<Vec<u8>, String> {
    let object = source.with_file_name(format!("{target}.o"));
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--edition", "2024", "--emit", "obj", "-C", "panic=abort", "--target", target, "-o"])
        .args([&object, source])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => fs::read(object).map_err(|error| error.to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_jumps_to_the_functions_in_c_are_assembled_for_every_cpu() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jumps");
    fs::create_dir_all(&folder).expect("a folder");
    let jumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi/jump.rs");
    let file = folder.join("frame.rs");
    fs::write(&file, FRAME).expect("a file");
    let with_jumps = folder.join("function.rs");
    let module = format!("#[path = {jumps:?}]\n#[macro_use]\nmod jump;\n");
    fs::write(&with_jumps, [FRAME, &module, FUNCTION].concat()).expect("a file");
    let mut tried = 0;
    for target in TARGETS {
        // Another compiler may know other targets, and call the parts of a library by other names.
        if let Err(words) = assemble(&file, target) {
            println!("{target} is skipped: {}", words.lines().next().unwrap_or_default());
            continue;
        }
        let object =
            assemble(&with_jumps, target).unwrap_or_else(|words| panic!("{target}: {words}"));
        for name in ["the_exported_one", "the_hidden_one"] {
            let is_there = object.windows(name.len()).any(|part| part == name.as_bytes());
            assert!(is_there, "{target}: the object has no {name}");
        }
        tried += 1;
    }
    println!("{tried} of {} targets", TARGETS.len());
    // With the compiler that the tests are made for (CI), all of them.
    assert!(tried == TARGETS.len() || std::env::var_os("MG_TEST_ALL").is_none_or(|all| all == "0"));
}
