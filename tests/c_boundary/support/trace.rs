//! The system calls of a server, as strace tells them.

use super::{Scratch, until};

/// A system call, and the thread that made it.
pub struct Call {
    pub thread: u32,
    pub text: String,
}

/// What a server did, from its first traced call to its end.
pub struct Trace {
    pub calls: Vec<Call>,
}

impl Trace {
    /// The options of strace that have these `calls` written to the scratch folder; see
    /// [`super::Program::start_failing`].
    pub fn options(scratch: &Scratch, calls: &str) -> Vec<String> {
        let file = scratch.join("trace");
        let calls = format!("trace={calls},exit_group");
        ["--seccomp-bpf", "-o", &file, "-e", &calls].map(str::to_owned).to_vec()
    }

    /// Reads the trace of a server that has ended.
    pub fn read(scratch: &Scratch) -> Trace {
        let path = std::path::PathBuf::from(scratch.join("trace"));
        let mut text = String::new();
        // The tracer ends a moment after the program.
        until("the trace is complete", || {
            text = std::fs::read_to_string(&path).expect("a trace");
            text.contains("exit_group(0)")
        });
        let mut calls: Vec<Call> = Vec::new();
        // The calls during which another thread made one: strace tells them in two parts.
        let mut begun = Vec::new();
        for line in text.lines() {
            let Some((thread, text)) = line.split_once(' ') else { continue };
            let Ok(thread) = thread.parse() else { continue };
            let text = text.trim();
            if let Some(start) = text.strip_suffix(" <unfinished ...>") {
                begun.retain(|(other, _)| *other != thread);
                begun.push((thread, start.to_owned()));
                if !start.starts_with("close(") {
                    continue;
                }
            }
            let whole =
                match text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>")) {
                    Some(("close", _)) => continue,
                    Some((_, rest)) => {
                        let start = begun.iter().find(|(other, _)| *other == thread);
                        start.map_or(String::new(), |(_, start)| start.clone()) + rest
                    }
                    None => text.to_owned(),
                };
            calls.push(Call { thread, text: whole });
        }
        Trace { calls }
    }

    pub fn main_thread(&self) -> u32 {
        self.calls[0].thread
    }

    /// The threads that have closed the descriptors which calls with all of `parts` have returned.
    pub fn closers(&self, parts: &[&str]) -> Vec<u32> {
        let mut threads = Vec::new();
        for (at, call) in self.calls.iter().enumerate() {
            let fd = call.text.rsplit_once(" = ").and_then(|(_, fd)| fd.parse::<u32>().ok());
            let Some(fd) = fd.filter(|_| parts.iter().all(|part| call.text.contains(part))) else {
                continue;
            };
            let is_close = |call: &&Call| {
                let rest = call.text.strip_prefix(&format!("close({fd}"));
                rest.is_some_and(|rest| rest.starts_with([')', ' ']))
            };
            let closed = self.calls[at..].iter().find(is_close);
            threads.push(closed.unwrap_or_else(|| panic!("{} stays open", call.text)).thread);
        }
        threads
    }
}
