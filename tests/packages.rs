//! What packagers are promised: which names the static library has, and that the lists of what is
//! linked in are those of `Cargo.lock`.

#[macro_use]
#[path = "c_boundary/support/needs.rs"]
mod needs;

use needs::{lacks, outside};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The newest static library beside this test.
fn archive() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test program");
    let entries = fs::read_dir(test.parent().expect("its folder")).expect("its folder");
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libmongoose") && name.ends_with(".a")
    };
    let found = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours);
    found
        .max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok())
        .expect("a library")
}

#[test]
fn what_is_linked_in_is_listed_with_its_licence_as_the_lock_file_has_it() {
    needs!("python3");
    run(outside("python3").current_dir(root()).args(["packaging/third-party", "--check"]));
    let list = fs::read_to_string(root().join("THIRD-PARTY")).expect("THIRD-PARTY");
    let bill = fs::read_to_string(root().join("mongoose.cdx.json")).expect("mongoose.cdx.json");
    for place in [env!("CARGO_MANIFEST_DIR"), "/.cargo/", "registry/src", "index."] {
        assert!(!list.contains(place) && !bill.contains(place), "{place}");
    }
    assert!(!list.contains("has no file with the text of its licence"));
}

#[test]
fn the_static_library_has_no_global_names_but_those_of_the_interface() {
    needs!("c++");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    fs::create_dir_all(&folder).expect("a folder");
    let made = folder.join("libmongoose.a");
    let _ = fs::remove_file(&made);
    run(Command::new(root().join("packaging/localise")).arg(archive()).arg(&made));
    let names = run(Command::new("nm").args(["-g", "--defined-only"]).arg(&made));
    let names: Vec<&str> = names.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert!(names.contains(&"mg_poll_server") && names.contains(&"mg_printf"), "{names:?}");
    let others: Vec<_> = names.iter().filter(|name| !name.starts_with("mg_")).collect();
    assert!(others.is_empty(), "{others:?}");

    // Beside another static library of Rust, with a standard library of its own.
    let rust = folder.join("other.rs");
    let source = "#[unsafe(no_mangle)] pub extern \"C\" fn other() -> i32 \
        { std::panic::catch_unwind(|| panic!()).is_err().into() }";
    fs::write(&rust, source).expect("a source");
    let other = folder.join("libother.a");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run(Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "staticlib", "-o"])
        .arg(&other)
        .arg(&rust));
    let main = folder.join("main.c");
    let source = "#include <mongoose.h>\nint other(void);\nint main(void) {\n  \
        struct mg_server *server = mg_create_server(0);\n  mg_poll_server(server, 0);\n  \
        mg_destroy_server(&server);\n  return other() != 1;\n}\n";
    fs::write(&main, source).expect("a source");
    for (compiler, name) in [("cc", "main.c"), ("c++", "main.cc")] {
        let text = match name {
            "main.c" => source.to_owned(),
            _ => source.replace("int other(void);", "extern \"C\" int other(void);"),
        };
        let (file, program) = (folder.join(name), folder.join(format!("{name}.program")));
        fs::write(&file, text).expect("a source");
        run(Command::new(compiler)
            .arg("-I")
            .arg(root().join("include"))
            .arg(&file)
            .args([&made, &other])
            .args(["-lpthread", "-lm", "-ldl", "-o"])
            .arg(&program));
        run(&mut Command::new(&program));
    }
}
