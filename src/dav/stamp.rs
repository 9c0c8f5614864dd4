//! The time of what is stored, by which its entity tag tells it from what was there before.
//!
//! The kernel's times of files advance in steps of some milliseconds, which two uploads may fall into.
//! So a file that is complete gets the time of the fine clock, and never one that was given before.

use std::fs::{File, FileTimes, Metadata};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::files::cache::entity_tag;

/// Some file systems keep seconds only, or every other one.
const STEP: Duration = Duration::from_secs(1);
const STEPS: u32 = 3;
/// Beyond this it is the clock that was set back, and not another processor's that is behind.
const BACK: u64 = 1_000_000_000;

/// Gives a file that is complete its time. `old`: what had its name before.
pub fn stamp(file: &File, old: Option<&Metadata>) {
    let time = UNIX_EPOCH + Duration::from_nanos(next(&LAST, nanoseconds(SystemTime::now())));
    for step in 0..STEPS {
        // Where that is not allowed the kernel's time has to do.
        if file.set_times(FileTimes::new().set_modified(time + STEP * step)).is_err() {
            return;
        }
        let is_same = |old: &Metadata| file.metadata().is_ok_and(|new| is_like(&new, old));
        if !old.is_some_and(is_same) {
            return;
        }
    }
}

fn is_like(new: &Metadata, old: &Metadata) -> bool {
    entity_tag(new) == entity_tag(old)
}

/// The time that was given last, in nanoseconds since 1970.
static LAST: AtomicU64 = AtomicU64::new(0);

/// `now`, or the moment behind the last one, if that was not before.
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
        for _ in 0..100 {
            let old = file.metadata().expect("its state");
            stamp(&file, Some(&old));
            tags.push(entity_tag(&file.metadata().expect("its state")));
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 100);
    }
}
