//! Connection slots: the memory behind `struct mg_connection *`.
//!
//! Owns what C sees of a connection, its state for all threads, and the late answer. Knows
//! nothing of sockets. `pool` never unmaps a slot, and uses the address of a slot that a program
//! has seen again only after millions of others: a pointer that a program keeps can always be read,
//! even after the end of the server, and says that its connection has closed. A slot of zeros is a
//! closed one, since the pool turns retired slots into zeros.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::hub::Hub;
use crate::abi::{MAX_VISIBLE_HEADERS, mg_connection, mg_header};
use crate::http::request::Head;
use crate::http::response::Answer;
use crate::peer::Peer;

/// The connection is open.
const OPEN: u64 = 1;
/// A request waits for its answer: a program may write.
const ANSWERABLE: u64 = 2;
/// The connection is a websocket whose closing handshake has not begun: frames may be written.
const FRAMES: u64 = 4;
/// The program has seen the connection: any of its threads may hold the pointer from now on.
const SEEN: u64 = 8;
/// The place of the base-2 logarithm of the window with which messages to the client are compressed;
/// 0 if they are not.
const WINDOW_AT: u32 = 4;
const WINDOW: u64 = 15 << WINDOW_AT;
/// The number of bits of the state word below the generation.
const FLAGS: u32 = 8;

/// One connection as other threads and C see it. The server keeps the data of the I/O thread.
#[repr(C)]
pub struct Slot {
    public: UnsafeCell<mg_connection>,
    /// The generation, shifted by [`FLAGS`], and the flags.
    state: AtomicU64,
    hub: AtomicPtr<Hub>,
    /// The index of this connection in the server.
    index: AtomicU32,
    /// The thread that has locked `answer`, or 0. It is not a `Mutex`: when the pool makes this
    /// word 0, whatever it was, a thread that waits for the lock must get it.
    lock: AtomicU32,
    /// The number of bytes that other threads have queued and the I/O thread has not taken yet.
    pub incoming: AtomicUsize,
    /// The number of bytes in the outbox of the connection, as of the last turn.
    pub backlog: AtomicUsize,
    /// The answer to a request whose handler has returned. The writing thread itself follows it,
    /// so that each thread learns at once whether its bytes are part of the answer.
    answer: UnsafeCell<Option<Box<Answer>>>,
}

// SAFETY: only the thread that holds the server writes to `public`, and C reads it under the rules
// of the API; all other fields are atomic or locked.
unsafe impl Sync for Slot {}
// SAFETY: as above; this type does not follow the pointers inside `public`.
unsafe impl Send for Slot {}

/// The number of a connection: no two connections of the process have the same one.
pub type Generation = u64;

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl Slot {
    /// Returns the slot behind a pointer that C holds.
    ///
    /// # Safety
    /// `conn` is NULL or a pointer that this library once gave to a handler.
    pub unsafe fn from_c(conn: *const mg_connection) -> Option<&'static Slot> {
        // SAFETY: such pointers are addresses of slots, which are never unmapped.
        unsafe { conn.cast::<Slot>().as_ref() }
    }

    /// Returns the pointer for C. It is derived from the whole slot, so that it leads back to the
    /// slot.
    pub fn as_c(&'static self) -> *mut mg_connection {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Returns the generation if the connection is open.
    pub fn open_generation(&self) -> Option<Generation> {
        let state = self.state.load(Ordering::Acquire);
        (state & OPEN != 0).then_some(state >> FLAGS)
    }

    /// Returns whether a request waits for its answer.
    pub fn is_answerable(&self) -> bool {
        self.state.load(Ordering::Acquire) & ANSWERABLE != 0
    }

    /// Sets whether a request waits for its answer.
    pub fn set_answerable(&self, answerable: bool) {
        let state = self.state.load(Ordering::Relaxed);
        let flag = if answerable { ANSWERABLE } else { 0 };
        self.state.store(state & !ANSWERABLE | flag, Ordering::Release);
    }

    /// Returns whether this is a websocket to which frames may be written.
    pub fn takes_frames(&self) -> bool {
        self.state.load(Ordering::Acquire) & FRAMES != 0
    }

    /// Sets whether frames may be written.
    pub fn set_takes_frames(&self, takes: bool) {
        let state = self.state.load(Ordering::Relaxed);
        let flag = if takes { FRAMES } else { 0 };
        self.state.store(state & !FRAMES | flag, Ordering::Release);
    }

    /// Returns the base-2 logarithm of the window with which messages are compressed, if they are.
    pub fn window_bits(&self) -> Option<u8> {
        let bits = (self.state.load(Ordering::Acquire) & WINDOW) >> WINDOW_AT;
        (bits > 0).then_some(bits as u8)
    }

    /// Sets the window with which messages are compressed.
    pub fn set_window_bits(&self, bits: u8) {
        let state = self.state.load(Ordering::Relaxed);
        let bits = u64::from(bits) << WINDOW_AT & WINDOW;
        self.state.store(state & !WINDOW | bits, Ordering::Release);
    }

    /// Marks the connection as a websocket.
    pub fn become_websocket(&self) {
        // SAFETY: as in `show_request`.
        unsafe { (*self.public.get()).is_websocket = 1 };
    }

    /// Shows a websocket message to the program. The message must not move until it is hidden.
    pub fn show_message(&self, content: &mut [u8], wsbits: u8) {
        let out = self.public.get();
        // SAFETY: as in `show_request`.
        unsafe {
            (*out).content = content.as_mut_ptr().cast();
            (*out).content_len = c_int::try_from(content.len()).unwrap_or(0);
            (*out).wsbits = wsbits;
        }
    }

    /// Hides the message from the program.
    pub fn hide_message(&self) {
        let Content(content, content_len, _) = Content::none();
        let out = self.public.get();
        // SAFETY: as in `show_request`.
        unsafe {
            (*out).content = content;
            (*out).content_len = content_len;
            (*out).wsbits = 0;
        }
    }

    /// Returns the hub of the server whose connection the slot is, or was last.
    pub fn hub(&self) -> Option<&'static Hub> {
        // SAFETY: the pointer is NULL or that of a hub, and hubs are never unmapped.
        unsafe { self.hub.load(Ordering::Acquire).as_ref() }
    }

    /// Returns whether messages of other threads for this connection are in the queue. Under the lock of
    /// [`Slot::lock_answer`] none is added.
    #[inline]
    pub fn has_messages(&self) -> bool {
        self.incoming.load(Ordering::Relaxed) != 0
    }

    /// Returns the index of this connection in the server.
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed) as usize
    }

    /// Notes that the program sees this connection.
    pub fn set_seen(&self) {
        // The flag is set once, and by one atomic operation: another thread may clear `FRAMES` at
        // the same time, to begin a closing handshake.
        if self.state.load(Ordering::Relaxed) & SEEN == 0 {
            self.state.fetch_or(SEEN, Ordering::Relaxed);
        }
    }

    /// Locks the place of the late answer, which may be empty. A waiting thread sleeps now and then, since the
    /// thread that holds the lock may have a lower priority.
    #[inline]
    pub fn lock_answer(&self) -> LateAnswer<'_> {
        let mut tries = 0_u32;
        // The address on the stack differs from those of all threads that hold the lock or wait for
        // it.
        let me = ((&raw const tries).addr() >> 4) as u32 | 1;
        while self.lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            match tries {
                0..64 => std::hint::spin_loop(),
                64..80 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
            tries = tries.saturating_add(1);
        }
        LateAnswer { slot: self, me }
    }

    #[cfg(test)]
    pub fn forget_lock(&self) {
        self.lock.store(0, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn is_locked(&self) -> bool {
        self.lock.load(Ordering::Relaxed) != 0
    }

    /// Begins a connection, on the I/O thread.
    pub fn open(&self, hub: &'static Hub, index: u32, peer: Peer, param: *mut c_void) {
        let mut public = blank();
        public.server_param = param;
        public.remote_port = c_int::from(peer.port());
        write_address(&mut public.remote_ip, peer);
        // SAFETY: the slot is not in use, and only the I/O thread writes here.
        unsafe { *self.public.get() = public };
        self.hub.store(ptr::from_ref(hub).cast_mut(), Ordering::Release);
        self.index.store(index, Ordering::Relaxed);
        self.incoming.store(0, Ordering::Relaxed);
        self.backlog.store(0, Ordering::Relaxed);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        self.state.store(generation << FLAGS | OPEN, Ordering::Release);
    }

    /// Shows another client to the program, on the I/O thread: a proxy speaks for it.
    pub fn show_peer(&self, peer: Peer) {
        let mut text = [0; 48];
        write_address(&mut text, peer);
        let out = self.public.get();
        // SAFETY: as in `show_request`.
        unsafe {
            (*out).remote_ip = text;
            (*out).remote_port = c_int::from(peer.port());
        }
    }

    /// Returns the client that the program is shown, on the I/O thread.
    pub fn shown_peer(&self) -> Option<Peer> {
        let out = self.public.get();
        // SAFETY: only the I/O thread writes here, and no reference to `public` exists.
        let (text, port) = unsafe { ((*out).remote_ip, (*out).remote_port) };
        let bytes = text.map(|byte| byte as u8);
        let text = str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?;
        Peer::from_parts(text, u16::try_from(port).ok()?)
    }

    /// Ends a connection: from now on every pointer to it finds it closed. Returns whether the
    /// program has seen it, and may have kept a pointer.
    pub fn close(&self) -> bool {
        // The lock keeps other threads from changing the flags at the same time, which would
        // restore the old generation.
        let mut answer = self.lock_answer();
        let seen = self.state.load(Ordering::Relaxed) & SEEN != 0;
        self.state.store(0, Ordering::Release);
        *answer = None;
        drop(answer);
        self.clear_request();
        seen
    }

    /// Shows a request to the program, on the I/O thread. `buf` holds the head, whose strings are
    /// terminated here, the decoded path from `path_at` on, and the content from `content_at` on,
    /// with a NUL behind it as the last byte. `buf` must not move until [`Slot::clear_request`].
    pub fn show_request(&self, buf: &mut [u8], head: &Head, shown: &Shown) {
        let mut public = blank_strings();
        let mut terminate = |at: usize| match buf.get_mut(at) {
            Some(byte) => *byte = 0,
            None => debug_assert!(false, "an offset behind the buffer"),
        };
        terminate(head.method.range().end);
        terminate(shown.path_end);
        if let Some(query) = &shown.query {
            terminate(query.end);
        }
        for field in head.fields.iter().take(MAX_VISIBLE_HEADERS) {
            terminate(field.name.range().end);
            if field.value.len > 0 {
                terminate(field.value.range().end);
            }
        }
        let base = buf.as_mut_ptr().cast::<c_char>();
        // The offsets come from parsing this buffer; a wrong one must still give a pointer into it.
        let at = |offset: usize| base.wrapping_add(offset.min(buf.len() - 1));
        public.request_method = at(head.method.start as usize);
        public.uri = at(shown.path_at);
        public.http_version = if head.minor == 0 { c"1.0" } else { c"1.1" }.as_ptr();
        public.query_string =
            shown.query.as_ref().map_or(ptr::null(), |query| at(query.start).cast_const());
        public.content = at(shown.content_at);
        public.content_len = c_int::try_from(buf.len() - 1 - shown.content_at).unwrap_or(0);

        let out = self.public.get();
        // SAFETY: only the I/O thread writes here, and no reference to `public` exists: C reads
        // through its pointer during a call of the program, and there is none now.
        unsafe {
            (*out).request_method = public.request_method;
            (*out).uri = public.uri;
            (*out).http_version = public.http_version;
            (*out).query_string = public.query_string;
            (*out).content = public.content;
            (*out).content_len = public.content_len;
            (*out).status_code = 0;
            let mut count = 0;
            for field in head.fields.iter().take(MAX_VISIBLE_HEADERS) {
                (*out).http_headers[count] = mg_header {
                    name: at(field.name.start as usize),
                    value: if field.value.len == 0 {
                        c"".as_ptr()
                    } else {
                        at(field.value.start as usize)
                    },
                };
                count += 1;
            }
            (*out).num_headers = count as c_int;
        }
    }

    /// Hides the request from the program.
    pub fn clear_request(&self) {
        let empty = blank_strings();
        let out = self.public.get();
        // SAFETY: as in `show_request`.
        unsafe {
            (*out).request_method = empty.request_method;
            (*out).uri = empty.uri;
            (*out).http_version = empty.http_version;
            (*out).query_string = ptr::null();
            (*out).num_headers = 0;
            (*out).content = empty.content;
            (*out).content_len = 0;
            (*out).status_code = 0;
            (*out).wsbits = 0;
        }
    }

    /// Shows a status to the program.
    pub fn set_status(&self, status: u16) {
        // SAFETY: as in `show_request`.
        unsafe { (*self.public.get()).status_code = c_int::from(status) };
    }

    /// Replaces the content that the program sees, for the function of an iteration and back.
    /// Returns the previous content.
    pub fn swap_content(&self, content: Content) -> Content {
        let out = self.public.get();
        // SAFETY: as in `show_request`.
        unsafe {
            let old = Content((*out).content, (*out).content_len, (*out).wsbits);
            ((*out).content, (*out).content_len, (*out).wsbits) = (content.0, content.1, content.2);
            old
        }
    }
}

/// The locked answer of a slot, for a thread that writes to it or ends it.
///
/// The lock of a closed slot is lost when the pool gives its memory back: the thread that held the
/// lock finds the slot closed and reads nothing else. A lost lock is not released, since another
/// thread may hold it by then.
pub struct LateAnswer<'a> {
    slot: &'a Slot,
    me: u32,
}

impl Drop for LateAnswer<'_> {
    fn drop(&mut self) {
        let lock = &self.slot.lock;
        let _ = lock.compare_exchange(self.me, 0, Ordering::Release, Ordering::Relaxed);
    }
}

impl Deref for LateAnswer<'_> {
    type Target = Option<Box<Answer>>;

    fn deref(&self) -> &Self::Target {
        // SAFETY: while a connection is open, only the thread that holds the lock gets here; for a
        // closed one, only the thread that ends or begins it.
        unsafe { &*self.slot.answer.get() }
    }
}

impl DerefMut for LateAnswer<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as above.
        unsafe { &mut *self.slot.answer.get() }
    }
}

/// The content that a program sees: its address, its length, and `wsbits`.
pub struct Content(*mut c_char, c_int, u8);

impl Content {
    /// Returns empty content.
    pub fn none() -> Self {
        Self(NO_CONTENT.0.get().cast(), 0, 0)
    }

    /// Returns a message with a NUL behind it as content. The message must not move while it is
    /// shown.
    pub fn of_message(message: &mut [u8], wsbits: u8) -> Self {
        let len = c_int::try_from(message.len().saturating_sub(1)).unwrap_or(0);
        if message.is_empty() {
            return Self::none();
        }
        Self(message.as_mut_ptr().cast(), len, wsbits)
    }
}

/// The places of the program's strings in the buffer of a request.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub path_at: usize,
    pub path_end: usize,
    pub query: Option<std::ops::Range<usize>>,
    pub content_at: usize,
}

/// The strings of a connection without a request.
struct Strings {
    request_method: *const c_char,
    uri: *const c_char,
    http_version: *const c_char,
    query_string: *const c_char,
    content: *mut c_char,
    content_len: c_int,
}

/// A NUL that a program may overwrite, as the byte behind its content.
struct Writable(UnsafeCell<[u8; 8]>);
// SAFETY: only C writes there, and the library never reads these bytes.
unsafe impl Sync for Writable {}
static NO_CONTENT: Writable = Writable(UnsafeCell::new([0; 8]));

/// Returns the strings of a connection without a request.
fn blank_strings() -> Strings {
    let empty = c"".as_ptr();
    Strings {
        request_method: empty,
        uri: empty,
        http_version: empty,
        query_string: ptr::null(),
        content: NO_CONTENT.0.get().cast(),
        content_len: 0,
    }
}

/// Returns the public structure of a new connection.
fn blank() -> mg_connection {
    let request = blank_strings();
    mg_connection {
        request_method: request.request_method,
        uri: request.uri,
        http_version: request.http_version,
        query_string: request.query_string,
        remote_ip: [0; 48],
        remote_port: 0,
        num_headers: 0,
        http_headers: [mg_header { name: ptr::null(), value: ptr::null() }; MAX_VISIBLE_HEADERS],
        content: request.content,
        content_len: request.content_len,
        is_websocket: 0,
        status_code: 0,
        wsbits: 0,
        server_param: ptr::null_mut(),
        connection_param: ptr::null_mut(),
    }
}

/// Writes an address into the public structure, where the bytes are zero.
fn write_address(bytes: &mut [c_char; 48], peer: Peer) {
    let mut text = AddressText { bytes, len: 0 };
    // The longest textual address has 45 bytes, so that it always fits.
    let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{}", peer.address()));
}

/// The text of an address in the public structure.
struct AddressText<'a> {
    bytes: &'a mut [c_char; 48],
    len: usize,
}

impl std::fmt::Write for AddressText<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            // The last byte stays NUL.
            if self.len + 1 < self.bytes.len() {
                self.bytes[self.len] = byte as c_char;
                self.len += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::acquire;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_client_that_is_shown_is_the_one_that_was_named() {
        let slot = acquire().expect("memory");
        slot.open(Hub::acquire(), 0, Peer::V6([0xff; 16].into(), 1), ptr::null_mut());
        for peer in [Peer::V4([1, 2, 3, 4].into(), 5), Peer::Local, Peer::V6([9; 16].into(), 0)] {
            slot.show_peer(peer);
            assert_eq!(slot.shown_peer(), Some(peer));
        }
        slot.close();
    }

    #[test]
    fn a_slot_stays_open_while_a_writer_holds_its_lock() {
        let slot = acquire().expect("memory");
        slot.open(Hub::acquire(), 0, Peer::V4([127, 0, 0, 1].into(), 1), ptr::null_mut());
        let generation = slot.open_generation();
        let writer = slot.lock_answer();
        let closer = std::thread::spawn(|| slot.close());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(slot.open_generation(), generation);
        drop(writer);
        closer.join().expect("no panic");
        assert_eq!(slot.open_generation(), None);
    }
}
