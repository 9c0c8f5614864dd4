//! Unix domain sockets that listen (POSIX `sys/un.h`): how one gets its name and its mode, and who
//! takes the name away.
//!
//! A name is made and removed under a lock: a file beside it, with `.lock` behind its name, that is
//! there only meanwhile. Programs that start and end at the same time so never take a socket for
//! stale that is about to listen. Refuses to know options and connections.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix};

use super::sockets::{self, BACKLOG, above_standard};
use crate::listening::Name;

/// How often the lock is asked for, and the time between. It is held for a few calls only.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The name of a socket in the file system, which the process that made it removes.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode of the name.
    identity: (u64, u64),
    process: u32,
}

/// Binds a socket to a name and listens on it. The mode of an abstract name means nothing.
pub fn bind(name: &Name, mode: Option<u32>) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let socket = sockets::open(AddressFamily::UNIX)?;
    let path = match name {
        Name::Path(path) => path,
        Name::Abstract(name) => {
            rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
            rustix::net::listen(&socket, BACKLOG)?;
            return Ok((socket, None));
        }
    };
    let address = SocketAddrUnix::new(path)?;
    // The program may change its directory.
    let whole = std::path::absolute(path)?;
    let _lock = Lock::take(&whole)?;
    remove_stale(&whole, &address)?;
    if let Some(mode) = mode {
        // The name begins with this mode, less what the umask of the process takes. That belongs to
        // other threads, too, and is left alone.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    }
    rustix::net::bind(&socket, &address)?;
    let stat = look(&whole)?;
    let file = SocketFile { path: whole, identity: identity(&stat), process: std::process::id() };
    // Nobody can connect before the socket listens.
    let made = mode.map_or(Ok(()), |mode| file.set_mode(mode));
    match made.and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?)) {
        Ok(()) => Ok((socket, Some(file))),
        Err(error) => {
            file.unlink();
            Err(error)
        }
    }
}

impl SocketFile {
    /// Returns whether the name is this path, and still leads to the socket.
    pub fn is_at(&self, path: &Path) -> bool {
        std::path::absolute(path).is_ok_and(|path| path == self.path) && self.is_there()
    }

    /// Sets the mode of the socket, and of no other file that may have taken its place.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if identity(&stat) != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        if Mode::from_raw_mode(stat.st_mode).bits() == mode {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(mode);
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::chmod(same, mode) {
            // There is no /proc here.
            Err(Errno::NOENT) => Ok(rustix::fs::chmod(&self.path, mode)?),
            done => Ok(done?),
        }
    }

    /// Removes the name, if it still leads to the socket, and if this process has made it.
    pub fn remove(self) {
        if self.process != std::process::id() {
            return;
        }
        // A name that stays is stale, and replaced by who needs it.
        if let Ok(_lock) = Lock::take(&self.path) {
            self.unlink();
        }
    }

    fn unlink(&self) {
        if self.is_there() {
            let _ = rustix::fs::unlink(&self.path);
        }
    }

    fn is_there(&self) -> bool {
        look(&self.path).is_ok_and(|stat| identity(&stat) == self.identity)
    }
}

/// Removes a socket to which nobody listens any more. What is no socket stays, and so does one that
/// may be in use.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    let stat = match look(path) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => {}
        FileType::Directory => return Err(in_the_way("there is a directory")),
        _ => return Err(in_the_way("there is a file that is no socket")),
    }
    match rustix::net::connect(sockets::open(AddressFamily::UNIX)?, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        _ => return Err(in_the_way("another socket is in use there")),
    }
    match look(path) {
        Ok(now) if identity(&now) == identity(&stat) => Ok(rustix::fs::unlink(path)?),
        _ => Err(in_the_way("another socket is in use there")),
    }
}

fn in_the_way(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, what)
}

/// Looks at a name, without following it.
fn look(path: &Path) -> io::Result<Stat> {
    Ok(rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The lock under which a name is made or removed. Its file is removed by who holds it, unless it
/// has content, and so belongs to somebody else.
struct Lock {
    path: PathBuf,
    file: OwnedFd,
}

impl Lock {
    /// Takes the lock of a name.
    fn take(name: &Path) -> io::Result<Self> {
        let mut path = OsString::from(name);
        path.push(".lock");
        let path = PathBuf::from(path);
        let told = |error: io::Error| {
            let what = format!("cannot lock {}: {error}", crate::log::shown(path.as_os_str()));
            io::Error::new(error.kind(), what)
        };
        for _ in 0..LOCK_ATTEMPTS {
            let file = open_lock(&path).map_err(told)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The file may have been removed between the two calls.
                Ok(()) => {
                    let is_same = |stat: Stat| {
                        rustix::fs::fstat(&file).is_ok_and(|own| identity(&own) == identity(&stat))
                    };
                    if look(&path).is_ok_and(is_same) {
                        return Ok(Self { path, file });
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(told(error.into())),
            }
        }
        Err(told(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let is_ours = |stat: Stat| {
            stat.st_size == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        };
        if rustix::fs::fstat(&self.file).is_ok_and(is_ours) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Opens the file of a lock, and makes it if it is not there.
fn open_lock(path: &Path) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    above_standard(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?)
}
