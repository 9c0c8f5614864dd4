//! A scenario while it is played: the server, its files, what was asked, and what came of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use md5::{Digest as _, Md5};

use super::control::Control;
use super::peer::{Answer, Peer, Seen, patience};
use crate::support::{Scratch, Sealed};

/// What became of a step of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Right,
    /// An answer that is complete, and not the one of success.
    Refused(u16, String),
    /// The connection ended, as one does whose answer cannot be given.
    Cut,
    /// Neither: what it was.
    Wrong(String),
}

/// A running server, and what was found out about it.
pub struct World {
    pub scratch: Scratch,
    pub port: u16,
    pub steps: Vec<(String, Outcome)>,
    pub process: Process,
    /// A connection that a scenario has opened before calls fail.
    pub ready: Vec<Peer>,
    nonce: String,
    count: u32,
}

/// The process of the server.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Process {
    /// Starts the server with the shim.
    pub fn start(program: &str, shim: &str, control: &Control, args: &[String]) -> Process {
        let mut command = Command::new(program);
        command.args(args).env("LD_PRELOAD", shim).env("MG_INJECT_CONTROL", &control.path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a server");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut stderr = child.stderr.take().expect("a pipe");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdin = child.stdin.take();
        Process { child, stdin, lines, stderr: Some(stderr) }
    }

    /// The rest of the next line that begins so; `None` if none comes, or one comes that says that something
    /// is refused.
    pub fn line(&self, start: &str) -> Result<String, String> {
        let end = Instant::now() + patience();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => match line.strip_prefix(start) {
                    Some(rest) => return Ok(rest.trim().to_owned()),
                    None if line.starts_with("REFUSED") => return Err(line),
                    None => {}
                },
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// Asks it to end; it does by itself, prints nothing to standard error, and leaves no descriptor open.
    pub fn stop(&mut self) -> Result<(), String> {
        self.stdin = None;
        let end = Instant::now() + patience();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                _ => {
                    let stack = self.stack();
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return Err(format!("the server does not end {stack}"));
                }
            }
        };
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let said: Vec<String> = self.lines.try_iter().collect();
        if !status.success() {
            return Err(format!("the server ended with {status}: {} {stderr}", said.join("; ")));
        }
        if !stderr.is_empty() {
            return Err(format!("it was printed: {stderr}"));
        }
        Ok(())
    }

    /// In which calls of the system its threads are.
    fn stack(&self) -> String {
        let folder = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let calls = threads.map(|thread| {
            let call = std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
            call.split(' ').next().unwrap_or_default().trim().to_owned()
        });
        format!("(its threads are in the calls {})", calls.collect::<Vec<_>>().join(", "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl World {
    pub fn new(scratch: Scratch, process: Process, port: u16) -> World {
        let (steps, ready) = (Vec::new(), Vec::new());
        World { scratch, port, steps, process, ready, nonce: String::new(), count: 0 }
    }

    pub fn note(&mut self, what: &str, outcome: Outcome) {
        self.steps.push((what.to_owned(), outcome));
    }

    /// Notes what came of a step. The answer, if it is the right one.
    pub fn judge(
        &mut self,
        what: &str,
        seen: Seen,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Option<Answer> {
        let outcome = match &seen {
            Seen::Answer(answer) if is_right(answer) => Outcome::Right,
            Seen::Answer(answer) => {
                let text: String = answer.text().chars().take(400).collect();
                match answer.status {
                    // The status of a part, where there are several.
                    207 => match text.split_once("HTTP/1.1 5") {
                        Some(_) => Outcome::Refused(500, text),
                        None if text.contains("HTTP/1.1 403") => Outcome::Refused(403, text),
                        None => Outcome::Wrong(text),
                    },
                    400.. => Outcome::Refused(answer.status, text),
                    _ => Outcome::Wrong(format!("{} {text}", answer.head)),
                }
            }
            Seen::Cut(_) => Outcome::Cut,
            Seen::Nothing(rest) => {
                Outcome::Wrong(format!("nothing comes any more; before: {rest}"))
            }
            Seen::Nonsense(text) => Outcome::Wrong(format!("no answer: {text}")),
        };
        let is_fine = outcome == Outcome::Right;
        self.note(what, outcome);
        match seen {
            Seen::Answer(answer) if is_fine => Some(answer),
            _ => None,
        }
    }

    /// A new connection.
    pub fn open(&mut self) -> Option<Peer> {
        let peer = Peer::open(self.port);
        if peer.is_none() {
            self.note("connect", Outcome::Cut);
        }
        peer
    }

    /// A new connection with TLS.
    pub fn open_sealed(&mut self) -> Option<Peer> {
        let Sealed(config) = Sealed::new(None);
        self.open()?.sealed(Arc::clone(&config))
    }

    /// Asks on a new connection.
    pub fn ask(
        &mut self,
        what: &str,
        request: impl AsRef<[u8]>,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Option<Answer> {
        let seen = self.open()?.ask(request);
        self.judge(what, seen, is_right)
    }

    /// Asks for a path on a new connection; the content is this one.
    pub fn get(&mut self, path: &str, content: &[u8]) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        self.ask(path, request, |answer| answer.status == 200 && answer.body == content)
    }

    /// Has the program do something between two polls; it says this about it.
    pub fn tell(&mut self, line: &str, start: &str, wanted: &str) -> Option<()> {
        self.process.tell(line);
        let outcome = match self.process.line(start) {
            Ok(said) if said == wanted => Outcome::Right,
            Ok(said) => Outcome::Refused(500, said),
            Err(trouble) => {
                Outcome::Wrong(format!("the program does not say {start:?}: {trouble}"))
            }
        };
        let is_fine = outcome == Outcome::Right;
        self.note(line, outcome);
        is_fine.then_some(())
    }

    /// Gets a nonce, before calls fail.
    pub fn prepare_digest(&mut self, request: &str) {
        let Some(mut peer) = Peer::open(self.port) else { return };
        if let Seen::Answer(answer) = peer.ask(request) {
            let nonce = answer.field("WWW-Authenticate").split("nonce=\"").nth(1);
            let nonce = nonce.and_then(|rest| rest.split('"').next());
            self.nonce = nonce.unwrap_or_default().to_owned();
        }
    }

    /// Joe's request.
    pub fn signed(&mut self, method: &str, path: &str, fields: &str, body: &str) -> String {
        self.count += 1;
        let (nonce, count) = (&self.nonce, format!("{:08x}", self.count));
        let ha1 = hex(&format!("joe:mydomain.com:{PASSWORD}"));
        let ha2 = hex(&format!("{method}:{path}"));
        let response = hex(&format!("{ha1}:{nonce}:{count}:abc:auth:{ha2}"));
        let len = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Digest username=\"joe\", \
             realm=\"mydomain.com\", nonce=\"{nonce}\", uri=\"{path}\", qop=auth, nc={count}, \
             cnonce=\"abc\", response=\"{response}\"\r\n{fields}Content-Length: {len}\r\n\r\n{body}"
        )
    }

    /// Joe's request on a new connection; its status is one of these.
    pub fn dav(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        body: &str,
        done: &[u16],
    ) -> Option<Answer> {
        let request = self.signed(method, path, fields, body);
        let is_right = |answer: &Answer| {
            done.contains(&answer.status)
                && (answer.status != 207 || !answer.text().contains("HTTP/1.1 5"))
        };
        self.ask(&format!("{method} {path}"), request, is_right)
    }
}

const PASSWORD: &str = "secret";

/// The line of a password file that lets joe in.
pub fn password_line() -> String {
    format!("joe:mydomain.com:{}\n", hex(&format!("joe:mydomain.com:{PASSWORD}")))
}

fn hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
