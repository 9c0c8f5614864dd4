//! The exported names of the functions that take a variable number of arguments.
//!
//! Stable Rust can call such functions but not define them, so `variadic.c` does. A shared library
//! exports the functions of Rust, and none of a C object within it: each name is therefore a naked
//! Rust function that jumps to its hidden C counterpart and leaves all arguments unchanged, by the
//! C ABI of the machine. Owns the MD5 of `mg_md5`, and knows nothing of formats.

use std::ffi::{CStr, c_char, c_void};

use md5::{Digest, Md5};

/// Defines exported functions that jump to hidden C functions. Only C knows their arguments: the
/// prototypes stand in the header.
macro_rules! export {
    ($($name:ident => $hidden:ident;)*) => {
        unsafe extern "C" {
            $(fn $hidden();)*
        }
        $(
            #[doc = concat!("`", stringify!($name), "` of the C interface.")]
            ///
            /// # Safety
            /// To be called from C, with the arguments of its prototype there.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name() {
                std::arch::naked_asm!(jump_to!(), sym $hidden)
            }
        )*
    };
}

export! {
    mg_printf => mongoose_printf;
    mg_printf_data => mongoose_printf_data;
    mg_vprintf => mongoose_vprintf;
    mg_md5 => mongoose_md5;
}

/// The prototypes, for the header alone: never compiled, only read by cbindgen.
#[cfg(any())]
unsafe extern "C" {
    /// Sends a formatted text as it stands, like `mg_write`. The format is that of `printf`, and
    /// the text may have any length up to `INT_MAX`.
    ///
    /// Any thread may call this at any time, also with a connection that has closed.
    ///
    /// Returns the length of the text, 0 when the bytes were not queued, or -1 when the format
    /// could not be carried out.
    pub fn mg_printf(conn: *mut mg_connection, format: *const c_char, ...) -> c_int;

    /// Sends a formatted text as part of the content, like `mg_send_data`. The format is that of
    /// `printf`.
    ///
    /// To be called where `mg_send_data` may be called.
    pub fn mg_printf_data(conn: *mut mg_connection, format: *const c_char, ...);

    /// Writes the MD5 of all given strings joined to `buf`: 32 lower-case hexadecimal digits and
    /// a NUL. The last argument must be `NULL`, written as a pointer: `(char *) 0` where `NULL` is
    /// a plain 0.
    ///
    /// Any thread may call this. Returns `buf`, and does nothing when that is `NULL`.
    /// cbindgen:ptrs-as-arrays=[[buf;33]]
    pub fn mg_md5(buf: *mut c_char, ...) -> *mut c_char;
}

// This is the name under which C finds `md5_of`, since `no_mangle` would export that function.
std::arch::global_asm!(
    ".pushsection .text.mongoose_md5_of,\"ax\",%progbits",
    ".globl mongoose_md5_of",
    ".hidden mongoose_md5_of",
    ".type mongoose_md5_of,%function",
    "mongoose_md5_of:",
    jump_to!(),
    ".popsection",
    sym md5_of,
);

/// Writes the MD5 of all strings that `next` yields before NULL, as 32 digits and a NUL.
///
/// # Safety
/// `buf` has room for 33 bytes; `next(strings)` yields C strings, then NULL.
unsafe extern "C" fn md5_of(
    buf: *mut c_char,
    next: unsafe extern "C" fn(strings: *mut c_void) -> *const c_char,
    strings: *mut c_void,
) {
    let mut md5 = Md5::new();
    loop {
        // SAFETY: not called again after its NULL.
        let string = unsafe { next(strings) };
        if string.is_null() {
            break;
        }
        // SAFETY: a C string by the caller's promise.
        md5.update(unsafe { CStr::from_ptr(string) }.to_bytes());
    }
    let mut digits = [0; 33];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(md5.finalize()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    // SAFETY: `buf` has room for 33 bytes by the caller's promise; `digits` is a local variable.
    unsafe { buf.copy_from_nonoverlapping(digits.as_ptr().cast(), digits.len()) };
}
