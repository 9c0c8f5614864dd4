//! `tests/programs/server.c`, whose handlers do what the request tells them to.

use super::{Client, Program, Response};

/// Options of a server that is patient with clients.
pub const PATIENT: [&str; 2] = ["idle_timeout_ms=300000", "request_timeout_ms=300000"];

/// A running `server.c`.
pub struct Server {
    pub program: Program,
    pub port: u16,
}

impl Server {
    /// Starts it on a free port of 127.0.0.1; `args` are options (`name=value`) and switches. No test waits for
    /// the timeouts that are the defaults, and on a slow machine one may be reached that has to wait.
    pub fn start(args: &[&str]) -> Server {
        let all = [&["listening_port=127.0.0.1:0"], &PATIENT[..], args].concat();
        let mut program = Program::start("server.c", &all);
        let port = program.port();
        Server { program, port }
    }

    /// The same without a port: `args` say where it listens.
    pub fn start_local(args: &[&str]) -> Server {
        let mut program = Program::start("server.c", args);
        program.expect_start("PORT ");
        Server { program, port: 0 }
    }

    /// The same under strace, which makes system calls fail; see [`Program::start_failing`].
    pub fn start_failing(faults: &[&str], args: &[&str]) -> Server {
        let all = [&["listening_port=127.0.0.1:0"], &PATIENT[..], args].concat();
        let mut program = Program::start_failing("server.c", faults, &all);
        let port = program.port();
        Server { program, port }
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// A connection that the server has accepted. The program was started with `--step`; its loop rests
    /// afterwards.
    pub fn accepted(&mut self) -> Client {
        self.tell("run");
        let mut client = self.client();
        assert_eq!(client.ask("GET /alive HTTP/1.1\r\n\r\n").text(), "alive");
        self.poll(1);
        client
    }

    /// The answer to one request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        self.client().ask(request)
    }

    /// Lets something be done by another thread than the one that polls.
    pub fn tell(&mut self, line: &str) {
        self.program.tell(line);
    }

    /// Returns when all that was sent before, by `send_through`, has been looked at, and its requests have been decided on as
    /// far as they go. (An answer to another client would not show it: of requests that are read in one
    /// turn, one may be answered before another is decided on.) The program was started with `--step`.
    pub fn settle(&mut self) {
        self.poll(3);
        self.tell("run");
    }

    /// Has the loop make so many turns and no more, and returns when they have ended. Only what a client has
    /// sent by `send_through` is sure to have arrived before them. The program was started with `--step`.
    pub fn poll(&mut self, turns: usize) {
        self.tell(&format!("poll {turns}"));
        self.expect_line("polled");
    }

    /// Returns when the turns have ended of which the test has read answers. A log is written at the end
    /// of a turn, behind the answers: what should not be in it is not in it now, or does not come. The
    /// program was started without `--step`.
    pub fn end_turn(&mut self) {
        // The thread that polls says it between two turns.
        self.tell("io say the turn is over");
        self.expect_line("the turn is over");
    }

    /// Lets another thread use the connection that a handler kept under `key`; what came back.
    pub fn late(&mut self, key: &str, step: &str) -> i64 {
        self.tell(&format!("late {key} {step}"));
        let result = self.program.expect_start(&format!("late {key} {step}: "));
        result.parse().expect("a number")
    }

    /// Waits for a line of the program.
    pub fn expect_line(&mut self, line: &str) {
        self.program.expect_line(line);
    }

    /// The server still answers, and ends cleanly.
    #[track_caller]
    pub fn stop(self) {
        let answer = self.ask("GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer.text(), "alive");
        self.program.stop();
    }
}

/// A request to `/do` whose handler does this: one `Do` field for each step.
pub fn request(method: &str, version: &str, steps: &[&str]) -> String {
    let steps: String = steps.iter().map(|step| format!("Do: {step}\r\n")).collect();
    format!("{method} /do HTTP/{version}\r\n{steps}\r\n")
}
