//! `make install` as a packager uses it: what lies where, and programs that are built from it.

#[macro_use]
#[path = "c_boundary/support/needs.rs"]
mod needs;
#[path = "c_boundary/support/make.rs"]
mod make;

use make::make;
use needs::{lacks, outside};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

const PROGRAM: &str = r#"
#include <mongoose.h>
#include <string.h>
int main(void) {
  char digits[33];
  return strcmp(mg_md5(digits, "a", "bc", NULL), "900150983cd24fb0d6963f7d28e17f72") != 0;
}
"#;

const LISTS: &str = r#"
cmake_minimum_required(VERSION 3.10)
project(consumer C)
find_package(mongoose 5.0 REQUIRED)
add_executable(shared main.c)
target_link_libraries(shared mongoose::mongoose)
add_executable(static main.c)
target_link_libraries(static mongoose::static)
"#;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
    String::from_utf8_lossy(out).trim().to_owned()
}

fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// Builds the libraries and the program, once.
fn build() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(run(&mut make(&["all"]))));
}

/// `make install` or `uninstall`, by a user who has no Rust.
fn install(target: &str, stage: &Path, multiarch: bool) {
    build();
    let mut command = make(&[target, "PREFIX=/opt/web", "CARGO=/nonexistent/cargo"]);
    command.arg(format!("DESTDIR={}", stage.display()));
    if multiarch {
        command.arg("LIBDIR=/opt/web/lib/some-linux-gnu");
    }
    run(&mut command);
}

/// All files and links below `folder`, relative to it, sorted.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("installed folder") {
            let entry = entry.expect("installed file");
            if entry.file_type().expect("its type").is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let path = path.strip_prefix(folder).expect("below the folder");
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("folder for the test");
    folder
}

fn runs(program: &Path, libraries: &Path) {
    run(Command::new(program).env("LD_LIBRARY_PATH", libraries));
}

/// An installation below `stage`, and the source of a program that uses it.
fn installed(name: &str) -> (PathBuf, PathBuf) {
    let stage = fresh_folder(&format!("{name}-stage"));
    install("install", &stage, false);
    let folder = fresh_folder(name);
    let source = folder.join("main.c");
    fs::write(&source, PROGRAM).expect("program");
    fs::write(folder.join("CMakeLists.txt"), LISTS).expect("CMakeLists.txt");
    (stage, source)
}

#[test]
fn what_is_installed_lies_where_it_should_and_can_be_uninstalled() {
    let (stage, _) = installed("places");
    let prefix = stage.join("opt/web");
    let (pages, others): (Vec<String>, Vec<String>) =
        files_below(&prefix).into_iter().partition(|path| path.starts_with("share/man/"));
    assert_eq!(
        others,
        [
            "bin/mongoose",
            "include/mongoose.h",
            "lib/cmake/mongoose/mongooseConfig.cmake",
            "lib/cmake/mongoose/mongooseConfigVersion.cmake",
            "lib/libmongoose.a",
            "lib/libmongoose.so",
            "lib/libmongoose.so.5",
            "lib/libmongoose.so.5.0.0",
            "lib/pkgconfig/mongoose.pc",
            "lib/systemd/system/mongoose.service",
            "lib/systemd/system/mongoose.socket",
            "share/bash-completion/completions/mongoose",
            "share/doc/mongoose/manual.html",
            "share/fish/vendor_completions.d/mongoose.fish",
            "share/zsh/site-functions/_mongoose",
        ]
    );
    // Every page that is checked in, in the folder of its section.
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let place = |page: &String| {
        format!("share/man/man{}/{page}", page.rsplit('.').next().expect("a section"))
    };
    let mut wanted: Vec<String> = files_below(&man).iter().map(place).collect();
    wanted.sort();
    assert_eq!(pages, wanted);
    assert!(pages.contains(&"share/man/man3/mg_write.3".to_owned()), "{pages:?}");
    for (link, to) in
        [("libmongoose.so", "libmongoose.so.5"), ("libmongoose.so.5", "libmongoose.so.5.0.0")]
    {
        assert_eq!(fs::read_link(prefix.join("lib").join(link)).expect(link), Path::new(to));
    }
    for file in files_below(&prefix) {
        let metadata = fs::symlink_metadata(prefix.join(&file)).expect("installed file");
        let is_run = file.starts_with("bin/") || file.contains(".so.5.0.0");
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
        if metadata.is_file() {
            assert_eq!(mode, if is_run { 0o755 } else { 0o644 }, "{file}: {mode:o}");
        }
    }
    let unit = fs::read_to_string(prefix.join("lib/systemd/system/mongoose.service"));
    assert!(unit.expect("the unit").contains("\nExecStart=/opt/web/bin/mongoose "));
    install("uninstall", &stage, false);
    assert_eq!(files_below(&prefix), [""; 0]);
}

#[test]
fn the_program_needs_no_library_but_those_of_the_system() {
    let (stage, _) = installed("program");
    let program = stage.join("opt/web/bin/mongoose");
    let told = run(Command::new(&program).arg("--version").env_clear());
    assert_eq!(told, format!("mongoose {}", env!("CARGO_PKG_VERSION")));
    let needed = run(Command::new("readelf").arg("-d").arg(&program));
    assert!(needed.contains("(NEEDED)") && !needed.contains("libmongoose"), "{needed}");
}

#[test]
fn what_is_shipped_was_optimised_as_a_whole() {
    build();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/libmongoose.a");
    let members = run(Command::new("ar").arg("t").arg(archive));
    // Without link-time optimisation every crate has objects of its own; this one has them always.
    let is_ours = |name: &&str| name.ends_with(".rcgu.o") && !name.starts_with("compiler_builtins");
    let objects: Vec<&str> = members.lines().filter(is_ours).collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
}

#[test]
fn nothing_is_installed_that_was_not_built() {
    let stage = fresh_folder("nothing-stage");
    let mut command = make(&["install", "BUILD=/nonexistent", "CARGO=/nonexistent/cargo"]);
    let output = command.arg(format!("DESTDIR={}", stage.display())).output().expect("make");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("Nothing is built yet: `make` comes first"), "{told}");
    assert_eq!(files_below(&stage), [""; 0]);
}

#[test]
fn the_loader_is_told_of_the_library_or_the_user_is() {
    build();
    let folder = fresh_folder("loader");
    let prefix = folder.join("prefix");
    let told = |name: &str, script: String, destdir: &Path| {
        // In the place of ldconfig, which would change the machine.
        let commands = folder.join(name);
        fs::create_dir_all(&commands).expect("folder for a command");
        let ldconfig = commands.join("ldconfig");
        fs::write(&ldconfig, format!("#!/bin/sh\n{script}\n")).expect("ldconfig");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&ldconfig, mode).expect("ldconfig");
        let path = format!("{}:{}", commands.display(), std::env::var("PATH").expect("PATH"));
        let mut command = make(&["-s", "install", "CARGO=/nonexistent/cargo"]);
        command.arg(format!("PREFIX={}", prefix.display()));
        command.arg(format!("DESTDIR={}", destdir.display()));
        run(command.env("PATH", path))
    };
    let none = Path::new("");
    let found =
        format!("test -z $1 || echo '\tlib (libc6) => {}/lib/libmongoose.so.5'", prefix.display());
    assert_eq!(told("found", found, none), "");
    let other = told("other", "test -n \"$1\" || touch \"$0.ran\"".to_owned(), none);
    assert!(other.contains("-Wl,-rpath,") && other.contains("/prefix/lib"), "{other}");
    assert!(folder.join("other/ldconfig.ran").exists());
    let refused = told("refused", "exit 1".to_owned(), none);
    assert!(refused.contains("once ldconfig has run as root"), "{refused}");
    // What is staged is a matter of the package.
    let staged = told("staged", "touch \"$0.ran\"".to_owned(), &folder.join("stage"));
    assert_eq!((staged.as_str(), folder.join("staged/ldconfig.ran").exists()), ("", false));
}

#[test]
fn a_program_is_built_by_hand() {
    let (stage, source) = installed("by-hand");
    by_hand(&source, &stage.join("opt/web"));
}

#[test]
fn a_program_is_built_by_pkg_config() {
    needs!("pkg-config");
    let (stage, source) = installed("by-pkg-config");
    by_pkg_config(&source, &stage);
}

#[test]
fn a_program_is_built_by_cmake() {
    needs!("cmake");
    let (stage, source) = installed("by-cmake");
    by_cmake(source.parent().expect("a folder"), &stage.join("opt/web/lib"));
}

fn by_hand(source: &Path, prefix: &Path) {
    let libraries = prefix.join("lib");
    let shared = source.with_file_name("by-hand");
    run(cc()
        .arg("-I")
        .arg(prefix.join("include"))
        .arg(source)
        .arg("-L")
        .arg(&libraries)
        .args(["-lmongoose", "-o"])
        .arg(&shared));
    runs(&shared, &libraries);

    let fixed = source.with_file_name("by-hand-static");
    run(cc()
        .arg("-I")
        .arg(prefix.join("include"))
        .arg(source)
        .arg(libraries.join("libmongoose.a"))
        .args(["-lpthread", "-lm", "-ldl", "-o"])
        .arg(&fixed));
    runs(&fixed, Path::new("/nonexistent"));
}

fn by_pkg_config(source: &Path, stage: &Path) {
    let libraries = stage.join("opt/web/lib");
    let flags = |extra: &[&str]| {
        let text = run(outside("pkg-config")
            .env("PKG_CONFIG_PATH", libraries.join("pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", stage)
            .args(["--cflags", "--libs", "mongoose"])
            .args(extra));
        words(&text)
    };
    let program = source.with_file_name("by-pkg-config");
    run(cc().arg(source).args(flags(&[])).arg("-o").arg(&program));
    runs(&program, &libraries);

    let private = flags(&["--static"]);
    for library in ["-lpthread", "-lm", "-ldl"] {
        assert!(private.iter().any(|flag| flag == library), "{private:?}");
    }
    let version = run(outside("pkg-config")
        .env("PKG_CONFIG_PATH", libraries.join("pkgconfig"))
        .args(["--modversion", "mongoose"]));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// Splits as a shell does where a backslash is the only quoting.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let word = words.last_mut().expect("never empty");
        match character {
            '\\' => word.extend(characters.next()),
            ' ' => words.push(String::new()),
            _ => word.push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn by_cmake(folder: &Path, libraries: &Path) {
    let build = folder.join("build");
    fs::create_dir_all(&build).expect("folder for cmake");
    let mut root = std::ffi::OsString::from("-Dmongoose_DIR=");
    root.push(libraries.join("cmake/mongoose"));
    run(outside("cmake").current_dir(&build).arg(root).arg(".."));
    run(outside("cmake").current_dir(&build).args(["--build", "."]));
    runs(&build.join("shared"), libraries);
    runs(&build.join("static"), Path::new("/nonexistent"));
}

#[test]
fn a_library_folder_of_the_distribution_is_respected() {
    let stage = fresh_folder("multiarch");
    install("install", &stage, true);
    let libraries = stage.join("opt/web/lib/some-linux-gnu");
    assert!(libraries.join("libmongoose.so.5").exists());
    let text = fs::read_to_string(libraries.join("pkgconfig/mongoose.pc")).expect("mongoose.pc");
    assert!(text.contains("libdir=${prefix}/lib/some-linux-gnu"), "{text}");
}

#[test]
fn cmake_finds_the_library_in_such_a_folder() {
    needs!("cmake");
    let stage = fresh_folder("multiarch-stage");
    install("install", &stage, true);
    let folder = fresh_folder("multiarch-consumer");
    fs::write(folder.join("main.c"), PROGRAM).expect("program");
    fs::write(folder.join("CMakeLists.txt"), LISTS).expect("CMakeLists.txt");
    by_cmake(&folder, &stage.join("opt/web/lib/some-linux-gnu"));
}
