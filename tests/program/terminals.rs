//! The program on a terminal, which is a pseudo terminal here (POSIX `posix_openpt`).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::scratch::Scratch;
use crate::support::{command, request, status, until};

/// A program on a terminal of its own.
struct Terminal {
    child: Child,
    master: Option<File>,
    /// Reads what is shown, until the terminal is closed.
    reader: Option<std::thread::JoinHandle<()>>,
    is_closed: Arc<AtomicBool>,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(mut command: Command, folder: &Scratch) -> Terminal {
        let (mut master, mut slave) = (0, 0);
        let none = std::ptr::null_mut();
        // SAFETY: both are places for a number, and the rest is not asked for.
        let opened =
            unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()) };
        assert_eq!(opened, 0, "a pseudo terminal");
        // SAFETY: the call has opened both.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        for fd in [master.as_raw_fd(), slave.as_raw_fd()] {
            // SAFETY: the flag is set on a descriptor of this test, so that no other child inherits it.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        }
        command.current_dir(folder.join(""));
        command.stdin(slave.try_clone().expect("a copy"));
        command.stdout(slave.try_clone().expect("a copy")).stderr(slave);
        // SAFETY: all calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // The tests may have been started by nohup.
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            })
        };
        let child = command.spawn().expect("started");
        drop(command);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, place) = (master.try_clone().expect("a copy"), shown.clone());
        let is_closed = Arc::new(AtomicBool::new(false));
        let ends = is_closed.clone();
        let reader = std::thread::spawn(move || {
            let mut part = [0; 1024];
            while !ends.load(Ordering::Relaxed) {
                let mut wait =
                    libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: the place is one.
                if unsafe { libc::poll(&mut wait, 1, 20) } < 1 {
                    continue;
                }
                // The terminal ends by an error when its last user has gone.
                let Ok(count @ 1..) = reader.read(&mut part) else { return };
                place.lock().expect("text").push_str(&String::from_utf8_lossy(&part[..count]));
            }
        });
        Terminal { child, master: Some(master), reader: Some(reader), is_closed, shown }
    }

    /// Closes the window.
    fn close(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.reader.take().expect("a terminal").join().expect("read");
        self.master = None;
    }

    fn shown(&self) -> String {
        self.shown.lock().expect("text").clone()
    }

    fn wait_for(&self, text: &str) {
        until(&format!("{text:?} in {:?}", self.shown()), || self.shown().contains(text));
    }

    fn type_in(&mut self, text: &str) {
        let master = self.master.as_mut().expect("a terminal");
        master.write_all(text.as_bytes()).expect("typed");
    }

    /// The address of the first URL that was shown.
    fn address(&self) -> String {
        self.wait_for("/\r\n");
        let shown = self.shown();
        let (_, rest) = shown.split_once("://").expect("a URL");
        rest.split('/').next().expect("an address").to_owned()
    }

    fn shows_input(&self) -> bool {
        let fd = self.master.as_ref().expect("a terminal").as_raw_fd();
        let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the call writes to the place that it is given, before that is read.
        let settings = unsafe {
            assert_eq!(libc::tcgetattr(fd, settings.as_mut_ptr()), 0);
            settings.assume_init()
        };
        settings.c_lflag & libc::ECHO != 0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command for a server at a free port.
fn serve(arguments: &[&str]) -> Command {
    let mut command = command(&[arguments, &["--listening_port", "127.0.0.1:0"]].concat());
    command.env("TERM", "xterm");
    command
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let mut terminal = Terminal::start(serve(&["--user", "joe"]), &folder);
    terminal.wait_for("Password for joe: ");
    assert!(!terminal.shows_input());
    terminal.type_in("secret\n");
    let address = terminal.address();
    assert!(terminal.shows_input() && !terminal.shown().contains("secret"));
    assert_eq!(status(&request(&address, "GET /a.txt", "")), "401");
    // The key that interrupts ends it, and here nothing is left to wait for.
    terminal.type_in("\x03");
    assert_eq!(terminal.child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let folder = Scratch::new();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut terminal = Terminal::start(serve(&["--user", "joe"]), &folder);
        terminal.wait_for("Password for joe: ");
        terminal.type_in("sec");
        match signal {
            libc::SIGINT => terminal.type_in("\x03"),
            // SAFETY: the process has not been waited for.
            _ => assert_eq!(unsafe { libc::kill(terminal.child.id().cast_signed(), signal) }, 0),
        }
        assert_eq!(terminal.child.wait().expect("its end").code(), Some(128 + signal));
        assert!(terminal.shows_input());
    }
}

#[test]
fn a_new_password_of_a_file_is_asked_for_twice() {
    let folder = Scratch::new();
    for (second, status) in [("other\n", 1), ("secret\n", 0)] {
        let mut terminal = Terminal::start(command(&["-A", "file", "realm", "joe"]), &folder);
        terminal.wait_for("Password for joe: ");
        terminal.type_in("secret\n");
        terminal.wait_for("Once more: ");
        terminal.type_in(second);
        assert_eq!(terminal.child.wait().expect("its end").code(), Some(status), "{second}");
        assert_eq!(std::path::Path::new(&folder.join("file")).exists(), status == 0);
        until("the last word", || status == 0 || terminal.shown().contains("passwords differ"));
    }
}

#[test]
fn a_terminal_has_a_line_for_each_request_in_colour_if_that_is_wanted() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str);
    let table: &[Row] = &[
        (&[], "127.0.0.1 \x1b[32m200\x1b[0m GET /a.txt 5\r\n"),
        (&[("NO_COLOR", "1")], "127.0.0.1 200 GET /a.txt 5\r\n"),
        (&[("NO_COLOR", "")], "127.0.0.1 \x1b[32m200\x1b[0m GET /a.txt 5\r\n"),
        (&[("TERM", "dumb")], "127.0.0.1 200 GET /a.txt 5\r\n"),
    ];
    for (environment, line) in table {
        let mut command = serve(&[]);
        command.envs(environment.iter().copied());
        let terminal = Terminal::start(command, &folder);
        let address = terminal.address();
        request(&address, "GET /a.txt", "");
        request(&address, "GET /\x1b[31mred", "");
        terminal.wait_for(line);
        terminal.wait_for("400");
        assert!(!terminal.shown().contains("\x1b[31mred"), "a client cannot colour it");
    }
}

#[test]
fn with_quiet_or_a_log_a_terminal_has_no_lines_of_requests() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let mut terminal = Terminal::start(serve(&["--access_log_file", "access.log"]), &folder);
    let address = terminal.address();
    request(&address, "GET /a.txt", "");
    until("a line", || folder.read("access.log").contains("/a.txt"));
    terminal.type_in("\x03");
    assert_eq!(terminal.child.wait().expect("its end").code(), Some(0));
    assert!(!terminal.shown().contains("/a.txt"));
}

#[test]
fn a_terminal_that_is_stopped_holds_nothing_up() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello");
    let mut terminal = Terminal::start(serve(&[]), &folder);
    let address = terminal.address();
    terminal.type_in("\x13");
    // More lines than a pipe and a terminal take.
    let path = format!("GET /{}", "x".repeat(4000));
    for _ in 0..64 {
        assert_eq!(status(&request(&address, &path, "")), "404");
    }
    // SAFETY: the process has not been waited for.
    assert_eq!(unsafe { libc::kill(terminal.child.id().cast_signed(), libc::SIGTERM) }, 0);
    assert_eq!(terminal.child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_server_ends_when_its_terminal_goes() {
    let folder = Scratch::new();
    let mut terminal = Terminal::start(serve(&[]), &folder);
    terminal.address();
    terminal.close();
    assert_eq!(terminal.child.wait().expect("its end").code(), Some(0));
}
