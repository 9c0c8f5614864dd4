//! The program, built once; running instances; a plain client.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::deadline;
use crate::make::make;
use crate::scratch::Scratch;

/// The path of the program.
pub fn program() -> PathBuf {
    static ONCE: Once = Once::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ONCE.call_once(|| {
        let output = make(&["program"]).output().expect("make");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    });
    root.join("build/mongoose")
}

/// A command for the program, without what a user may have in the environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    for name in ["NO_COLOR", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end, with this standard input.
pub fn run(arguments: &[&str], folder: &Scratch, input: &str) -> (Option<i32>, String, String) {
    let mut command = command(arguments);
    command.current_dir(folder.join("")).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    // Where the program does not read it, there is nobody to write to.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its end");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + deadline();
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running program. It is killed at the end.
pub struct Running {
    pub child: Child,
    out: BufReader<ChildStdout>,
    /// The first line of its output.
    pub url: String,
    errors: String,
}

impl Running {
    /// Starts the program in a folder, at a free port of this machine alone.
    pub fn start(arguments: &[&str], folder: &Scratch) -> Running {
        let here = ["--listening_port", "127.0.0.1:0"];
        Running::spawn(command(&[arguments, &here].concat()), folder, "")
    }

    /// Starts a command in a folder, with this standard input, and waits for its first line.
    pub fn spawn(mut command: Command, folder: &Scratch, input: &str) -> Running {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let errors = folder.join(&format!(".errors-{number}"));
        let file = File::create(&errors).expect("a file for errors");
        command.current_dir(folder.join("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(file).spawn().expect("started");
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut url = String::new();
        out.read_line(&mut url).expect("a line");
        let told = || std::fs::read_to_string(&errors).unwrap_or_default();
        assert!(url.ends_with("/\n"), "{url:?} {}", told());
        Running { child, out, url: url.trim_end().to_owned(), errors }
    }

    /// `address:port`.
    pub fn address(&self) -> &str {
        self.url.split('/').nth(2).expect("an authority")
    }

    pub fn port(&self) -> u16 {
        self.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), signal) }, 0);
    }

    /// Waits for its end. Returns its status, 128 and the signal that ended it, and the rest of its output.
    pub fn end(&mut self) -> (i32, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("its output");
        let status = self.child.wait().expect("its end");
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()), rest)
    }

    /// Ends it by SIGTERM. Returns its status and the rest of its output.
    pub fn stop(&mut self) -> (i32, String) {
        self.signal(libc::SIGTERM);
        self.end()
    }

    pub fn get(&self, path: &str) -> String {
        request(self.address(), &format!("GET {path}"), "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(deadline())).expect("a timeout");
    stream
}

/// Sends a request line with fields, and returns the whole answer.
pub fn request(address: &str, line: &str, fields: &str) -> String {
    let mut stream = connect(address);
    let head = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer.
pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// Runs `curl` with these arguments, and returns what it prints.
pub fn curl(arguments: &[&str]) -> String {
    let mut command = crate::outside("curl");
    let output = command.args(["-s", "--max-time", "100"]).args(arguments).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether this is root, who may become other users.
pub fn is_root() -> bool {
    // SAFETY: the call has no arguments, and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Runs a command to its successful end, and returns its output.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The path of a file of the repository.
pub fn repository(file: impl AsRef<OsStr>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file.as_ref())
}
