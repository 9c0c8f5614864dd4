//! Giving up privileges (POSIX `setuid`, `setgid`, and `initgroups`).
//!
//! Refuses to know why, and which option names the user.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Becomes the user called `name`: supplementary groups, then group, then user, since each step
/// takes away the right to take the one before.
pub fn become_user(name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    let (uid, gid) = find(&name)?;
    // SAFETY: `name` is a C string.
    if unsafe { libc::initgroups(name.as_ptr(), gid as _) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes a number.
    if unsafe { libc::setgid(gid) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes a number.
    if unsafe { libc::setuid(uid) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns user and group of a name from the system's database (POSIX `getpwnam_r`).
fn find(name: &CString) -> io::Result<(libc::uid_t, libc::gid_t)> {
    let mut strings = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: `name` is a C string, `strings` has the length that is passed, and the other two
        // are places to write to.
        let error = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                strings.as_mut_ptr(),
                strings.len(),
                &mut found,
            )
        };
        match error {
            0 if found.is_null() => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "no such user"));
            }
            0 => {
                // SAFETY: the call has written the entry that it found to `entry`.
                let entry = unsafe { entry.assume_init() };
                return Ok((entry.pw_uid, entry.pw_gid));
            }
            libc::ERANGE if strings.len() < 1 << 20 => strings.resize(strings.len() * 2, 0),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}
