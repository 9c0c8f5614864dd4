//! A compiled C program that runs beside the test and is spoken to by lines.

use rustix::process::{Pid, Signal, kill_process};

use super::toolchain::{Link, root};
use super::{compile_program, deadline, under_sanitizers, under_valgrind};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What valgrind says of a system call that it does not know.
const NOTES_OF_VALGRIND: [&str; 5] = [
    "WARNING: unhandled ",
    "You may be able to write your own handler.",
    "Read the file README_MISSING_SYSCALL_OR_IOCTL.",
    "Nevertheless we consider this a bug.",
    "it at http://valgrind.org/support/bug_reports.html.",
];

/// Memory that is not there is NULL, as in a program without them.
const OPTIONS_OF_SANITIZERS: &str =
    "exitcode=99:allocator_may_return_null=1:detect_stack_use_after_return=1";

/// How a compiled program is started: by `MG_TEST_RUNNER`, an emulator and its arguments, where the
/// programs are those of another machine.
pub fn command_for(path: &Path) -> Command {
    let runner = super::runner();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return Command::new(path) };
    let mut command = Command::new(first);
    command.args(words).arg(path);
    command
}

/// A running program: reads lines that tell it what to do, prints lines that tell what happened,
/// and ends cleanly when its standard input ends.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    unclaimed: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Program {
    /// Starts `tests/programs/<file>`, linked to the shared library.
    pub fn start(file: &str, args: &[&str]) -> Program {
        Program::start_file(&compile_program(file, Link::Shared), args)
    }

    /// Starts `tests/programs/<file>` under strace, which makes system calls fail as `faults` say: options of
    /// strace, such as `["-P", "/a/path", "-e", "inject=openat:error=EIO"]`.
    pub fn start_failing(file: &str, faults: &[&str], args: &[&str]) -> Program {
        super::needs::assert_named("strace");
        let mut strace = Command::new("strace");
        // The tracer is not the parent, so that the program is the child that is known here.
        strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]).args(faults);
        if under_sanitizers() {
            // What leaks is found by tracing, and a process has one tracer.
            strace.env("ASAN_OPTIONS", format!("{OPTIONS_OF_SANITIZERS}:detect_leaks=0"));
        }
        strace.arg(compile_program(file, Link::Shared));
        strace.args(args);
        Self::start_command(file, strace)
    }

    /// Starts a compiled program.
    pub fn start_file(path: &Path, args: &[&str]) -> Program {
        let mut command = if under_valgrind() {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--error-exitcode=99", "--leak-check=full", "-q", "--vgdb=no"]);
            valgrind.arg("--show-leak-kinds=definite");
            valgrind.args(["--errors-for-leak-kinds=definite", "--fair-sched=yes"]);
            let known = root().join("tests/c_boundary/valgrind.supp");
            valgrind.arg(format!("--suppressions={}", known.display())).arg(path);
            valgrind
        } else {
            command_for(path)
        };
        command.args(args);
        Program::start_command(&path.display().to_string(), command)
    }

    /// Starts what is no compiled program, as a script.
    pub fn start_command(name: &str, mut command: Command) -> Program {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if under_sanitizers() && !command.get_envs().any(|(name, _)| name == "ASAN_OPTIONS") {
            command.env("ASAN_OPTIONS", OPTIONS_OF_SANITIZERS);
        }
        if let Some(library) = std::env::var_os("MG_TEST_PRELOAD") {
            command.env("LD_PRELOAD", library);
        }
        let name = name.to_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let mut stderr = child.stderr.take().expect("a pipe");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let text = String::from_utf8_lossy(&text);
            // Of strace about a path of its options; of valgrind about a call that it does not know, as openat2
            // (437), and answers with ENOSYS.
            let is_note = |line: &&str| {
                let valgrind = line.strip_prefix("--").and_then(|line| line.split_once("-- "));
                line.starts_with("strace: Requested path ")
                    || valgrind.is_some_and(|(_, text)| {
                        NOTES_OF_VALGRIND.iter().any(|note| text.starts_with(note))
                    })
            };
            text.split_inclusive('\n').filter(|line| !is_note(line)).collect()
        });
        let stdin = child.stdin.take();
        Program { name, child, stdin, lines, unclaimed: Vec::new(), stderr: Some(stderr) }
    }

    /// Sends a line to the program.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the program was not told to stop");
        if let Err(error) = writeln!(stdin, "{line}") {
            self.fail(&format!("does not take {line:?}: {error}"));
        }
    }

    /// Waits for exactly this line. Other lines stay for later.
    pub fn expect_line(&mut self, wanted: &str) {
        self.take_line(&format!("the line {wanted:?}"), |line| line == wanted);
    }

    /// Waits for a line that begins so, and gives the rest of it. Other lines stay for later.
    pub fn expect_start(&mut self, start: &str) -> String {
        let line = self.take_line(&format!("a line {start:?}…"), |line| line.starts_with(start));
        line[start.len()..].to_owned()
    }

    /// Whether a line that begins so came before the one that was last waited for.
    pub fn has_come_before(&self, start: &str) -> bool {
        self.unclaimed.iter().any(|line| line.starts_with(start))
    }

    /// Takes the lines that have been printed so far and that nobody has waited for.
    pub fn unclaimed_lines(&mut self) -> Vec<String> {
        self.unclaimed.extend(self.lines.try_iter());
        std::mem::take(&mut self.unclaimed)
    }

    fn take_line(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        if let Some(index) = self.unclaimed.iter().position(|line| fits(line)) {
            return self.unclaimed.remove(index);
        }
        let end = Instant::now() + deadline();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if fits(&line) => return line,
                Ok(line) => self.unclaimed.push(line),
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("has not printed {what}")),
                Err(RecvTimeoutError::Disconnected) => {
                    self.fail(&format!("ended before it printed {what}"))
                }
            }
        }
    }

    /// The port that a `PORT n` line announces.
    pub fn port(&mut self) -> u16 {
        let text = self.expect_start("PORT ");
        text.parse().unwrap_or_else(|_| self.fail(&format!("announces port {text:?}")))
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the kernel says that the program's first thread sleeps: then it is in its poll.
    pub fn wait_until_asleep(&mut self) {
        let end = Instant::now() + deadline();
        while Instant::now() < end {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()));
            let stat = stat.unwrap_or_default();
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
                return;
            }
            std::thread::yield_now();
        }
        self.fail("does not come to rest");
    }

    /// Asks the program to end by a signal, and waits for a clean end.
    pub fn terminate(mut self, signal: &str) {
        self.signal(signal);
        self.wait_for_end();
    }

    /// Sends the program a signal. Not by `kill`, which is no part of every small system.
    pub fn signal(&self, signal: &str) {
        let signal = match signal {
            "TERM" => Signal::TERM,
            "INT" => Signal::INT,
            "HUP" => Signal::HUP,
            _ => panic!("no such signal here: {signal}"),
        };
        let sent = kill_process(Pid::from_child(&self.child), signal);
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// Ends the program at once, whatever it does.
    pub fn kill(mut self) {
        self.child.kill().expect("a program to kill");
        self.child.wait().expect("its end");
    }

    /// Closes the program's standard input and waits for a clean end: status 0, and nothing
    /// printed to standard error.
    pub fn stop(mut self) {
        self.stdin = None;
        self.wait_for_end();
    }

    /// Waits for the program to end by itself, cleanly.
    pub fn wait_for_end(&mut self) {
        let end = Instant::now() + deadline();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => {
                    // Its output ends with it: wait for that rather than ask again at once.
                    match self.lines.recv_timeout(Duration::from_millis(20)) {
                        Ok(line) => self.unclaimed.push(line),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => std::thread::yield_now(),
                    }
                }
                Ok(None) => self.fail("does not end"),
                Err(error) => self.fail(&error.to_string()),
            }
        };
        let stderr = self.take_stderr();
        let lines = self.unclaimed_lines().join("\n");
        let name = &self.name;
        assert!(
            status.success() && stderr.is_empty(),
            "{name} ended with {status}\nit printed:\n{lines}\nto standard error:\n{stderr}"
        );
    }

    fn take_stderr(&mut self) -> String {
        let text = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if under_valgrind() { without_pidfd_warnings(&text) } else { text }
    }

    fn fail(&mut self, what: &str) -> ! {
        self.stdin = None;
        let _ = self.child.kill();
        let status = self.child.wait();
        let stderr = self.take_stderr();
        let lines = self.unclaimed_lines().join("\n");
        panic!(
            "{} {what}; status {status:?}\nit printed:\n{lines}\nto standard error:\n{stderr}",
            self.name
        );
    }
}

/// Older valgrinds do not know `pidfd_open`, which the library can do without, and say so in five
/// lines each time.
fn without_pidfd_warnings(text: &str) -> String {
    let mut lines = text.lines();
    let mut others = String::new();
    while let Some(line) = lines.next() {
        if line.starts_with("--") && line.ends_with("-linux syscall: 434") {
            lines.by_ref().take(4).for_each(drop);
        } else {
            others.push_str(line);
            others.push('\n');
        }
    }
    others
}

impl Drop for Program {
    fn drop(&mut self) {
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() && self.stderr.is_some() {
            let stderr = self.take_stderr();
            if !stderr.is_empty() {
                eprintln!("{} printed to standard error:\n{stderr}", self.name);
            }
        }
    }
}
