//! The file in which the programs of a world count what the library has taken. See `program/world.h`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::wire::Trouble;

pub const MOST_OWNERS: u32 = 65_536;
pub const STREAMS: usize = 24;
const MOST_PROCESSES: u64 = 16;
const HEAD: u64 = 4096;
const OWNER: u64 = 128;

pub struct Ledger(File);

impl Ledger {
    pub fn create(path: &Path) -> Ledger {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.expect("a ledger");
        file.set_len(HEAD + u64::from(MOST_OWNERS) * OWNER).expect("room for it");
        Ledger(file)
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, at).expect("the ledger");
        u32::from_ne_bytes(bytes)
    }

    /// Lets nobody write to streams any more, or lets them.
    pub fn set_quiet(&self, quiet: bool) {
        self.0.write_all_at(&u32::from(quiet).to_ne_bytes(), 0).expect("the ledger");
    }

    /// Whether somebody writes to a stream at this moment.
    pub fn is_writing(&self) -> bool {
        (0..MOST_PROCESSES).any(|process| self.word(4 + 4 * process) != 0)
    }

    /// How many records were taken for an owner, of each stream.
    pub fn taken(&self, owner: u32) -> [u32; STREAMS] {
        std::array::from_fn(|stream| self.word(place(owner) + 4 * stream as u64))
    }

    /// Whether an answer was refused.
    pub fn is_abandoned(&self, owner: u32) -> bool {
        self.word(place(owner) + 4 * STREAMS as u64) != 0
    }
}

fn place(owner: u32) -> u64 {
    HEAD + u64::from(owner) * OWNER
}

/// Of a record of the request with its number, in the place of a stream.
pub const UPWARDS: u32 = 98;
pub const ANSWER: u32 = 99;

/// A record, as everybody writes them.
pub fn record(owner: u32, stream: u32, number: u32, len: usize) -> Vec<u8> {
    let name = format!("{owner}.{stream}.{number};");
    let mut bytes = format!("<{owner}.{stream}.{number}.{len}:").into_bytes();
    bytes.extend(name.bytes().cycle().take(len));
    bytes.push(b'>');
    bytes
}

/// What one owner has got of all streams.
pub struct Receipts {
    owner: u32,
    next: [u32; STREAMS],
}

impl Receipts {
    pub fn new(owner: u32) -> Receipts {
        Receipts { owner, next: [0; STREAMS] }
    }

    /// Takes a record from the beginning of `bytes`, if it is whole; its length.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        let Some((parts, head)) = name(bytes, self.owner)? else { return Ok(None) };
        let [owner, stream, number, len] = parts;
        let whole = head + len as usize + 1;
        let shown = || bytes[..bytes.len().min(90)].escape_ascii().to_string();
        if owner != self.owner {
            return Err(Trouble::Wrong(format!(
                "{} got what is {owner}'s: {}",
                self.owner,
                shown()
            )));
        }
        if bytes.len() < whole {
            return Ok(None);
        }
        if bytes[..whole] != record(owner, stream, number, len as usize) {
            return Err(Trouble::Wrong(format!(
                "{owner} got a record that is damaged: {}",
                shown()
            )));
        }
        let next = self.next.get_mut(stream as usize);
        let next = next.ok_or_else(|| Trouble::Wrong(format!("{owner} got {}", shown())))?;
        if number != *next {
            let what = if number < *next { "again" } else { "before its time" };
            let text = format!("{owner} got {stream}.{number} {what}: {next} is next");
            return Err(Trouble::Wrong(text));
        }
        *next += 1;
        Ok(Some(whole))
    }

    /// What of all that was taken has not come; or what has come without being taken.
    pub fn lacks(&self, ledger: &Ledger) -> Result<Option<String>, Trouble> {
        let taken = ledger.taken(self.owner);
        for (stream, (taken, got)) in taken.iter().zip(&self.next).enumerate() {
            if got > taken {
                let text = format!(
                    "{} got {got} records of stream {stream}, of which {taken} were taken",
                    self.owner
                );
                return Err(Trouble::Wrong(text));
            }
            if got < taken {
                let text = format!("{} got {got} of {taken} records of {stream}", self.owner);
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

/// The numbers of a record's name, and the length of all that stands before its fill; `None` where more
/// has to come.
fn name(bytes: &[u8], owner: u32) -> Result<Option<([u32; 4], usize)>, Trouble> {
    let bad = || {
        let shown = bytes[..bytes.len().min(90)].escape_ascii().to_string();
        Trouble::Wrong(format!("{owner} got no record: {shown}"))
    };
    if bytes.first().is_some_and(|first| *first != b'<') {
        return Err(bad());
    }
    let Some(end) = bytes.iter().take(60).position(|byte| *byte == b':') else {
        return if bytes.len() < 60 { Ok(None) } else { Err(bad()) };
    };
    let text = str::from_utf8(&bytes[1..end]).map_err(|_| bad())?;
    let parts: Vec<u32> = text.split('.').map_while(|part| part.parse().ok()).collect();
    let parts = parts.try_into().map_err(|_| bad())?;
    Ok(Some((parts, end + 1)))
}
