//! The page of memory by which the shim is told what is to fail, and tells what happened: the other side of
//! `struct control` in `shim.c`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

const MAX_SEEN: usize = 16384;

/// How the shim lays its words out.
#[repr(C)]
struct Page {
    armed: AtomicI32,
    number: AtomicI32,
    kind: AtomicI32,
    nth: AtomicI32,
    error: AtomicI32,
    count: AtomicI32,
    hits: AtomicI32,
    least: AtomicI32,
    exempt: [AtomicI32; 4],
    num_seen: AtomicI32,
    seen: [AtomicI32; MAX_SEEN],
    what: [u8; 512],
    trace: [i64; 24],
}

/// What a call is: its number, and what it is about, a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    pub number: i32,
    pub kind: u8,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// By this error.
    Error(i32),
    /// It moves one byte.
    Short,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    pub class: Class,
    /// Counted from 1.
    pub nth: i32,
    pub fault: Fault,
}

/// Allocations of this size and more count.
const LEAST_ALLOCATION: i32 = 4096;

/// The page that one program shares with this one.
pub struct Control {
    page: *mut Page,
    pub path: String,
}

// SAFETY: its words are atomic; the text is read when the program has ended.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// Makes one in a new file.
    pub fn new(path: String) -> Control {
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file: File = options.open(&path).expect("a file to share");
        let len = size_of::<Page>();
        file.set_len(len as u64).expect("its length");
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file that is as long.
        let page = unsafe {
            libc::mmap(ptr::null_mut(), len, rights, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert!(page != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Control { page: page.cast(), path }
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped as long as this value lives; zeros are a valid page.
        unsafe { &*self.page }
    }

    /// Says what is to fail; nothing does before [`Control::arm`].
    pub fn plan(&self, injection: Option<Injection>) {
        let page = self.page();
        page.least.store(LEAST_ALLOCATION, Ordering::SeqCst);
        let Some(Injection { class, nth, fault }) = injection else { return };
        page.number.store(class.number, Ordering::SeqCst);
        page.kind.store(class.kind.into(), Ordering::SeqCst);
        page.nth.store(nth, Ordering::SeqCst);
        let error = match fault {
            Fault::Error(error) => error,
            Fault::Short => -1,
        };
        page.error.store(error, Ordering::SeqCst);
    }

    /// Lets nothing happen to the connection of the client with this port.
    pub fn exempt(&self, place: usize, port: u16) {
        self.page().exempt[place].store(port.into(), Ordering::SeqCst);
    }

    /// Has calls count from now on.
    pub fn arm(&self) {
        self.page().armed.store(1, Ordering::SeqCst);
    }

    /// Has calls count from the creation of the server on.
    pub fn arm_at_creation(&self) {
        self.page().armed.store(2, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.page().armed.store(0, Ordering::SeqCst);
    }

    /// Whether the call that was to fail has come.
    pub fn has_hit(&self) -> bool {
        self.page().hits.load(Ordering::SeqCst) > 0
    }

    /// All calls that counted, in their order.
    pub fn seen(&self) -> Vec<Class> {
        let page = self.page();
        let len = usize::try_from(page.num_seen.load(Ordering::SeqCst)).unwrap_or(0).min(MAX_SEEN);
        let seen = page.seen[..len].iter().map(|word| word.load(Ordering::SeqCst));
        seen.map(|word| Class { number: word >> 8, kind: (word & 255) as u8 }).collect()
    }

    /// What the failed call was about.
    pub fn what(&self) -> String {
        let what = &self.page().what;
        let len = what.iter().position(|byte| *byte == 0).unwrap_or(what.len());
        String::from_utf8_lossy(&what[..len]).into_owned()
    }

    /// The way to the failed call: places in the library.
    pub fn way(&self) -> Vec<i64> {
        self.page().trace.iter().copied().take_while(|place| *place != 0).collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and not used again.
        unsafe { libc::munmap(self.page.cast(), size_of::<Page>()) };
        let _ = std::fs::remove_file(&self.path);
    }
}
