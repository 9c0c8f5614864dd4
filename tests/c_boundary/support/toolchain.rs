//! Finds the library that `cargo test` has built, and compiles C and C++ against it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// How a program is tied to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// To `libmongoose.so`, found at run time under its soname.
    Shared,
    /// To `libmongoose.a`.
    Static,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder into which tests may write; `MG_TEST_WORK` names another.
pub fn work_dir() -> PathBuf {
    let named = std::env::var_os("MG_TEST_WORK").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("c_boundary"))
}

/// The compiler or tool that `variable` names, else `default`.
pub fn tool(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// The library file of that kind in the folder `MG_TEST_LIBRARY`, or beside the running test, the
/// newest where there are several.
pub fn library(link: Link) -> PathBuf {
    if let Some(folder) = std::env::var_os("MG_TEST_LIBRARY") {
        let name = if link == Link::Shared { "libmongoose.so.5" } else { "libmongoose.a" };
        return PathBuf::from(folder).join(name);
    }
    let extension = match link {
        Link::Shared => "so",
        Link::Static => "a",
    };
    let test = std::env::current_exe().expect("path of the test program");
    let deps = test.parent().expect("folder of the test program");
    let is_ours = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|found| found == extension)
            && (stem == "libmongoose" || stem.starts_with("libmongoose-"))
    };
    std::fs::read_dir(deps)
        .expect("folder of the test program")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_ours)
        .max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok())
        .unwrap_or_else(|| panic!("no libmongoose.{extension} in {}", deps.display()))
}

/// Whether pointers have four bytes where the library runs: the class in its ELF header says so.
pub fn has_32_bits() -> bool {
    let mut start = [0; 5];
    let file = std::fs::File::open(library(Link::Shared));
    let read = file.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.expect("the shared library");
    start[4] == 1
}

/// Compiles and links `tests/programs/<file>` once; gives the path of the program.
pub fn compile_program(file: &str, link: Link) -> PathBuf {
    compile(&root().join("tests/programs").join(file), link)
}

/// Compiles and links `examples/<file>` once; gives the path of the program.
pub fn compile_example(file: &str, link: Link) -> PathBuf {
    compile(&root().join("examples").join(file), link)
}

/// Compiles and links a program of several files once; gives its path. `name` is to be one that no
/// program of one file has, and `more` what the linker is told in addition.
pub fn compile_with(name: &str, sources: &[&str], more: &[&str], link: Link) -> PathBuf {
    let sources: Vec<PathBuf> = sources.iter().map(|source| root().join(source)).collect();
    once(Path::new(name), link, || compile_now(name, &sources, more, link))
}

/// Whether `source` compiles without a warning under these flags; the compiler's words if not.
pub fn compiles(compiler: &str, source: &Path, flags: &[&str]) -> Result<(), String> {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]).args(flags);
    run(command.arg("-I").arg(root().join("include")).arg(source))
}

type Outcome = Result<PathBuf, String>;

fn compile(source: &Path, link: Link) -> PathBuf {
    let name = source.file_name().expect("a file").to_string_lossy().replace('.', "-");
    once(source, link, || compile_now(&name, &[source.to_owned()], &[], link))
}

fn once(key: &Path, link: Link, compile: impl FnOnce() -> Outcome) -> PathBuf {
    type Once = Arc<OnceLock<Outcome>>;
    static COMPILED: Mutex<Option<HashMap<(PathBuf, Link), Once>>> = Mutex::new(None);
    let once = COMPILED
        .lock()
        .expect("list of compiled programs")
        .get_or_insert_default()
        .entry((key.to_owned(), link))
        .or_default()
        .clone();
    match once.get_or_init(compile) {
        Ok(program) => program.clone(),
        Err(message) => panic!("{message}"),
    }
}

/// The program is made under a private name and moved into place, since other runs of the tests
/// may be executing the previous one.
fn compile_now(name: &str, sources: &[PathBuf], more: &[&str], link: Link) -> Outcome {
    let folder = work_dir().join("bin");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let linkage = if link == Link::Shared { "shared" } else { "static" };
    let program = folder.join(format!("{name}-{linkage}"));
    let fresh = private_name(&program);
    let mut command = compiler(&sources[0]);
    command.args(["-Wall", "-Wextra", "-Werror", "-g", "-O1", "-I"]).arg(root().join("include"));
    command.arg("-o").arg(&fresh).args(sources);
    command.args(extra_flags().split_whitespace());
    match link {
        Link::Shared => {
            let folder = runtime_folder();
            let mut rpath = OsString::from("-Wl,-rpath,");
            rpath.push(&folder);
            command.arg(folder.join("libmongoose.so.5")).arg(rpath).arg("-lpthread");
        }
        Link::Static => {
            command.arg(library(link)).args(["-lpthread", "-ldl", "-lm"]);
        }
    }
    command.args(more);
    run(&mut command)?;
    std::fs::rename(&fresh, &program).map_err(|error| error.to_string())?;
    Ok(program)
}

/// Flags for every C program, as `-fsanitize=address,undefined`.
fn extra_flags() -> String {
    std::env::var("MG_TEST_CFLAGS").unwrap_or_default()
}

/// A folder that holds the shared library under its soname, as an installation would.
fn runtime_folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = work_dir().join("lib");
            std::fs::create_dir_all(&folder).expect("folder for the library");
            let name = folder.join("libmongoose.so.5");
            let fresh = private_name(&name);
            std::os::unix::fs::symlink(library(Link::Shared), &fresh).expect("symbolic link");
            std::fs::rename(&fresh, &name).expect("symbolic link in its place");
            folder
        })
        .clone()
}

fn private_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

fn compiler(source: &Path) -> Command {
    let is_c = source.extension().is_some_and(|extension| extension == "c" || extension == "h");
    Command::new(if is_c { tool("CC", "cc") } else { tool("CXX", "c++") })
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (&output.stdout, &output.stderr);
    Err(format!("{command:?}\n{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err)))
}
