//! Which devices are file systems that answer at once: those of this machine's disks and memory. All others
//! are of another machine, or of a program, and may take any time. Follows `statfs(2)` and
//! `proc_pid_mountinfo(5)`.
//!
//! Refuses to know files.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The number of devices of which it is remembered what they are.
const MAX_REMEMBERED: usize = 64;
/// The time for which that is believed. Numbers of devices are used again.
const BELIEVED: Duration = Duration::from_secs(60);

/// The file systems without a disk of their own that answer from memory, or from a disk of this machine.
const LOCAL: [u32; 9] = [
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x2405_1905, // UBIFS
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
];

/// Their names, and those of others that are mounted only so.
const LOCAL_NAMES: [&str; 11] = [
    "btrfs", "tmpfs", "devtmpfs", "ramfs", "rootfs", "overlay", "zfs", "bcachefs", "ubifs", "proc",
    "sysfs",
];
/// The largest number of bytes of the list of mounts that is read.
const MAX_MOUNTS: u64 = 1 << 20;

/// What is known of devices: whether they are local, and since when.
#[derive(Clone, Debug, Default)]
pub struct Devices(Vec<(u64, bool, Instant)>);

impl Devices {
    /// Returns whether a device is local, if that is known.
    pub fn is_local(&self, dev: u64) -> Option<bool> {
        if rustix::fs::major(dev) != 0 {
            // It is a disk.
            return Some(true);
        }
        let known = self.0.iter().find(|(known, ..)| *known == dev);
        known.filter(|(.., since)| since.elapsed() < BELIEVED).map(|(_, is_local, _)| *is_local)
    }

    /// Returns whether a device is local, as far as the list of mounts tells: the kernel has it in memory.
    /// A part of a file system may have a device of its own, which is not in there.
    pub fn look_up(&mut self, dev: u64) -> Option<bool> {
        let known = self.is_local(dev);
        if known.is_some() {
            return known;
        }
        let mut list = String::new();
        let file = std::fs::File::open("/proc/self/mountinfo").ok()?;
        file.take(MAX_MOUNTS).read_to_string(&mut list).ok()?;
        let is_local = kind_of(&list, dev).map(|kind| LOCAL_NAMES.contains(&kind))?;
        self.note(dev, is_local);
        Some(is_local)
    }

    /// Returns whether a device is local. What is not known is asked for, which may take long.
    pub fn find(&self, dev: u64, file: impl AsFd) -> bool {
        self.is_local(dev).unwrap_or_else(|| {
            let kind = rustix::fs::fstatfs(file).map(|found| found.f_type as u32);
            kind.is_ok_and(|kind| LOCAL.contains(&kind))
        })
    }

    /// Notes whether a device is local, unless that is known.
    pub fn note(&mut self, dev: u64, is_local: bool) {
        if self.is_local(dev).is_some() {
            return;
        }
        self.0.retain(|(known, ..)| *known != dev);
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.push((dev, is_local, Instant::now()));
    }
}

/// Returns the kind of the file system of a device, by the list of mounts.
fn kind_of(list: &str, dev: u64) -> Option<&str> {
    let wanted = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    list.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let is_it = mount.split(' ').nth(2) == Some(wanted.as_str());
        rest.split(' ').next().filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn the_list_of_mounts_tells_the_kind_of_a_device() {
        let list = "29 1 0:24 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a\n\
                    36 29 0:31 / /a\\040-\\040b rw - fuse.sshfs host:/ rw\n\
                    37 29 8:1 / /c rw master:1 propagate_from:2 - ext4 /dev/sda1 rw\n";
        let dev = rustix::fs::makedev;
        let table = [
            (dev(0, 24), Some("overlay")),
            (dev(0, 31), Some("fuse.sshfs")),
            (dev(8, 1), Some("ext4")),
            (dev(0, 99), None),
        ];
        for (dev, kind) in table {
            assert_eq!(kind_of(list, dev), kind);
        }
    }

    #[test]
    fn what_answers_from_memory_is_local() {
        let mut devices = Devices::default();
        let proc = std::fs::metadata("/proc/version").expect("a file");
        assert_eq!(devices.is_local(proc.dev()), None);
        assert_eq!(devices.look_up(proc.dev()), Some(true));
        assert_eq!(devices.is_local(proc.dev()), Some(true));
        devices.note(rustix::fs::makedev(0, 4_000_000), false);
        assert_eq!(devices.look_up(rustix::fs::makedev(0, 4_000_000)), Some(false));
        assert_eq!(devices.look_up(rustix::fs::makedev(0, 4_000_001)), None);
        assert_eq!(devices.look_up(rustix::fs::makedev(8, 1)), Some(true), "a disk");
    }
}
