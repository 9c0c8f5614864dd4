//! The process of a CGI program: its start by `posix_spawn`, its pipes, and its end.
//!
//! Owns which descriptors and signals the program inherits: none but those it is meant to have.
//! `posix_spawn` neither copies the address space, nor runs the handlers of `pthread_atfork`, nor
//! takes locks that another thread may hold, and no code of the library runs between fork and exec.
//! Knows nothing of requests.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use libc::{c_char, c_int, c_short};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// The program to start, and its surroundings.
pub struct Spec<'a> {
    /// A path, or a name that is searched in `PATH`.
    pub program: &'a Path,
    /// The arguments behind the name of the program.
    pub arguments: &'a [&'a Path],
    pub environment: &'a [CString],
    pub directory: &'a Path,
    /// Whether standard input is a pipe; else it is empty.
    pub has_input: bool,
    /// Whether standard error is a pipe; else its output is discarded.
    pub is_heard: bool,
}

/// The library's ends of the pipes of a program, with `O_NONBLOCK`.
pub struct Pipes {
    pub input: Option<Input>,
    pub output: OwnedFd,
    pub errors: Option<OwnedFd>,
}

/// The write end of a pipe. The read end is held, too: a write can then never raise SIGPIPE in the
/// writing thread if the program closes its end.
pub struct Input {
    pub pipe: OwnedFd,
    _read_end: OwnedFd,
}

/// A running program, the leader of a process group of its own.
pub struct Child {
    pid: Pid,
    /// A descriptor of this process and never of another one, even after the C program has reaped
    /// it.
    pidfd: Option<OwnedFd>,
    /// The process has been reaped.
    is_gone: bool,
}

/// Starts a program with default signals, none of them blocked, and the descriptors 0, 1 and 2
/// only.
pub fn spawn(spec: &Spec<'_>) -> io::Result<(Child, Pipes)> {
    let input = spec.has_input.then(pipe).transpose()?;
    let (output, child_output) = pipe()?;
    let errors = spec.is_heard.then(pipe).transpose()?;
    unblock(&output)?;

    let mut actions = Actions::new()?;
    match &input {
        Some((read, write)) => {
            unblock(write)?;
            actions.duplicate(read.as_fd(), 0)?;
        }
        None => actions.open_null(0, libc::O_RDONLY)?,
    }
    actions.duplicate(child_output.as_fd(), 1)?;
    match &errors {
        Some((read, write)) => {
            unblock(read)?;
            actions.duplicate(write.as_fd(), 2)?;
        }
        None => actions.open_null(2, libc::O_WRONLY)?,
    }
    actions.change_directory(spec.directory)?;
    actions.close_others()?;

    let attributes = Attributes::new()?;
    let program = CString::new(spec.program.as_os_str().as_bytes())?;
    let mut arguments = vec![program.clone()];
    for argument in spec.arguments {
        arguments.push(CString::new(argument.as_os_str().as_bytes())?);
    }
    let pid = run(&program, &actions, &attributes, &arguments, spec.environment)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().and_then(above_standard);
    let input = input.map(|(read, write)| Input { pipe: write, _read_end: read });
    let errors = errors.map(|(read, _)| read);
    Ok((Child { pid, pidfd, is_gone: false }, Pipes { input, output, errors }))
}

impl Child {
    /// Returns the descriptor that becomes readable when the program ends; `None` on kernels before
    /// Linux 5.3.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Returns whether the program has ended. If so it has been reaped, here or by the C program.
    pub fn has_ended(&mut self) -> bool {
        if self.is_gone {
            return true;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let by_number = || rustix::process::waitid(WaitId::Pid(self.pid), options);
        let ended = match &self.pidfd {
            Some(pidfd) => match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                // Linux 5.3 has these descriptors, but its `waitid` does not know them.
                Err(rustix::io::Errno::INVAL) => by_number(),
                ended => ended,
            },
            None => by_number(),
        };
        // ECHILD: the C program ignores SIGCHLD, or waits for all children.
        self.is_gone = matches!(ended, Ok(Some(_)) | Err(rustix::io::Errno::CHILD));
        self.is_gone
    }

    /// Returns whether a process of the program's process group is alive.
    pub fn group_lives(&self) -> bool {
        rustix::process::test_kill_process_group(self.pid).is_ok()
    }

    /// Sends a signal to the process group. Its number is not used again while the group has
    /// members.
    pub fn signal(&self, signal: Signal) {
        if !self.is_gone || self.group_lives() {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }
}

/// Creates a pipe. Returns its read end and its write end, both above 2.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let lost = || io::Error::from_raw_os_error(libc::EMFILE);
    Ok((above_standard(read).ok_or_else(lost)?, above_standard(write).ok_or_else(lost)?))
}

/// Moves a descriptor away from 0, 1 and 2, which are replaced in the child.
fn above_standard(fd: OwnedFd) -> Option<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Some(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).ok()
}

/// Sets `O_NONBLOCK`.
fn unblock(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Converts the return value of a `posix_spawn` function, which is an error number or 0.
fn check(error: c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Calls `posix_spawnp`.
fn run(
    program: &CStr,
    actions: &Actions,
    attributes: &Attributes,
    arguments: &[CString],
    environment: &[CString],
) -> io::Result<Pid> {
    let list = |strings: &[CString]| -> Vec<*mut c_char> {
        let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
        pointers.chain([ptr::null_mut()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    let mut pid = 0;
    // SAFETY: actions and attributes are initialised, the lists end in NULL and point to strings
    // that outlive the call, and nothing is written to them.
    check(unsafe {
        libc::posix_spawnp(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))
}

/// The changes to descriptors and directory in the child before it executes the program.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: a place to write to.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        Ok(Actions(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, fd: BorrowedFd<'_>, number: c_int) -> io::Result<()> {
        // SAFETY: the actions are initialised; the numbers are only noted.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&mut self.0, fd.as_raw_fd(), number)
        })
    }

    fn open_null(&mut self, number: c_int, flags: c_int) -> io::Result<()> {
        let path = c"/dev/null".as_ptr();
        // SAFETY: the actions are initialised; the path is copied.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, number, path, flags, 0)
        })
    }

    fn change_directory(&mut self, directory: &Path) -> io::Result<()> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: the actions are initialised; the path is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, path.as_ptr()) })
    }

    /// Closes all descriptors above 2, also those that the C program has opened without
    /// close-on-exec.
    fn close_others(&mut self) -> io::Result<()> {
        type CloseFrom =
            unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, c_int) -> c_int;
        let name = c"posix_spawn_file_actions_addclosefrom_np";
        // SAFETY: `name` is a C string.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if symbol.is_null() {
            return self.close_listed();
        }
        // SAFETY: a function of this name has this type, wherever there is one.
        let close_from = unsafe { std::mem::transmute::<*mut libc::c_void, CloseFrom>(symbol) };
        // SAFETY: the actions are initialised.
        check(unsafe { close_from(&mut self.0, 3) })
    }

    /// Closes the descriptors above 2 that are open now, for C libraries that cannot close a range.
    fn close_listed(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let Some(fd) = name.to_str().and_then(|name| name.parse::<c_int>().ok()) else {
                continue;
            };
            if fd > 2 {
                // SAFETY: the actions are initialised; the number is only noted.
                check(unsafe { libc::posix_spawn_file_actions_addclose(&mut self.0, fd) })?;
            }
        }
        Ok(())
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// The attributes of the child: a process group of its own, no signal blocked, and default actions.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: a place to write to.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let mut signals = MaybeUninit::uninit();
        // SAFETY: a place to write to; what is written is copied.
        check(unsafe {
            libc::sigfillset(signals.as_mut_ptr());
            libc::posix_spawnattr_setsigdefault(&mut attributes.0, signals.as_ptr())
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            libc::posix_spawnattr_setsigmask(&mut attributes.0, signals.as_ptr())
        })?;
        let flags = libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETPGROUP;
        // SAFETY: the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&mut attributes.0, flags as c_short) })?;
        // SAFETY: the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setpgroup(&mut attributes.0, 0) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    /// Returns the output of `sh -c script` with this input.
    fn output_of(script: &str, input: Option<&str>) -> String {
        let environment = [c"A=b c".to_owned()];
        let spec = Spec {
            program: Path::new("sh"),
            arguments: &[Path::new("-c"), Path::new(script)],
            environment: &environment,
            directory: Path::new("/usr"),
            has_input: input.is_some(),
            is_heard: true,
        };
        let (mut child, pipes) = spawn(&spec).expect("started");
        if let Some(input) = input {
            let mut pipe = File::from(pipes.input.expect("a pipe").pipe);
            pipe.write_all(input.as_bytes()).expect("taken");
        }
        let text = [pipes.output, pipes.errors.expect("a pipe")].map(|fd| {
            let flags = rustix::fs::fcntl_getfl(&fd).expect("flags");
            rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK).expect("set");
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).expect("text");
            text
        });
        while !child.has_ended() {
            std::thread::yield_now();
        }
        text.concat()
    }

    #[test]
    fn a_program_gets_its_environment_directory_and_input() {
        assert_eq!(output_of("echo \"$A $PWD$HOME\"", None), "b c /usr\n");
        assert_eq!(output_of("cat /dev/stdin; echo no >&2", Some("in")), "inno\n");
        assert_eq!(output_of("cat", None), "");
    }

    #[test]
    fn a_program_inherits_neither_descriptors_nor_signals() {
        let kept = File::open("/dev/null").expect("open");
        let kept = rustix::io::dup(&kept).expect("without close-on-exec");
        assert!(
            !rustix::io::fcntl_getfd(&kept).expect("flags").contains(rustix::io::FdFlags::CLOEXEC)
        );
        // The directory that is listed is open, too.
        let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done | grep -v '^[0123]$';
                      cd /proc/self/fd; test -e 4 && echo 4;
                      grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f2";
        // The C library uses the signals 32 and 33 itself.
        let of_the_library = 0x1_8000_0000;
        for line in output_of(script, None).lines() {
            let signals = u64::from_str_radix(line, 16).expect("a set of signals");
            assert!(line.len() == 16 && signals & !of_the_library == 0, "{line}");
        }
        drop(kept);
    }

    #[test]
    fn descriptors_are_closed_one_by_one_where_they_cannot_be_closed_together() {
        let kept = File::open("/dev/null").expect("open");
        let kept = rustix::io::dup(&kept).expect("without close-on-exec");
        let (output, theirs) = pipe().expect("a pipe");
        let mut actions = Actions::new().expect("actions");
        actions.duplicate(theirs.as_fd(), 1).expect("noted");
        actions.close_listed().expect("noted");
        let script = format!("test -e /proc/self/fd/{} && echo open; echo end", kept.as_raw_fd());
        let arguments = [c"sh", c"-c", &CString::new(script).expect("text")].map(CStr::to_owned);
        let attributes = Attributes::new().expect("attributes");
        let pid = run(c"sh", &actions, &attributes, &arguments, &[]).expect("started");
        drop(theirs);
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).expect("text");
        assert_eq!(text, "end\n");
        let mut child = Child { pid, pidfd: None, is_gone: false };
        while !child.has_ended() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let spec = |program| Spec {
            program: Path::new(program),
            arguments: &[],
            environment: &[],
            directory: Path::new("/"),
            has_input: false,
            is_heard: false,
        };
        for program in ["/no/such/program", "/etc/passwd", "no-such-program", ""] {
            assert!(spawn(&spec(program)).is_err(), "{program:?}");
        }
        assert!(spawn(&Spec { directory: Path::new("/none"), ..spec("true") }).is_err());
    }

    #[test]
    fn a_signal_reaches_what_the_program_has_started() {
        let spec = Spec {
            program: Path::new("/bin/sh"),
            arguments: &[Path::new("-c"), Path::new("sleep 1000 & echo; wait")],
            environment: &[],
            directory: Path::new("/"),
            has_input: true,
            is_heard: false,
        };
        let (mut child, pipes) = spawn(&spec).expect("started");
        while rustix::io::read(&pipes.output, &mut [0; 9]) != Ok(1) {
            std::thread::yield_now();
        }
        assert!(!child.has_ended() && child.group_lives());
        child.signal(Signal::TERM);
        while !child.has_ended() || child.group_lives() {
            std::thread::yield_now();
        }
        // The program has ended, and a write to its pipe still raises no signal.
        let input = pipes.input.expect("a pipe");
        assert_eq!(rustix::io::write(&input.pipe, b"late"), Ok(4));
        child.signal(Signal::KILL);
    }
}
