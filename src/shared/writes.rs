//! Writes of threads that do not hold the server. They are checked under the lock of the slot, and
//! queued for the thread that holds it: they find closed connections closed, and never reach
//! another client.
//!
//! Refuses to know sockets and the server.

use std::sync::atomic::Ordering;

use super::hub::{Hub, Message, Role};
use super::slots::Slot;
use crate::http::response::Written;
use crate::websocket::deflate::Deflater;
use crate::websocket::frame;

/// The shortest payload in bytes that is compressed by the thread that writes it.
const LONG: usize = 64 << 10;

/// Takes raw bytes of a thread that does not hold the server. Returns false if they are refused.
pub fn write(slot: &'static Slot, bytes: &[u8]) -> bool {
    let Some(generation) = slot.open_generation() else {
        return false;
    };
    let Some(hub) = slot.hub() else { return false };
    let mut late = slot.lock_answer();
    // The connection may have closed since, and another one begun. This is the second check, under
    // the lock that closing takes, too.
    let raw = slot.takes_frames();
    if slot.open_generation() != Some(generation) || !slot.is_answerable() && !raw {
        return false;
    }
    let len = bytes.len();
    if !has_room(slot, hub, len) {
        return false;
    }
    let mut out = Vec::new();
    let role = match late.as_deref_mut() {
        Some(answer) if !raw => {
            if answer.write(bytes, &mut out) == Written::Refused {
                return false;
            }
            if let Some(fault) = answer.take_fault() {
                let _ = hub.queue.push(Message::Complain(fault));
            }
            match answer.complete() {
                Some(persistent) => Role::End { persistent },
                None => Role::Part,
            }
        }
        _ => {
            if out.try_reserve_exact(len).is_err() {
                return false;
            }
            out.extend_from_slice(bytes);
            if raw { Role::Part } else { Role::Unchecked }
        }
    };
    let charged = out.len().max(len);
    push(hub, slot, Message::Write { slot, generation, bytes: out, charged, role }, charged)
}

/// Returns whether `len` more bytes of other threads fit, as far as these threads can know.
fn has_room(slot: &Slot, hub: &Hub, len: usize) -> bool {
    let incoming = slot.incoming.load(Ordering::Relaxed);
    let waiting = incoming.saturating_add(slot.backlog.load(Ordering::Relaxed));
    let buffered = hub.buffered.load(Ordering::Relaxed).saturating_add(incoming);
    len <= hub.max_send_queue.load(Ordering::Relaxed).saturating_sub(waiting)
        && len <= hub.max_buffered.load(Ordering::Relaxed).saturating_sub(buffered)
}

/// Takes a frame of a thread that does not hold the server. Returns the number of bytes queued.
pub fn write_frame(slot: &'static Slot, opcode: u8, data: &[u8]) -> Option<usize> {
    let generation = slot.open_generation()?;
    let hub = slot.hub()?;
    // The I/O thread, which serves others, has no time to compress a long message. Nor has it for the
    // lock, which is therefore taken later.
    let long = match slot.window_bits() {
        Some(bits)
            if matches!(opcode, frame::TEXT | frame::BINARY)
                && data.len() >= LONG
                && has_room(slot, hub, data.len()) =>
        {
            Some(compressed(opcode, data, bits)?)
        }
        _ => None,
    };
    let _guard = slot.lock_answer();
    // This is the second check, under the lock that closing takes, too.
    if slot.open_generation() != Some(generation) || !slot.takes_frames() {
        return None;
    }
    let len = data.len().checked_add(frame::MAX_HEADER)?;
    if !has_room(slot, hub, len) {
        return None;
    }
    let (bytes, role) = match long {
        Some(bytes) => (bytes, Role::Part),
        None => {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(len).ok()?;
            frame::write_header(&mut bytes, opcode, data.len(), false);
            let header_len = bytes.len();
            bytes.extend_from_slice(data);
            (bytes, Role::Frame { header_len })
        }
    };
    if opcode == frame::CLOSE {
        slot.set_takes_frames(false);
    }
    let charged = bytes.len();
    let message = Message::Write { slot, generation, bytes, charged, role };
    push(hub, slot, message, charged).then_some(charged)
}

/// Returns a frame that is compressed if that makes it shorter. `None` means that there is no memory.
fn compressed(opcode: u8, data: &[u8], bits: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(data.len() + frame::MAX_HEADER).ok()?;
    Deflater::new().write_frame_of_any_length(&mut bytes, opcode, data, bits);
    bytes.shrink_to_fit();
    Some(bytes)
}

/// Puts a message of `charged` bytes into the queue. False if there is no memory for it. The slot is locked.
fn push(hub: &Hub, slot: &Slot, message: Message, charged: usize) -> bool {
    slot.incoming.fetch_add(charged, Ordering::Relaxed);
    let is_queued = hub.queue.push(message).is_ok();
    if !is_queued {
        // The I/O thread would look for the message again and again.
        slot.incoming.fetch_sub(charged, Ordering::Relaxed);
    }
    is_queued
}

#[cfg(test)]
mod tests {
    use super::super::pool;
    use super::*;
    use std::ptr;

    #[test]
    fn a_write_that_cannot_be_queued_leaves_nothing_to_be_looked_for() {
        let hub = Hub::acquire();
        hub.max_send_queue.store(1000, Ordering::Relaxed);
        hub.max_buffered.store(1000, Ordering::Relaxed);
        let slot = pool::acquire().expect("a slot");
        slot.open(hub, 0, crate::peer::Peer::NOBODY, ptr::null_mut());
        slot.set_answerable(true);
        slot.set_takes_frames(true);
        assert!(write(slot, b"x") && write_frame(slot, 1, b"x").is_some());
        let queued = slot.incoming.load(Ordering::Relaxed);
        hub.queue.close();
        assert!(!write(slot, b"x") && write_frame(slot, 1, b"x").is_none());
        assert_eq!(slot.incoming.load(Ordering::Relaxed), queued);
        let was_seen = slot.close();
        pool::release(slot, was_seen);
        hub.release();
    }
}
