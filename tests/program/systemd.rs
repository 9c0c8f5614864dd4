//! What systemd and a service tell each other, without systemd; and the units.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::scratch::Scratch;
use crate::support::{Running, command, program, repository, request, status};

/// A command that starts the program with these descriptors from 3 on. `count` and `pid` are shell
/// words for what the environment says of them.
fn with_sockets(fds: &[RawFd], count: &str, pid: &str, arguments: &[&str]) -> Command {
    let script = format!("LISTEN_FDS={count} LISTEN_PID={pid} exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(program()).args(arguments).stdin(Stdio::null());
    let fds = fds.to_vec();
    // SAFETY: these calls are allowed between fork and exec. Those that are copied first lie above all places.
    unsafe {
        shell.pre_exec(move || {
            let mut high = [0; 8];
            for (place, fd) in high.iter_mut().zip(&fds) {
                *place = libc::fcntl(*fd, libc::F_DUPFD, 100);
            }
            for (place, fd) in (3..).zip(high.iter().take(fds.len())) {
                if libc::dup2(*fd, place) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(*fd);
            }
            Ok(())
        })
    };
    shell
}

#[test]
fn sockets_that_are_passed_are_used_all_of_them() {
    let folder = Scratch::new();
    folder.write("share/a.txt", "hello");
    let first = TcpListener::bind("127.0.0.1:0").expect("bound");
    let second = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
    let second = second.expect("bound");
    let local = UnixListener::bind(folder.join("run.sock")).expect("bound");
    let fds = [first.as_raw_fd(), second.as_raw_fd(), local.as_raw_fd()];
    let mut running = Running::spawn(with_sockets(&fds, "3", "$$", &["share"]), &folder, "");
    for listener in [&first, &second] {
        let address = listener.local_addr().expect("an address").to_string();
        assert!(request(&address, "GET /a.txt", "").ends_with("hello"), "{address}");
    }
    let path = folder.join("run.sock");
    use std::io::{Read as _, Write as _};
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
    client.write_all(b"GET /a.txt HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("hello"));
    assert_eq!(running.url, format!("http://{}/", first.local_addr().expect("an address")));
    assert_eq!(running.stop().0, 0);
    // Who made it keeps it: the next start needs it.
    assert!(std::path::Path::new(&path).exists());
}

#[test]
fn what_was_meant_for_another_process_is_left_alone() {
    let folder = Scratch::new();
    let held = TcpListener::bind("127.0.0.1:0").expect("bound");
    let arguments = ["--listening_port", "127.0.0.1:0"];
    for (count, pid) in [("1", "1"), ("x", "1"), ("0", "$$")] {
        let command = with_sockets(&[held.as_raw_fd()], count, pid, &arguments);
        let running = Running::spawn(command, &folder, "");
        assert_ne!(running.port(), held.local_addr().expect("an address").port());
        assert_eq!(status(&running.get("/")), "200");
    }
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let folder = Scratch::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let client = std::net::TcpStream::connect(listener.local_addr().expect("one")).expect("open");
    let file = std::fs::File::open("/dev/null").expect("a file");
    let is_open = "LISTEN_FDS: descriptor 3 cannot be used: ";
    let table = [
        (listener.as_raw_fd(), "x", "LISTEN_FDS: x is no number of sockets"),
        (listener.as_raw_fd(), "-1", "LISTEN_FDS: -1 is no number of sockets"),
        (listener.as_raw_fd(), "65", "LISTEN_FDS: 65 is no number of sockets"),
        (listener.as_raw_fd(), "60", "cannot be used: "),
        (datagrams.as_raw_fd(), "1", "it is no stream socket"),
        (client.as_raw_fd(), "1", "it does not listen (a socket unit needs Accept=no)"),
        (file.as_raw_fd(), "1", is_open),
    ];
    for (fd, count, sentence) in table {
        let mut command = with_sockets(&[fd], count, "$$", &[]);
        let output = command.current_dir(folder.join("")).output().expect("its end");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{count}: {told}");
        assert!(told.contains(sentence), "{count}: {told}");
    }
    let mut command =
        with_sockets(&[listener.as_raw_fd()], "1", "$$", &["--listening_port", "127.0.0.1:0"]);
    let output = command.current_dir(folder.join("")).output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr);
    let sentence = "--listening_port: the sockets come from the environment (LISTEN_FDS)";
    assert!(output.status.code() == Some(2) && told.contains(sentence), "{told}");
}

#[test]
fn the_manager_hears_of_the_start_of_a_reload_and_of_the_end() {
    let folder = Scratch::new();
    let path = folder.join("notify.sock");
    let name = format!("mongoose-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let sockets = [
        (path.clone(), UnixDatagram::bind(&path).expect("bound")),
        (format!("@{name}"), UnixDatagram::bind_addr(&address).expect("bound")),
    ];
    for (name, socket) in sockets {
        let hear = || {
            let mut message = [0; 1024];
            let count = socket.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..count]).into_owned()
        };
        let mut command = command(&["--listening_port", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", &name);
        let mut running = Running::spawn(command, &folder, "");
        let ready = format!("READY=1\nSTATUS=Serving at {}\n", running.url);
        assert_eq!(hear(), ready);
        running.signal(libc::SIGHUP);
        let reloading = hear();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(time.trim_end().parse::<u64>().is_ok(), "{reloading}");
        assert_eq!(hear(), ready);
        assert_eq!(running.stop().0, 0);
        assert_eq!(hear(), "STOPPING=1\n");
    }
}

#[test]
fn a_manager_that_is_not_there_does_not_hold_anything_up() {
    let folder = Scratch::new();
    let mut command = command(&["--listening_port", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", folder.join("none.sock"));
    let mut running = Running::spawn(command, &folder, "");
    assert_eq!(status(&running.get("/")), "200");
    assert_eq!(running.stop().0, 0);
    assert!(running.errors().contains("NOTIFY_SOCKET: "), "{}", running.errors());
}

#[test]
fn systemd_understands_the_units() {
    needs!("systemd-analyze");
    let folder = Scratch::new();
    let mut command = crate::outside("systemd-analyze");
    command.args(["--man=no", "verify"]);
    for unit in ["mongoose.service", "mongoose.socket"] {
        let text = std::fs::read_to_string(repository(format!("packaging/systemd/{unit}.in")));
        let bin = program().parent().expect("a folder").display().to_string();
        folder.write(unit, text.expect("the unit").replace("@BINDIR@", &bin));
        command.arg(folder.join(unit));
    }
    let output = command.output().expect("systemd-analyze");
    let told = String::from_utf8_lossy(&output.stderr);
    // Of other units of this machine it complains as well.
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("mongoose")).collect();
    assert!(output.status.success() && ours.is_empty(), "{told}");
}
