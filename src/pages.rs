//! Room for long copies, in memory that is new to the process (`madvise(2)`, `MADV_POPULATE_WRITE`).
//!
//! The kernel makes a page when it is first touched: that interruption takes as long as the copy of the page.
//! Asked for many pages at once, it makes them in half of the time. Refuses to know what is copied.

use std::mem::MaybeUninit;

/// The number of bytes from which the kernel is asked, and for which it is asked at once: they stay in the
/// processor's cache until they are written.
pub const AT_ONCE: usize = 256 << 10;
/// The smallest size of a page.
const PAGE: usize = 4096;

/// Makes room for `more` bytes that are written next. Returns false if there is no memory for them.
#[inline]
pub fn reserve(buf: &mut Vec<u8>, more: usize) -> bool {
    if buf.try_reserve(more).is_err() {
        return false;
    }
    if more >= AT_ONCE {
        make(buf.spare_capacity_mut().get_mut(..more).unwrap_or_default());
    }
    true
}

/// Appends `bytes`. Returns false if there is no memory for them.
#[inline]
pub fn append(buf: &mut Vec<u8>, bytes: &[u8]) -> bool {
    if buf.try_reserve(bytes.len()).is_err() {
        return false;
    }
    match bytes.len() < AT_ONCE {
        true => buf.extend_from_slice(bytes),
        false => append_long(buf, bytes),
    }
    true
}

#[cold]
fn append_long(buf: &mut Vec<u8>, bytes: &[u8]) {
    for portion in bytes.chunks(AT_ONCE) {
        if portion.len() == AT_ONCE {
            make(buf.spare_capacity_mut().get_mut(..AT_ONCE).unwrap_or_default());
        }
        buf.extend_from_slice(portion);
    }
}

/// Has the kernel make the pages of unused memory. Where it cannot, it makes each when it is touched.
fn make(unused: &mut [MaybeUninit<u8>]) {
    let skipped = unused.as_ptr().align_offset(PAGE);
    let Some(whole) = unused.get_mut(skipped..) else { return };
    let len = whole.len() / PAGE * PAGE;
    // SAFETY: the range lies in memory that is borrowed here. No byte of it changes.
    unsafe { libc::madvise(whole.as_mut_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_follows_what_was_there() {
        let long: Vec<u8> = (0..3 * AT_ONCE as u32 + 77).map(|n| (n * 7) as u8).collect();
        for before in [0, 1, 4095, 4096, 300_000] {
            let mut buf = vec![b'b'; before];
            assert!(append(&mut buf, &long) && reserve(&mut buf, 2 * AT_ONCE));
            assert!(buf[..before].iter().all(|byte| *byte == b'b') && buf[before..] == long);
            assert!(buf.capacity() - buf.len() >= 2 * AT_ONCE);
        }
        assert!(
            !reserve(&mut Vec::new(), usize::MAX) && !reserve(&mut vec![0], isize::MAX as usize)
        );
    }
}
