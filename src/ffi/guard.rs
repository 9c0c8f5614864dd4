//! The entry from C: NULL checks, borrowed views of C memory, and the panic guard.
//!
//! Owns the conversion of C pointers to slices. Knows nothing of the functions that use it.

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::shared::faults::Quiet;

/// Runs `body`. Catches a panic in it, and then returns `failure`. The panic is not printed.
pub fn guard<T>(failure: T, body: impl FnOnce() -> T) -> T {
    let _quiet = Quiet::begin();
    catch(failure, body)
}

/// Does the same as [`guard`] where a [`Hold`](super::hold::Hold) keeps panics from being printed.
#[inline]
pub fn catch<T>(failure: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(failure)
}

/// Returns the bytes of a C string without its NUL; `None` for NULL.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that is not written to during `'a`.
pub unsafe fn c_str<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, hence a NUL-terminated string by the caller's promise.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Returns the `len` bytes at `data`, which are none if `len` is 0. A negative length, or NULL with
/// another length, gives `None`.
///
/// # Safety
/// `data` is NULL or points to `len` readable bytes that are not written to during `'a`.
pub unsafe fn c_bytes<'a>(data: *const c_char, len: c_int) -> Option<&'a [u8]> {
    match usize::try_from(len) {
        Ok(0) => Some(&[]),
        Ok(len) if !data.is_null() => {
            // SAFETY: not NULL, hence `len` readable bytes by the caller's promise.
            Some(unsafe { std::slice::from_raw_parts(data.cast(), len) })
        }
        _ => None,
    }
}

/// Returns the `len` writable bytes at `buf`; `None` for NULL or length 0.
///
/// # Safety
/// `buf` is NULL or points to `len` writable bytes that no other code uses during `'a`.
pub unsafe fn c_buf<'a>(buf: *mut c_char, len: usize) -> Option<&'a mut [u8]> {
    if buf.is_null() || len == 0 || len > isize::MAX as usize {
        return None;
    }
    // SAFETY: not NULL, hence `len` writable bytes for this caller alone, by its promise.
    Some(unsafe { std::slice::from_raw_parts_mut(buf.cast(), len) })
}
