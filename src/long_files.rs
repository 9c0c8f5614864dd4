//! What takes long with a long file, and that no client should wait for: the end of its content, and
//! the way of new content to the disk.
//!
//! A file system frees the blocks of a file when its last name and its last descriptor are gone: some
//! 0.2 ms for each MB. Such descriptors are closed by a thread, which does nothing else, knows nothing
//! of any server, and ends when there is nothing left to close. Follows `unlink(2)`, `open(2)`
//! (`O_PATH`) and `sync_file_range(2)`. Refuses to know why a file goes, and who asked for it.

use std::cell::Cell;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The number of bytes on the disk from which a file counts as long.
pub const LONG: u64 = 4 << 20;
/// The number of bytes that are sent on their way to the disk at once.
const WRITE_BACK_PIECE: u64 = 1 << 20;
/// The cost of that, in units of a budget of calls of the file system.
const WRITE_BACK_COST: usize = 64;
/// The number of descriptors that can wait to be closed.
const PLACES: usize = 64;
/// The stack of the thread in bytes.
const STACK: usize = 128 << 10;
/// The longest wait for the thread: other servers of the process may go on to give it work.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A place without a descriptor, and one that is being filled.
const FREE: i32 = -1;
const FILLING: i32 = -2;

/// The file systems that free blocks in the last close, and let a file go that is open. Others, as
/// network file systems, would keep the name of such a file until then.
const LOCAL: [u32; 6] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
];

/// A descriptor that waits to be closed, and the file that it belongs to. No lock is used: a child of a
/// fork may be made at any time, and finds them as they are.
struct Place {
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
}

static WAITING: [Place; PLACES] =
    [const { Place { fd: AtomicI32::new(FREE), dev: AtomicU64::new(0), ino: AtomicU64::new(0) } };
        PLACES];

/// The process whose thread runs; 0 if none does. A child of a fork finds the id of its parent.
static RUNNING: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Set if this thread has found all places taken.
    static PUT_OFF: Cell<bool> = const { Cell::new(false) };
}

/// A file whose last close may take long. It is closed by the thread if it is long and has no name.
#[derive(Debug)]
pub struct LongFile {
    file: ManuallyDrop<File>,
    /// The process that opened it: the copy of a child of a fork is never the last one to close.
    process: u32,
}

impl LongFile {
    pub fn new(file: File) -> LongFile {
        LongFile { file: ManuallyDrop::new(file), process: std::process::id() }
    }
}

impl Deref for LongFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for LongFile {
    fn drop(&mut self) {
        // SAFETY: the field is not used again.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        if is_mine(self.process) {
            close(file);
        }
    }
}

/// Opens a file that is about to lose its name, if it is long, so that it goes when the returned value
/// is dropped, and not in the call that takes the name.
pub fn hold(path: &Path) -> Option<LongFile> {
    hold_known(path, &std::fs::symlink_metadata(path).ok()?)
}

/// Does the work of [`hold`] for a file that was looked at.
pub fn hold_known(path: &Path, meta: &Metadata) -> Option<LongFile> {
    if !is_long(meta) || meta.nlink() != 1 {
        return None;
    }
    // Such a descriptor needs no permission, and opens nothing that could block.
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = LongFile::new(file.ok()?);
    if file.as_raw_fd() < 3 {
        // Daemons close these numbers.
        return None;
    }
    let kind = rustix::fs::fstatfs(&*file).ok()?.f_type;
    LOCAL.contains(&(kind as u32)).then_some(file)
}

/// Returns whether a file takes long to free.
pub fn is_long(meta: &Metadata) -> bool {
    meta.is_file() && size_on_disk(meta) >= LONG
}

/// Returns the number of bytes that a file takes on the disk.
pub fn size_on_disk(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(512)
}

/// Returns whether no further descriptor can wait to be closed: what would need a place is put off.
pub fn is_busy() -> bool {
    let is_busy = WAITING.iter().all(|place| place.fd.load(Ordering::Relaxed) != FREE);
    if is_busy {
        PUT_OFF.set(true);
    }
    is_busy
}

/// Returns whether something was put off by this thread since the last call. The thread that closes needs a
/// millisecond for a file, so that the loop looks again after some: it has no lock, and so nobody to wake.
#[inline]
pub fn has_put_off() -> bool {
    PUT_OFF.replace(false)
}

/// Takes all free places, until the result is dropped.
#[cfg(test)]
pub fn occupy() -> impl Drop {
    struct Occupied(Vec<&'static Place>);

    impl Drop for Occupied {
        fn drop(&mut self) {
            self.0.iter().for_each(|place| place.fd.store(FREE, Ordering::SeqCst));
        }
    }

    let mut taken = Vec::new();
    while taken.len() < PLACES {
        // Other tests may have some for a while.
        taken.extend(WAITING.iter().filter(|place| {
            place.fd.compare_exchange(FREE, FILLING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        }));
    }
    Occupied(taken)
}

/// Closes a file, in the thread if that takes long.
pub fn close(file: File) {
    let Ok(meta) = file.metadata() else { return };
    if meta.nlink() > 0 || !is_long(&meta) {
        return;
    }
    let is_free = |place: &&Place| {
        place.fd.compare_exchange(FREE, FILLING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    let Some(place) = WAITING.iter().find(is_free) else { return };
    place.dev.store(meta.dev(), Ordering::Relaxed);
    place.ino.store(meta.ino(), Ordering::Relaxed);
    place.fd.store(file.into_raw_fd(), Ordering::SeqCst);
    start();
}

/// Starts the thread, unless it runs. Where there can be none, its work is done here.
fn start() {
    if is_mine(RUNNING.load(Ordering::SeqCst)) || !claim() {
        return;
    }
    let builder = std::thread::Builder::new().name("mg-close".to_owned()).stack_size(STACK);
    let spawned = with_signals_blocked(|| builder.spawn(close_all));
    if spawned.is_err() {
        close_all();
    }
}

fn is_mine(process: u32) -> bool {
    process == std::process::id()
}

/// Makes the caller the one that closes. Returns false if there is one already.
fn claim() -> bool {
    let process = std::process::id();
    RUNNING
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| (old != process).then_some(process))
        .is_ok()
}

/// Closes what waits, until there is nothing left.
fn close_all() {
    loop {
        for place in &WAITING {
            let fd = place.fd.load(Ordering::SeqCst);
            if fd >= 0 {
                // SAFETY: the place owns the descriptor, and only the one who closes takes it out.
                drop(unsafe { File::from_raw_fd(fd) });
                place.fd.store(FREE, Ordering::SeqCst);
            }
        }
        RUNNING.store(0, Ordering::SeqCst);
        // What has come since then has found a thread that runs.
        if !has_waiting() || !claim() {
            return;
        }
    }
}

fn has_waiting() -> bool {
    WAITING.iter().any(|place| place.fd.load(Ordering::SeqCst) >= 0)
}

/// Waits until all descriptors are closed, at the end of a server, so that a program which ends one finds
/// its descriptors as they were. What takes longer goes on in the thread.
pub fn settle() {
    let end = Instant::now() + LONGEST_WAIT;
    while (has_waiting() || is_mine(RUNNING.load(Ordering::SeqCst))) && Instant::now() < end {
        start();
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Closes the copies of descriptors that the parent of a fork closes in its thread, in the child. The
/// thread may have closed one already, so that the number means another file.
pub fn leave_parent() {
    if !claim() {
        return;
    }
    for place in &WAITING {
        let fd = place.fd.swap(FREE, Ordering::SeqCst);
        if fd < 0 {
            continue;
        }
        // SAFETY: it is closed only if it is the one that the place owns.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        let meta = file.metadata();
        let id = (place.dev.load(Ordering::Relaxed), place.ino.load(Ordering::Relaxed));
        if meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == id && meta.nlink() == 0) {
            drop(ManuallyDrop::into_inner(file));
        }
    }
    RUNNING.store(0, Ordering::SeqCst);
}

/// Calls `spawn` while all signals are blocked for this thread, so that the one that it starts gets
/// none: they are meant for the program.
pub fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: the first call initializes the set that the second one reads; the old set is written.
    let is_blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), old.as_mut_ptr()) == 0
    };
    let result = spawn();
    if is_blocked {
        // SAFETY: the call above has written the set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    }
    result
}

/// Sends a range of a file on its way to the disk, and does not wait for it. What cannot be sent now
/// goes later.
fn write_back(file: &File, start: u64) {
    let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(WRITE_BACK_PIECE)) else {
        return;
    };
    // SAFETY: the call touches no memory of this process.
    unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Sends content on its way to the disk of which `written` has just been written: each piece that it
/// completes. A rename over another file waits for all that is not on its way (ext4, `auto_da_alloc`).
pub fn write_back_behind(file: &File, written: Range<u64>) {
    let (before, after) = (written.start / WRITE_BACK_PIECE, written.end / WRITE_BACK_PIECE);
    if before < after {
        write_back(file, (after - 1) * WRITE_BACK_PIECE);
    }
}

/// The way of a whole file to the disk, in portions, before it takes the name of another one.
#[derive(Debug, Default)]
pub struct WriteBack {
    position: u64,
}

impl WriteBack {
    /// Sends more on its way, as far as `budget` allows. Returns true once all is, or nothing was to be.
    pub fn advance(&mut self, file: &File, budget: &mut usize) -> io::Result<bool> {
        let len = file.metadata()?.len();
        if len < LONG {
            return Ok(true);
        }
        while self.position < len && *budget > 0 {
            *budget = budget.saturating_sub(WRITE_BACK_COST);
            write_back(file, self.position);
            self.position += WRITE_BACK_PIECE;
        }
        Ok(self.position >= len)
    }
}
