//! The modification time of a file that was stored, so that its entity tag differs from that of the
//! file before it (RFC 9110, section 8.8.1). Sets it by `futimens(2)`; knows nothing of how the
//! file was written.
//!
//! The times that the kernel gives to files advance in steps of some milliseconds, and two uploads
//! may fall into one step. So a complete file gets the time of the fine clock, and no time is given
//! twice.

use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use crate::files::known::entity_tag;

/// The step that is tried next. Some file systems keep only full seconds, or only even ones.
const STEP: Duration = Duration::from_secs(1);
const STEPS: u32 = 3;
/// The largest difference, in nanoseconds, that is taken for a processor whose clock is behind.
/// Beyond it, the clock was set back.
const BACK: u64 = 1_000_000_000;

/// Sets the modification time of a complete file. `old` describes the file that had its name
/// before. A client may have named the second, in seconds since 1970: then only the fraction is that
/// of the fine clock.
pub fn stamp(file: &File, old: Option<&Metadata>, second: Option<u64>) {
    let now = next(&LAST, nanoseconds(SystemTime::now()));
    let time = UNIX_EPOCH
        + match second {
            None => Duration::from_nanos(now),
            Some(second) => Duration::new(second, fraction(now)),
        };
    for step in 0..STEPS {
        // Where this is not allowed, the time that the kernel gave has to suffice.
        if file.set_times(FileTimes::new().set_modified(time + STEP * step)).is_err() {
            return;
        }
        let is_same = |old: &Metadata| file.metadata().is_ok_and(|new| is_like(&new, old));
        if !old.is_some_and(is_same) {
            return;
        }
    }
}

/// Sets the modification time of a file or directory that is in its place to a second that a client
/// has named. The fraction is that of the fine clock, so that no two contents share an entity tag.
pub fn set_second(path: &Path, second: u64) -> io::Result<()> {
    if fs::symlink_metadata(path)?.mtime() == i64::try_from(second).unwrap_or(i64::MAX) {
        return Ok(());
    }
    let now = next(&LAST, nanoseconds(SystemTime::now()));
    let tv_sec = i64::try_from(second).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_time(path, tv_sec, i64::from(fraction(now)))
}

/// Sets the modification time of a file or directory.
pub fn set_time(path: &Path, tv_sec: i64, tv_nsec: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec: tv_nsec as _ },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Returns the part below a second of a time in nanoseconds.
fn fraction(nanoseconds: u64) -> u32 {
    (nanoseconds % 1_000_000_000) as u32
}

fn is_like(new: &Metadata, old: &Metadata) -> bool {
    entity_tag(new) == entity_tag(old)
}

/// The last time that was given, in nanoseconds since 1970.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Returns `now`, or the nanosecond after the last time given, if `now` is not later than that.
fn next(last: &AtomicU64, now: u64) -> u64 {
    let follows = |last: u64| match last.wrapping_sub(now) < BACK {
        true => last + 1,
        false => now,
    };
    match last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(follows(last))) {
        Ok(last) | Err(last) => follows(last),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;

    #[test]
    fn no_time_is_given_twice_unless_the_clock_is_set_back() {
        let last = AtomicU64::new(0);
        let times = [(10, 10), (10, 11), (11, 12), (5, 13), (20, 20), (20, 21)];
        for (now, wanted) in times {
            assert_eq!(next(&last, now), wanted);
        }
        assert_eq!(next(&last, 5 * BACK), 5 * BACK);
        assert_eq!(next(&last, 4 * BACK), 4 * BACK);
        assert_eq!(next(&last, 4 * BACK), 4 * BACK + 1);
    }

    #[test]
    fn what_is_stamped_has_a_tag_of_its_own() {
        let folder = Folder::new();
        let file = File::create(folder.0.join("a")).expect("a file");
        let mut tags = Vec::new();
        for second in [None, Some(0), Some(784_111_777)].into_iter().cycle().take(100) {
            let old = file.metadata().expect("its state");
            stamp(&file, Some(&old), second);
            tags.push(entity_tag(&file.metadata().expect("its state")));
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 100);
    }
}
