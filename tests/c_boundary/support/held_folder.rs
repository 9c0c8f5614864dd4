//! A file system of the test's own (FUSE), which answers when the test says so: the kernel's protocol,
//! spoken over `/dev/fuse`. Nothing of it stays in the kernel's caches.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Scratch, deadline};

/// The time of the last change of all files, in seconds.
const CHANGED: u64 = 1_000_000_000;
const ROOT: u64 = 1;
/// Several processes may look into one folder at the same time.
const PARALLEL: u32 = 1 << 18;

/// A folder that is mounted, until it is dropped.
pub struct HeldFolder {
    path: String,
    shared: Arc<Shared>,
}

struct Shared {
    device: File,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    nodes: Vec<Node>,
    /// Whether requests wait for [`HeldFolder::let_through`].
    holds: bool,
    held: VecDeque<Request>,
}

struct Node {
    content: Content,
}

enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<String, u64>),
}

struct Request {
    opcode: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

impl HeldFolder {
    /// Mounts one with these files on a folder that it makes. A test begins by `needs!("mount-fuse")`.
    pub fn mount(scratch: &Scratch, name: &str, files: &[(&str, &[u8])]) -> HeldFolder {
        super::needs::assert_named("mount-fuse");
        let path = scratch.join(name);
        std::fs::create_dir_all(&path).expect("a folder to mount on");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other");
        let text = |text: &str| CString::new(text).expect("no NUL");
        let (target, options) = (text(&path), text(&options));
        // SAFETY: all pointers are to strings that live until the call returns.
        let result = unsafe {
            let kind = c"fuse".as_ptr();
            libc::mount(kind, target.as_ptr(), kind, 0, options.as_ptr().cast())
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let mut state = State {
            nodes: vec![Node { content: Content::Folder(BTreeMap::new()) }],
            holds: false,
            held: VecDeque::new(),
        };
        for (name, content) in files {
            state.add(name, content);
        }
        let shared = Arc::new(Shared { device, state: Mutex::new(state), changed: Condvar::new() });
        let folder = HeldFolder { path, shared: shared.clone() };
        std::thread::spawn(move || shared.serve());
        folder
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Has all requests wait from now on.
    pub fn hold(&self) {
        self.lock().holds = true;
    }

    /// Returns when a request waits, or when `is_over`.
    pub fn wait(&self, mut is_over: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + deadline();
        let mut state = self.lock();
        loop {
            if !state.held.is_empty() {
                return true;
            }
            drop(state);
            if is_over() {
                return false;
            }
            assert!(Instant::now() < end, "no request has come");
            let pause = std::time::Duration::from_millis(2);
            state = self.shared.changed.wait_timeout(self.lock(), pause).expect("no panic").0;
        }
    }

    /// Answers the request that has waited longest.
    pub fn let_one_through(&self) {
        let mut state = self.lock();
        if let Some(request) = state.held.pop_front() {
            self.shared.answer(&state, &request);
        }
    }

    /// The number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().held.len()
    }

    /// Answers one of the requests that wait.
    pub fn let_through(&self, place: usize) {
        let mut state = self.lock();
        let request = state.held.remove(place).expect("a request that waits");
        self.shared.answer(&state, &request);
    }

    /// Answers all requests, those that wait and those that come.
    pub fn release(&self) {
        let mut state = self.lock();
        state.holds = false;
        for request in std::mem::take(&mut state.held) {
            self.shared.answer(&state, &request);
        }
    }
}

impl Drop for HeldFolder {
    fn drop(&mut self) {
        self.release();
        let _ = std::process::Command::new("umount").args(["-l", &self.path]).status();
    }
}

impl State {
    fn add(&mut self, name: &str, content: &[u8]) {
        let mut at = ROOT;
        let mut names = name.split('/').peekable();
        while let Some(name) = names.next() {
            let next = self.nodes.len() as u64 + 1;
            let Content::Folder(inside) = &mut self.nodes[at as usize - 1].content else {
                panic!("{name} lies in a file");
            };
            let is_new = !inside.contains_key(name);
            at = *inside.entry(name.to_owned()).or_insert(next);
            if is_new {
                let content = match names.peek() {
                    Some(_) => Content::Folder(BTreeMap::new()),
                    None => Content::File(content.to_vec()),
                };
                self.nodes.push(Node { content });
            }
        }
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match &self.nodes[node as usize - 1].content {
            Content::File(content) => (0o100_644, content.len() as u64),
            Content::Folder(_) => (0o040_755, 0),
        };
        let mut out = Vec::new();
        for number in [node, size, size.div_ceil(512), CHANGED, CHANGED, CHANGED] {
            out.extend(number.to_ne_bytes());
        }
        for number in [1u32, 1, 1, mode, 1, 0, 0, 0, 4096, 0] {
            out.extend(number.to_ne_bytes());
        }
        out
    }

    /// The answer to a request, or the number of an error.
    fn reply(&self, request: &Request) -> Result<Vec<u8>, i32> {
        let number = |at: usize| {
            u64::from_ne_bytes(request.body[at..at + 8].try_into().expect("eight bytes"))
        };
        let node = &self.nodes.get(request.node as usize - 1).ok_or(libc::ESTALE)?.content;
        Ok(match (request.opcode, node) {
            (1, Content::Folder(inside)) => {
                let name = request.body.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = std::str::from_utf8(name).map_err(|_| libc::ENOENT)?;
                let found = *inside.get(name).ok_or(libc::ENOENT)?;
                // Neither the name nor the attributes are valid for any time.
                let mut out = [found, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
                out.extend(self.attributes(found));
                out
            }
            (3, _) => [&[0; 16][..], &self.attributes(request.node)].concat(),
            // To be read past the page cache.
            (14, _) => [&[0; 8][..], &1u32.to_ne_bytes(), &[0; 4]].concat(),
            (27, _) => vec![0; 16],
            (15, Content::File(content)) => {
                let start = (number(8) as usize).min(content.len());
                let size = (number(16) & 0xffff_ffff) as usize;
                content[start..content.len().min(start + size)].to_vec()
            }
            (28, Content::Folder(inside)) => entries(inside, number(8) as usize),
            (17, _) => vec![0; 80],
            (18 | 25 | 29, _) => Vec::new(),
            (26, _) => {
                let mut out = [7u32, 31, 0, PARALLEL, 0, 1 << 17, 1].map(u32::to_ne_bytes).concat();
                out.resize(64, 0);
                out
            }
            (1, Content::File(_)) => return Err(libc::ENOTDIR),
            _ => return Err(libc::ENOSYS),
        })
    }
}

/// The entries of a folder behind the first `skipped`.
fn entries(inside: &BTreeMap<String, u64>, skipped: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, (name, node)) in inside.iter().enumerate().skip(skipped) {
        out.extend([*node, place as u64 + 1].map(u64::to_ne_bytes).concat());
        out.extend([name.len() as u32, 0].map(u32::to_ne_bytes).concat());
        out.extend(name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut buf = vec![0; (1 << 17) + 4096];
        while let Ok(len) = (&self.device).read(&mut buf) {
            let header = &buf[..len];
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four"));
            let long =
                |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight"));
            let request = Request {
                opcode: word(4),
                unique: long(8),
                node: long(16).max(ROOT),
                body: header[40..].to_vec(),
            };
            let mut state = self.lock();
            match request.opcode {
                // Nobody waits for an answer to these.
                2 | 42 => {}
                // The process of a request is ending.
                36 => {
                    let of = u64::from_ne_bytes(request.body[..8].try_into().expect("eight"));
                    if let Some(at) = state.held.iter().position(|held| held.unique == of) {
                        state.held.remove(at);
                        self.reply(of, Err(libc::EINTR));
                    }
                }
                26 => self.answer(&state, &request),
                _ if state.holds => {
                    state.held.push_back(request);
                    self.changed.notify_all();
                }
                _ => self.answer(&state, &request),
            }
        }
    }

    fn answer(&self, state: &State, request: &Request) {
        self.reply(request.unique, state.reply(request));
    }

    fn reply(&self, unique: u64, reply: Result<Vec<u8>, i32>) {
        let (error, body) = match reply {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let len = 16 + body.len() as u32;
        let mut out = [&len.to_ne_bytes()[..], &error.to_ne_bytes()].concat();
        out.extend(unique.to_ne_bytes());
        out.extend(body);
        // A request whose process has gone is none any more.
        let _ = (&self.device).write(&out);
    }
}
