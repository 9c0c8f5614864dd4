//! Large pages for long buffers (`madvise(2)`): the kernel fills 2 MiB at once, instead of stopping the
//! thread for each 4 KiB, so that a copy takes a third of the time.
//!
//! Owns the size from which that pays. Refuses to know what is in a buffer.

/// The number of bytes from which large pages are asked for.
const LARGE_FROM: usize = 4 << 20;
/// The size of a small page: a hint that begins elsewhere would be refused.
const PAGE: usize = 4096;

/// Makes room for `len` more bytes in a buffer. Returns false if there is no memory for them.
#[inline]
pub fn reserve(buf: &mut Vec<u8>, len: usize) -> bool {
    if buf.capacity() - buf.len() >= len {
        return true;
    }
    if buf.try_reserve(len).is_err() {
        return false;
    }
    if len >= LARGE_FROM {
        ask_for_large_pages(buf);
    }
    true
}

/// Asks for large pages behind the bytes that a buffer has. Where there are none, nothing changes.
#[cold]
fn ask_for_large_pages(buf: &mut Vec<u8>) {
    let spare = buf.spare_capacity_mut();
    let begin = spare.as_mut_ptr();
    let skipped = begin.align_offset(PAGE);
    let Some(len) = spare.len().checked_sub(skipped) else { return };
    // SAFETY: the range lies in the buffer, and the call changes no byte of it.
    unsafe {
        let begin = begin.add(skipped).cast();
        libc::madvise(begin, len & !(PAGE - 1), libc::MADV_HUGEPAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_room_that_was_asked_for_and_keeps_its_bytes() {
        for len in [0, 1, LARGE_FROM - 1, LARGE_FROM, 3 * LARGE_FROM + 1] {
            let mut buf = b"abc".to_vec();
            assert!(reserve(&mut buf, len) && buf == b"abc");
            let before = buf.as_ptr();
            buf.resize(3 + len, 7);
            assert!(buf.as_ptr() == before && buf.ends_with(if len > 0 { b"\x07" } else { b"c" }));
        }
        assert!(!reserve(&mut Vec::new(), usize::MAX));
    }
}
