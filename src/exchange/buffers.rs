//! Large buffers that are kept for their next use: how many, and for how long. Memory that is new
//! to the process costs more than memory that it has used already.
//!
//! Refuses to know which contents a buffer held, and which request needs it.

/// The largest capacity in bytes of a buffer that this file leaves to its owner.
pub const SMALL_BUFFER: usize = 64 * 1024;
/// The largest capacity in bytes of a buffer that is kept.
const LARGEST: usize = 4 << 20;
/// The largest sum in bytes of the capacities that are kept.
const TOTAL: usize = 16 << 20;
/// The time for which buffers are kept after the last use of one, in milliseconds.
const LIFETIME_MS: u32 = 5_000;

/// Empty buffers with large capacities.
#[derive(Default)]
pub struct LargeBuffers {
    buffers: Vec<Vec<u8>>,
    total: usize,
    /// The time of the last use, in milliseconds of the server's clock.
    last_used: u32,
}

impl LargeBuffers {
    /// Gives `buf` room for `more` bytes. Returns false if there is no memory for them.
    pub fn grow(&mut self, buf: &mut Vec<u8>, more: usize, now: u32) -> bool {
        let Some(wanted) = buf.len().checked_add(more) else { return false };
        if wanted <= buf.capacity() {
            return true;
        }
        if wanted > SMALL_BUFFER
            && let Some(at) = self.buffers.iter().position(|spare| spare.capacity() >= wanted)
        {
            let mut spare = self.buffers.swap_remove(at);
            self.total -= spare.capacity();
            self.last_used = now;
            spare.extend_from_slice(buf);
            self.keep(std::mem::replace(buf, spare), now);
            return true;
        }
        buf.try_reserve(more).is_ok()
    }

    /// Takes back a buffer that is no longer needed.
    #[inline]
    pub fn keep(&mut self, mut buf: Vec<u8>, now: u32) {
        let capacity = buf.capacity();
        if capacity <= SMALL_BUFFER || capacity > LARGEST || capacity > TOTAL - self.total {
            return;
        }
        buf.clear();
        self.total += capacity;
        self.last_used = now;
        self.buffers.push(buf);
    }

    /// Frees all buffers when none has been used for the lifetime.
    pub fn expire(&mut self, now: u32) {
        if self.total > 0 && now.wrapping_sub(self.last_used) > LIFETIME_MS {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_used_again_and_given_back() {
        let mut spares = LargeBuffers::default();
        for _ in 0..100 {
            spares.keep(Vec::with_capacity(1 << 20), 10);
            spares.keep(Vec::with_capacity(LARGEST + 1), 10);
            spares.keep(Vec::with_capacity(SMALL_BUFFER), 10);
        }
        assert_eq!((spares.buffers.len(), spares.total), (16, TOTAL));
        let place = spares.buffers[0].as_ptr();
        let mut buf = vec![7; 100_000];
        assert!(spares.grow(&mut buf, 500_000, 20));
        assert_eq!((buf.as_ptr(), &*buf), (place, &*vec![7; 100_000]));
        assert!(!spares.grow(&mut buf, usize::MAX - 5, 20));
        spares.expire(5_020);
        assert!(spares.total > 0);
        spares.expire(5_021);
        assert_eq!((spares.buffers.len(), spares.total), (0, 0));
    }
}
