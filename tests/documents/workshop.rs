//! A folder in which commands of the pages are run as they stand: beside an installed library, and without
//! changing the machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may take on a slow machine.
const DEADLINE: Duration = Duration::from_secs(300);

pub struct Workshop {
    folder: PathBuf,
}

impl Workshop {
    /// An empty folder.
    pub fn new(name: &str) -> Workshop {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for commands");
        Workshop { folder }
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the library is installed.
    pub fn installed(&self) -> &'static Path {
        installed()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.join(name), text).expect("a file for commands");
    }

    /// A command in this folder, for which the library is installed in the usual place.
    pub fn command(&self, program: &str) -> Command {
        self.command_beside(installed(), program)
    }

    /// The same, for which the usual place is `prefix`.
    fn command_beside(&self, prefix: &Path, program: &str) -> Command {
        let lib = prefix.join("lib");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        forget_cargo(&mut command);
        command
            .env("PATH", format!("{}:{path}", commands().display()))
            .env("PREFIX", prefix)
            .env("SOURCES", env!("CARGO_MANIFEST_DIR"))
            .env("PORT", "0")
            .env("CPATH", prefix.join("include"))
            .env("LIBRARY_PATH", &lib)
            .env("LD_LIBRARY_PATH", &lib)
            .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
            .env("CMAKE_PREFIX_PATH", prefix);
        command
    }

    /// Lines that install take a place of their own: others are linked meanwhile.
    fn prefix_for(&self, lines: &str) -> PathBuf {
        match lines.contains("make install") {
            true => self.join("prefix"),
            false => installed().to_owned(),
        }
    }

    /// Runs lines of a shell, each of which has to succeed.
    pub fn run(&self, lines: &str) -> Result<(), String> {
        let prefix = self.prefix_for(lines);
        let lines = lines.replace("/usr/local", &prefix.display().to_string());
        checked(self.command_beside(&prefix, "sh").args(["-eu", "-c", &lines]))
    }

    /// Runs lines of a shell until `answers` says that they serve, and ends them as Ctrl-C does.
    pub fn serve(&self, lines: &str, answers: impl Fn(&mut dyn BufRead) -> bool) {
        let mut command = self.command_beside(&self.prefix_for(lines), "sh");
        command.args(["-eu", "-c", lines]).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().expect("sh");
        let mut group = Group(child);
        let mut out = BufReader::new(group.0.stdout.take().expect("a pipe"));
        assert!(answers(&mut out), "{lines} does not serve");
    }

    /// Asks a server at a Unix domain socket in this folder, as soon as it is there.
    pub fn ask(&self, socket: &str, path: &str) -> String {
        let end = Instant::now() + DEADLINE;
        let mut stream = loop {
            match UnixStream::connect(self.join(socket)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "{socket}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

/// A command and all that it has started, which end with this.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// Runs a command that has to succeed.
pub fn checked(command: &mut Command) -> Result<(), String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let told = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    status.success().then_some(()).ok_or_else(|| format!("{command:?}: {status}\n{told}"))
}

/// What cargo tells a test of its package, for which ring would be built again, and the job slots of a make
/// around it, which do not reach through.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo =
            ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|start| text.starts_with(start));
        let of_make = ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CARGO_MAKEFLAGS"].contains(&&*text);
        if of_cargo || of_make || text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
}

/// Commands that take the place of those which would change the machine, or belong to the folder of the repository.
fn commands() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Workshop::new("commands").folder;
        let root = env!("CARGO_MANIFEST_DIR");
        // What builds the library there must not see another environment than the other tests: all of it would be
        // built again.
        let own = "unset CPATH LIBRARY_PATH LD_LIBRARY_PATH";
        let make = format!(
            "test -f Makefile || {{ cd '{root}'; {own}; }}\nPATH=${{PATH#*:}} exec make \"$@\""
        );
        for (name, script) in
            [("make", make.as_str()), ("sudo", "exec \"$@\""), ("ldconfig", "exit 0")]
        {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a command");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        folder
    })
}

/// Where the library is installed, once for all commands.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Workshop::new("prefix").folder;
        let mut command = Command::new("make");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["all", "install"]);
        command.arg(format!("PREFIX={}", prefix.display()));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", commands().display()));
        forget_cargo(&mut command);
        checked(&mut command).expect("make install");
        prefix
    })
}
