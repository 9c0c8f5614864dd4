//! The records that are sent at once, one behind the other, in a buffer that is used again and
//! again. Knows nothing of their content.
//!
//! What the buffer has held once stays initialised, since setting 64 KiB to zero before each
//! encryption takes a noticeable part of the time of the encryption.

/// Records behind each other.
#[derive(Default)]
pub struct Records {
    /// The initialised bytes, of which the first `len` are records.
    bytes: Vec<u8>,
    len: usize,
}

impl Records {
    /// Returns the records.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends what `write` writes into the `room` bytes that it is given, and of which it returns
    /// the count. Returns `None` if it writes nothing, or there is no memory for so many bytes.
    pub fn append(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<()> {
        let end = self.len.checked_add(room)?;
        if self.bytes.len() < end {
            self.bytes.try_reserve(end - self.bytes.len()).ok()?;
            self.bytes.resize(end, 0);
        }
        let count = write(self.bytes.get_mut(self.len..end)?)?;
        self.len += count.min(room);
        Some(())
    }

    /// Appends complete records. Returns `None` if there is no memory for them.
    pub fn extend(&mut self, records: &[u8]) -> Option<()> {
        self.append(records.len(), |place| {
            place.copy_from_slice(records);
            Some(records.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_each_other_whatever_was_there_before() {
        let mut records = Records::default();
        for round in 0..3 {
            records.clear();
            assert!(records.is_empty());
            assert_eq!(records.extend(b"first"), Some(()));
            let written = records.append(100, |place| {
                assert_eq!(place.len(), 100);
                place[..4].copy_from_slice(b"next");
                Some(4)
            });
            assert_eq!((written, records.as_slice()), (Some(()), &b"firstnext"[..]), "{round}");
        }
        assert_eq!(records.append(50, |_| None), None);
        assert_eq!(records.append(usize::MAX, |_| unreachable!("no memory")), None);
        assert_eq!(records.as_slice(), b"firstnext");
    }
}
