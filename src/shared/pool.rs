//! The memory of connection slots, for the whole process.
//!
//! C programs keep `struct mg_connection *` for longer than they should, and pass it to the
//! functions that write. So no slot is ever unmapped, and one that a program has seen is not used
//! again before [`Rules::quarantine`] others have been retired after it: who writes late finds a
//! closed slot, and never another client. There is no exception to that, since the library cannot
//! know which threads of the program hold a pointer. A slot that no program has seen, of a
//! connection that got only files, is used again at once, while its memory is hot.
//!
//! Slots lie side by side in blocks of whole pages. They are handed out in the order of their
//! addresses, so that connections of the same time are neighbours. When all slots on a page are
//! retired, the page goes back to the kernel and reads as zeros from then on: that is a closed slot.
//! So what millions of past connections take is address space, and a few bits each.

use std::collections::VecDeque;
use std::ptr::NonNull;

use super::slots::Slot;

/// Blocks whose memory is kept for a while after all their slots were retired: a program that
/// looks into a connection a little too late sees empty strings there rather than NULL.
const GRACE: usize = 2;
/// Blocks of which slots were handed out lately. They are given back as a whole, which takes one
/// call of the kernel; older ones, in which a few connections live on, page by page.
const RECENT: usize = 4;
/// Blocks that are mapped with one call.
const SEGMENT_BLOCKS: usize = 64;
/// Bytes of a block, rounded up to pages: with pages of 4 KiB nearly nothing of it is left over.
const BLOCK_BYTES: usize = 40_960;
/// Where address space is narrow, slots take no more of it than this.
const NARROW_BYTES: usize = 128 << 20;

/// When a slot may be used again.
pub struct Rules {
    /// How many others are retired before a slot that a program has seen is used again.
    pub quarantine: u64,
    /// The same where address space is bounded.
    pub bounded_quarantine: u64,
    /// How many bytes of address space there may be, if that is bounded.
    pub bound: fn() -> Option<usize>,
}

impl Rules {
    /// Those of the process.
    pub const STANDARD: Rules =
        Rules { quarantine: 1 << 24, bounded_quarantine: 65_536, bound: address_space };
}

/// See the module.
pub struct Pool {
    rules: Rules,
    shape: Option<Shape>,
    /// Slots that no program has seen.
    free: Vec<&'static Slot>,
    /// By number; that is the order in which they were mapped.
    segments: Vec<Segment>,
    /// Their numbers, in the order of their addresses.
    by_address: Vec<u32>,
    /// By number; each segment has so many.
    blocks: Vec<Block>,
    /// Blocks that are mapped and were never used.
    fresh: VecDeque<u32>,
    /// Where slots are taken from.
    current: Option<Current>,
    recent: VecDeque<u32>,
    /// Blocks of which all slots are retired, the oldest first.
    complete: VecDeque<Complete>,
    /// Slots retired so far.
    retired: u64,
}

/// What depends on the machine.
#[derive(Clone, Copy)]
struct Shape {
    page: usize,
    block: usize,
    slots: usize,
    bound: Option<usize>,
}

/// The begin of memory that was mapped with one call, never to be unmapped.
#[derive(Clone, Copy)]
struct Segment(NonNull<u8>);
// SAFETY: the memory belongs to the pool, and is only reached through slots and under its lock.
unsafe impl Send for Segment {}

/// A block that has slots left.
struct Current {
    start: Segment,
    next: usize,
}

#[derive(Clone, Copy, Default)]
struct Block {
    /// A bit for each slot that was retired.
    retired: u128,
}

struct Complete {
    block: u32,
    /// How many slots had been retired when its last one was.
    at: u64,
}

impl Pool {
    /// A pool without memory.
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

    /// A slot for a new connection; `None` when there is no memory.
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

    /// Gives back the slot of a closed connection. `seen`: a program knows its address.
    pub fn release(&mut self, slot: &'static Slot, seen: bool) {
        if !seen {
            // Without memory for the list the slot is lost.
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
        let Some(block) = self.blocks.get_mut(number as usize) else { return };
        block.retired |= 1 << place;
        if block.retired.count_ones() as usize == shape.slots {
            self.completed(number, shape);
        } else if !self.recent.contains(&number) {
            let first = place * size_of::<Slot>() / shape.page;
            let last = ((place + 1) * size_of::<Slot>() - 1) / shape.page;
            self.give_back_pages(number, first..=last, shape);
        }
    }

    /// All slots of a block are retired.
    fn completed(&mut self, block: u32, shape: Shape) {
        if self.complete.try_reserve(1).is_err() {
            // It cannot be found again; its memory can be given back all the same.
            self.give_back(block, 0, shape.block);
            return;
        }
        self.complete.push_back(Complete { block, at: self.retired });
        let late = self.complete.len().checked_sub(GRACE + 1);
        if let Some(block) = late.and_then(|at| Some(self.complete.get(at)?.block)) {
            self.give_back(block, 0, shape.block);
        }
    }

    /// Makes a block the current one: the oldest that may be used again, else a new one.
    fn begin_block(&mut self, shape: Shape) -> Option<NonNull<u8>> {
        let rests = self.complete.front().map(|oldest| self.retired - oldest.at);
        let mapped = self.blocks.len() * shape.block;
        let bounded = shape.bound.is_some_and(|bound| mapped >= bound);
        let quarantine =
            if bounded { self.rules.bounded_quarantine } else { self.rules.quarantine };
        let again = rests.is_some_and(|rests| rests >= quarantine);
        if !again && self.fresh.is_empty() && !self.map_segment(shape) {
            // There is no more address space: as many as fit.
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
            // Connections come one after the other: their memory in one call, instead of a page
            // fault for every six of them. Kernels before 5.14 do not know how.
            // SAFETY: advice for a block of which no slot is in use.
            unsafe { libc::madvise(start.as_ptr().cast(), shape.block, libc::MADV_POPULATE_WRITE) };
        }
        Some(start)
    }

    /// Maps memory for more blocks. False if there is none.
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

    /// How many segments begin at or below an address.
    fn segments_below(&self, address: NonNull<u8>) -> usize {
        let begins_below = |number: &u32| {
            self.segments.get(*number as usize).is_some_and(|Segment(start)| *start <= address)
        };
        self.by_address.partition_point(begins_below)
    }

    /// Gives those pages of a block back of which all slots are retired. Blocks that are complete
    /// are given back as a whole.
    fn give_back_pages(
        &mut self,
        number: u32,
        pages: std::ops::RangeInclusive<usize>,
        shape: Shape,
    ) {
        let Some(Block { retired }) = self.blocks.get(number as usize).copied() else { return };
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

    /// Lets the kernel have the memory of retired slots. Their addresses stay readable.
    fn give_back(&self, block: u32, offset: usize, len: usize) {
        let Some(start) = self.start_of(block) else { return };
        // SAFETY: whole pages of a segment, in which all slots are retired. What is lost are
        // closed slots; zeros are closed slots as well. Who holds the lock of one looks at nothing
        // but its state.
        unsafe { libc::madvise(start.add(offset).as_ptr().cast(), len, libc::MADV_DONTNEED) };
    }

    /// Where a block begins.
    fn start_of(&self, block: u32) -> Option<NonNull<u8>> {
        let shape = self.shape?;
        let Segment(start) = self.segments.get(block as usize / SEGMENT_BLOCKS)?;
        // SAFETY: a segment has so many blocks.
        Some(unsafe { start.add(block as usize % SEGMENT_BLOCKS * shape.block) })
    }

    /// The block of a slot, and its place there.
    fn place_of(&self, slot: &'static Slot, shape: Shape) -> Option<(u32, usize)> {
        let address = NonNull::from(slot).cast::<u8>();
        let number = *self.by_address.get(self.segments_below(address).checked_sub(1)?)? as usize;
        let Segment(start) = self.segments.get(number)?;
        let offset = address.addr().get() - start.addr().get();
        let (block, within) = (offset / shape.block, offset % shape.block);
        let number = u32::try_from(number * SEGMENT_BLOCKS + block).ok()?;
        (block < SEGMENT_BLOCKS).then_some((number, within / size_of::<Slot>()))
    }

    fn shape(&mut self) -> Shape {
        *self.shape.get_or_insert_with(|| {
            let page = page_size();
            let block = BLOCK_BYTES.next_multiple_of(page);
            // A bit of `Block::retired` for each.
            let slots = (block / size_of::<Slot>()).min(u128::BITS as usize);
            Shape { page, block, slots, bound: (self.rules.bound)() }
        })
    }
}

fn page_size() -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

/// Zeros that take no memory before they are written to.
fn map(len: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // A huge page would be given back only when all of its 3,000 connections have ended.
    // SAFETY: advice for memory that was mapped just now.
    unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
    NonNull::new(start.cast())
}

/// How much address space slots may take, if that is bounded.
fn address_space() -> Option<usize> {
    let narrow = usize::BITS < 64 || commits_strictly();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    let share = (known && limit.rlim_cur != libc::RLIM_INFINITY)
        .then(|| usize::try_from(limit.rlim_cur / 8).unwrap_or(usize::MAX));
    share.into_iter().chain(narrow.then_some(NARROW_BYTES)).min()
}

/// Whether the kernel counts mapped memory as if it were used.
fn commits_strictly() -> bool {
    std::fs::read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.starts_with(b"2"))
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

    /// Pages in memory, of those that a pool has mapped.
    fn resident(pool: &Pool) -> usize {
        let shape = pool.shape.expect("used");
        let pages = shape.block * SEGMENT_BLOCKS / shape.page;
        let in_segment = |Segment(start): &Segment| {
            let mut there = vec![0_u8; pages];
            let (start, len) = (start.as_ptr().cast(), shape.block * SEGMENT_BLOCKS);
            // SAFETY: a segment, and a byte for each of its pages.
            assert_eq!(unsafe { libc::mincore(start, len, there.as_mut_ptr().cast()) }, 0);
            there.iter().filter(|page| **page & 1 == 1).count()
        };
        pool.segments.iter().map(in_segment).sum()
    }

    /// As a connection does.
    fn use_slot(slot: &'static Slot) {
        let hub = super::super::hub::Hub::acquire();
        slot.open(hub, 0, ([127, 0, 0, 1], 1).into(), std::ptr::null_mut());
        hub.release();
        slot.close();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_address_that_was_seen_is_used_again_before_so_many_others_were_retired(
            // What happens each time: a new connection, or the end of one, seen or not.
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
        // One in a hundred lives on.
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
        // Beside that of blocks which are kept for a while, and the one in use.
        let kept = (GRACE + RECENT + 2) * shape.block / shape.page;
        // A slot may lie on two pages.
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
        let held = early.answer();
        for _ in 0..QUARANTINE {
            let slot = pool.acquire().expect("memory");
            use_slot(slot);
            pool.release(slot, true);
        }
        // The lock was lost meanwhile: nobody waits for it.
        assert!(early.answer().is_none());
        drop(held);
        assert!(early.answer().is_none());
        assert!(early.open_generation().is_none() && early.hub().is_none());
    }

    #[test]
    fn what_gives_a_lost_lock_up_does_not_open_the_lock_of_another() {
        let mut pool = pool(|| None);
        let slot = pool.acquire().expect("memory");
        let lost = slot.answer();
        slot.forget_lock();
        let (taken, is_taken) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let held = slot.answer();
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
