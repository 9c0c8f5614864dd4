//! The memory of connection slots, for the whole process, by `mmap` and `madvise`. Knows of a slot
//! its size, and that zeros are a closed one.
//!
//! C programs keep `struct mg_connection *` for longer than they should, and pass it to the
//! functions that write. So no slot is ever unmapped, and a slot that a program has seen is not
//! used again before [`Rules::quarantine`] other slots have been retired after it: a late write
//! finds a closed slot, and never another client. There is no exception, since the library cannot
//! know which threads of the program hold a pointer. A slot that no program has seen, of a
//! connection that got only files, is used again at once, while its memory is in the cache.
//!
//! Slots lie side by side in blocks of whole pages. They are used in the order of their addresses,
//! so that connections of the same time are neighbours. When all slots on a page are retired, the
//! page is given back to the kernel and reads as zeros from then on, which is a closed slot. Past
//! connections therefore take address space and a bit each, and no memory.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use super::slots::Slot;

/// The number of complete blocks whose memory is kept: a program that reads a connection a little
/// too late then sees empty strings rather than NULL.
const GRACE: usize = 2;
/// The number of recent blocks. A recent block is given back as a whole, by one system call; an
/// older one, in which a few connections are still open, page by page.
const RECENT: usize = 4;
/// The number of blocks that are mapped by one call.
const SEGMENT_BLOCKS: usize = 64;
/// The size of a block in bytes, rounded up to pages. With pages of 4 KiB, slots fill it nearly
/// completely.
const BLOCK_BYTES: usize = 40_960;
/// The number of bytes that slots take of a narrow address space.
const NARROW_BYTES: usize = 128 << 20;

/// The rules for the reuse of slots.
pub struct Rules {
    /// The number of slots that must be retired after a slot that a program has seen before it is
    /// used again.
    pub quarantine: u64,
    /// The same number if the address space is bounded.
    pub bounded_quarantine: u64,
    /// Returns the bound of the address space in bytes, if there is one.
    pub bound: fn() -> Option<usize>,
}

impl Rules {
    /// The rules of the process.
    pub const STANDARD: Rules =
        Rules { quarantine: 1 << 24, bounded_quarantine: 65_536, bound: address_space };
}

/// A pool of slots, see the module.
pub struct Pool {
    rules: Rules,
    shape: Option<Shape>,
    /// Slots that no program has seen.
    free: Vec<&'static Slot>,
    /// All segments, in the order in which they were mapped. A segment is named by its place here.
    segments: Vec<Segment>,
    /// The numbers of the segments, in the order of their addresses.
    by_address: Vec<u32>,
    /// All blocks by number: [`SEGMENT_BLOCKS`] of each segment.
    blocks: Vec<Block>,
    /// The numbers of blocks that were never used.
    fresh: VecDeque<u32>,
    /// The block from which slots are taken.
    current: Option<Current>,
    /// The numbers of the blocks that were current last.
    recent: VecDeque<u32>,
    /// Blocks of which all slots are retired, the oldest first.
    complete: VecDeque<Complete>,
    /// The number of slots retired so far.
    retired: u64,
}

/// The sizes that depend on the machine, in bytes.
#[derive(Clone, Copy)]
struct Shape {
    page: usize,
    block: usize,
    /// The number of slots in a block.
    slots: usize,
    /// The bound of the address space.
    bound: Option<usize>,
}

/// The start of memory that was mapped by one call and is never unmapped.
#[derive(Clone, Copy)]
struct Segment(NonNull<u8>);
// SAFETY: the memory belongs to the pool, and is only reached through slots and under its lock.
unsafe impl Send for Segment {}

/// A block that has slots left.
struct Current {
    /// The start of the block.
    start: Segment,
    /// The place of the next slot in it.
    next: usize,
}

#[derive(Clone, Copy, Default)]
struct Block {
    /// A bit for each slot, set when it is retired.
    retired: u128,
}

/// A block of which all slots are retired.
struct Complete {
    block: u32,
    /// The number of slots that had been retired when its last one was.
    at: u64,
}

impl Pool {
    /// Creates a pool without memory.
    pub const fn new(rules: Rules) -> Self {
        Self {
            rules,
            shape: None,
            free: Vec::new(),
            segments: Vec::new(),
            by_address: Vec::new(),
            blocks: Vec::new(),
            fresh: VecDeque::new(),
            current: None,
            recent: VecDeque::new(),
            complete: VecDeque::new(),
            retired: 0,
        }
    }

    /// Returns a slot for a new connection; `None` if there is no memory.
    pub fn acquire(&mut self) -> Option<&'static Slot> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let shape = self.shape();
        if self.current.as_ref().is_none_or(|current| current.next == shape.slots) {
            let start = Segment(self.begin_block(shape)?);
            self.current = Some(Current { start, next: 0 });
        }
        let current = self.current.as_mut()?;
        let place = current.next;
        current.next += 1;
        // SAFETY: `place` is below the number of slots in a block, so this is inside of the
        // segment; it is aligned, since pages and the size of a slot are. The memory is mapped for
        // ever, and all zeros or an earlier slot: both are valid values, which change only
        // through atomics, `UnsafeCell`s, and the kernel that makes them zeros.
        Some(unsafe { current.start.0.cast::<Slot>().add(place).as_ref() })
    }

    /// Takes back the slot of a closed connection. `seen`: a program knows its address.
    pub fn release(&mut self, slot: &'static Slot, seen: bool) {
        if !seen {
            // If there is no memory for the list, the slot is lost.
            if self.free.try_reserve(1).is_ok() {
                self.free.push(slot);
            }
            return;
        }
        let shape = self.shape();
        let Some((number, place)) = self.place_of(slot, shape) else {
            debug_assert!(false, "a slot that is not of this pool");
            return;
        };
        self.retired += 1;
        let Some(block) = self.blocks.get_mut(number as usize) else {
            debug_assert!(false, "a segment without its blocks");
            return;
        };
        block.retired |= 1 << place;
        if block.retired.count_ones() as usize == shape.slots {
            self.completed(number, shape);
        } else if !self.recent.contains(&number) {
            let first = place * size_of::<Slot>() / shape.page;
            let last = ((place + 1) * size_of::<Slot>() - 1) / shape.page;
            self.give_back_pages(number, first..=last, shape);
        }
    }

    /// Notes that all slots of a block are retired.
    fn completed(&mut self, block: u32, shape: Shape) {
        if self.complete.try_reserve(1).is_err() {
            // The block is lost for reuse, but its memory can be given back.
            self.give_back(block, 0, shape.block);
            return;
        }
        self.complete.push_back(Complete { block, at: self.retired });
        let late = self.complete.len().checked_sub(GRACE + 1);
        if let Some(block) = late.and_then(|at| Some(self.complete.get(at)?.block)) {
            self.give_back(block, 0, shape.block);
        }
    }

    /// Chooses the next block: the oldest one that may be used again, else a new one. Returns its
    /// start; `None` if there is no memory.
    fn begin_block(&mut self, shape: Shape) -> Option<NonNull<u8>> {
        let rests = self.complete.front().map(|oldest| self.retired - oldest.at);
        let mapped = self.blocks.len() * shape.block;
        let bounded = shape.bound.is_some_and(|bound| mapped >= bound);
        let quarantine =
            if bounded { self.rules.bounded_quarantine } else { self.rules.quarantine };
        let again = rests.is_some_and(|rests| rests >= quarantine);
        if !again && self.fresh.is_empty() && !self.map_segment(shape) {
            // There is no more address space, so that the rule for bounded space applies.
            rests.filter(|rests| *rests >= self.rules.bounded_quarantine)?;
        }
        self.recent.try_reserve(1).ok()?;
        let block = match self.fresh.pop_front().filter(|_| !again) {
            Some(block) => block,
            None => self.complete.pop_front()?.block,
        };
        if let Some(block) = self.blocks.get_mut(block as usize) {
            block.retired = 0;
        }
        self.recent.push_back(block);
        if self.recent.len() > RECENT
            && let Some(old) = self.recent.pop_front()
        {
            self.give_back_pages(old, 0..=(shape.block / shape.page - 1), shape);
        }
        let start = self.start_of(block)?;
        if self.recent.len() > 1 {
            // Connections fill the block one after the other: one call provides its memory, instead
            // of a page fault for every six of them. Kernels before 5.14 refuse the call.
            // SAFETY: this is advice for a block of which no slot is in use.
            unsafe { libc::madvise(start.as_ptr().cast(), shape.block, libc::MADV_POPULATE_WRITE) };
        }
        Some(start)
    }

    /// Maps memory for more blocks. Returns false if there is none.
    fn map_segment(&mut self, shape: Shape) -> bool {
        let (Ok(number), Ok(first_block)) =
            (u32::try_from(self.segments.len()), u32::try_from(self.blocks.len()))
        else {
            return false;
        };
        let room = self.blocks.try_reserve(SEGMENT_BLOCKS).is_ok()
            && self.fresh.try_reserve(SEGMENT_BLOCKS).is_ok()
            && self.segments.try_reserve(1).is_ok()
            && self.by_address.try_reserve(1).is_ok();
        if !room {
            return false;
        }
        let Some(start) = map(shape.block * SEGMENT_BLOCKS) else { return false };
        self.by_address.insert(self.segments_below(start), number);
        self.segments.push(Segment(start));
        self.blocks.resize(self.blocks.len() + SEGMENT_BLOCKS, Block::default());
        self.fresh.extend((first_block..).take(SEGMENT_BLOCKS));
        true
    }

    /// Returns the number of segments that begin at or below an address.
    fn segments_below(&self, address: NonNull<u8>) -> usize {
        let begins_below = |number: &u32| {
            self.segments.get(*number as usize).is_some_and(|Segment(start)| *start <= address)
        };
        self.by_address.partition_point(begins_below)
    }

    /// Gives back those pages of a block of which all slots are retired, unless the block is
    /// complete, which is given back as a whole.
    fn give_back_pages(
        &mut self,
        number: u32,
        pages: std::ops::RangeInclusive<usize>,
        shape: Shape,
    ) {
        let Some(Block { retired }) = self.blocks.get(number as usize).copied() else {
            debug_assert!(false, "a number without a block");
            return;
        };
        if retired.count_ones() as usize == shape.slots {
            return;
        }
        for page in pages {
            let first = page * shape.page / size_of::<Slot>();
            let last = ((page + 1) * shape.page - 1) / size_of::<Slot>();
            if (first..=last.min(shape.slots - 1)).all(|place| retired >> place & 1 == 1) {
                self.give_back(number, page * shape.page, shape.page);
            }
        }
    }

    /// Gives back the memory of retired slots to the kernel. Their addresses stay readable.
    fn give_back(&self, block: u32, offset: usize, len: usize) {
        let Some(start) = self.start_of(block) else {
            debug_assert!(false, "a block without a segment");
            return;
        };
        // SAFETY: these are whole pages of a segment on which all slots are retired. The slots
        // become zeros, which are closed slots as they were before. A thread that holds the lock of
        // one of them reads nothing but its state.
        unsafe { libc::madvise(start.add(offset).as_ptr().cast(), len, libc::MADV_DONTNEED) };
    }

    /// Returns the start of a block.
    fn start_of(&self, block: u32) -> Option<NonNull<u8>> {
        let shape = self.shape?;
        let Segment(start) = self.segments.get(block as usize / SEGMENT_BLOCKS)?;
        // SAFETY: the place is below the number of blocks in a segment.
        Some(unsafe { start.add(block as usize % SEGMENT_BLOCKS * shape.block) })
    }

    /// Returns the number of the block of a slot, and the place of the slot in it.
    fn place_of(&self, slot: &'static Slot, shape: Shape) -> Option<(u32, usize)> {
        let address = NonNull::from(slot).cast::<u8>();
        let number = *self.by_address.get(self.segments_below(address).checked_sub(1)?)? as usize;
        let Segment(start) = self.segments.get(number)?;
        let offset = address.addr().get() - start.addr().get();
        let (block, within) = (offset / shape.block, offset % shape.block);
        let number = u32::try_from(number * SEGMENT_BLOCKS + block).ok()?;
        (block < SEGMENT_BLOCKS).then_some((number, within / size_of::<Slot>()))
    }

    /// Returns the sizes, which are computed once.
    fn shape(&mut self) -> Shape {
        *self.shape.get_or_insert_with(|| {
            let page = page_size();
            let block = BLOCK_BYTES.next_multiple_of(page);
            // Each slot needs a bit of `Block::retired`.
            let slots = (block / size_of::<Slot>()).min(u128::BITS as usize);
            Shape { page, block, slots, bound: (self.rules.bound)() }
        })
    }
}

/// Returns the size of a page in bytes.
fn page_size() -> usize {
    // SAFETY: the call only returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

/// Maps zeros that take no memory before they are written to.
fn map(len: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: this is a new mapping at an address that the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // A huge page could be given back only after the end of all of its 3,000 connections.
    // SAFETY: this is advice for memory that was mapped just now.
    unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
    NonNull::new(start.cast())
}

/// Returns the number of bytes of address space for slots, if it is bounded.
fn address_space() -> Option<usize> {
    let narrow = usize::BITS < 64 || commits_strictly();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    let share = (known && limit.rlim_cur != libc::RLIM_INFINITY)
        .then(|| usize::try_from(limit.rlim_cur / 8).unwrap_or(usize::MAX));
    share.into_iter().chain(narrow.then_some(NARROW_BYTES)).min()
}

/// Returns whether the kernel counts mapped memory as used (`vm.overcommit_memory`).
fn commits_strictly() -> bool {
    std::fs::read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.starts_with(b"2"))
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new(Rules::STANDARD));

/// Returns a slot for a new connection; `None` if there is no memory.
pub fn acquire() -> Option<&'static Slot> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner).acquire()
}

/// Gives a closed slot back. `seen` is the result of [`Slot::close`].
pub fn release(slot: &'static Slot, seen: bool) {
    POOL.lock().unwrap_or_else(PoisonError::into_inner).release(slot, seen);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const QUARANTINE: u64 = 500;

    fn pool(bound: fn() -> Option<usize>) -> Pool {
        Pool::new(Rules { quarantine: QUARANTINE, bounded_quarantine: 100, bound })
    }

    /// Returns the number of pages of a pool that are in memory.
    fn resident(pool: &Pool) -> usize {
        let shape = pool.shape.expect("used");
        let pages = shape.block * SEGMENT_BLOCKS / shape.page;
        let in_segment = |Segment(start): &Segment| {
            let mut there = vec![0_u8; pages];
            let (start, len) = (start.as_ptr().cast(), shape.block * SEGMENT_BLOCKS);
            // SAFETY: `start` is that of a segment, and there is a byte for each of its pages.
            assert_eq!(unsafe { libc::mincore(start, len, there.as_mut_ptr().cast()) }, 0);
            there.iter().filter(|page| **page & 1 == 1).count()
        };
        pool.segments.iter().map(in_segment).sum()
    }

    /// Writes to a slot as a connection does.
    fn use_slot(slot: &'static Slot) {
        let hub = super::super::hub::Hub::acquire();
        slot.open(hub, 0, crate::peer::Peer::NOBODY, std::ptr::null_mut());
        hub.release();
        slot.close();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_address_that_was_seen_is_used_again_before_so_many_others_were_retired(
            // Each step is a new connection, or the end of one, seen or not.
            events in proptest::collection::vec((any::<u16>(), 0..10_u8), 2000..4000),
            bounded: bool,
        ) {
            let mut pool = pool(if bounded { || Some(0) } else { || None });
            let quarantine = if bounded { 100 } else { QUARANTINE };
            let mut live: Vec<&'static Slot> = Vec::new();
            let mut retired: HashMap<usize, u64> = HashMap::new();
            let mut count = 0;
            for (which, what) in events {
                if what < 5 || live.is_empty() {
                    let slot = pool.acquire().expect("memory");
                    let address = std::ptr::from_ref(slot).addr();
                    prop_assert!(live.iter().all(|other| std::ptr::from_ref(*other).addr() != address));
                    if let Some(at) = retired.remove(&address) {
                        prop_assert!(count - at >= quarantine, "{} others", count - at);
                    }
                    prop_assert!(slot.open_generation().is_none());
                    live.push(slot);
                } else {
                    let slot = live.swap_remove(which as usize % live.len());
                    use_slot(slot);
                    let seen = what < 9;
                    pool.release(slot, seen);
                    if seen {
                        count += 1;
                        retired.insert(std::ptr::from_ref(slot).addr(), count);
                    }
                }
            }
        }
    }

    #[test]
    fn a_slot_that_no_program_has_seen_is_used_again_at_once() {
        let mut pool = pool(|| None);
        let slot = pool.acquire().expect("memory");
        pool.release(slot, false);
        assert!(std::ptr::eq(slot, pool.acquire().expect("memory")));
    }

    #[test]
    fn connections_of_the_past_take_no_memory() {
        let mut pool = Pool::new(Rules { bound: || None, ..Rules::STANDARD });
        // One connection in a hundred stays open.
        let mut live = Vec::new();
        for number in 0..100_000 {
            let slot = pool.acquire().expect("memory");
            if number % 100 == 0 {
                live.push(slot);
            }
            use_slot(slot);
            if number % 100 != 0 {
                pool.release(slot, true);
            }
        }
        let shape = pool.shape.expect("used");
        // The memory of the complete blocks that are kept, and of the current block, is not
        // counted.
        let kept = (GRACE + RECENT + 2) * shape.block / shape.page;
        // A slot can lie on two pages.
        assert!(resident(&pool) <= 2 * live.len() + kept, "{} pages", resident(&pool));
        for slot in live.drain(..) {
            pool.release(slot, true);
        }
        assert!(resident(&pool) <= kept, "{} pages", resident(&pool));
    }

    #[test]
    fn memory_that_was_given_back_is_a_closed_slot_that_can_be_locked() {
        let mut pool = pool(|| None);
        let early = pool.acquire().expect("memory");
        use_slot(early);
        pool.release(early, true);
        let held = early.lock_answer();
        for _ in 0..QUARANTINE {
            let slot = pool.acquire().expect("memory");
            use_slot(slot);
            pool.release(slot, true);
        }
        // The lock was lost with its page: no thread waits for it.
        assert!(early.lock_answer().is_none());
        drop(held);
        assert!(early.lock_answer().is_none());
        assert!(early.open_generation().is_none() && early.hub().is_none());
    }

    #[test]
    fn what_gives_a_lost_lock_up_does_not_open_the_lock_of_another() {
        let mut pool = pool(|| None);
        let slot = pool.acquire().expect("memory");
        let lost = slot.lock_answer();
        slot.forget_lock();
        let (taken, is_taken) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let held = slot.lock_answer();
            taken.send(()).expect("the test waits");
            finished.recv().expect("the test says so");
            assert!(slot.is_locked());
            drop(held);
        });
        is_taken.recv().expect("taken");
        drop(lost);
        finish.send(()).expect("it waits");
        other.join().expect("it was still locked");
    }
}
