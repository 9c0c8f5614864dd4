//! Writes of threads that do not hold the server. They are checked under the lock of the slot, and
//! queued for the thread that holds it: they find closed connections closed, and never reach
//! another client.
//!
//! Refuses to know sockets and the server.

use std::sync::atomic::Ordering;

use super::hub::{Hub, Message, Role};
use super::slots::Slot;
use crate::http::response::Written;
use crate::websocket::frame;

/// Takes raw bytes of a thread that does not hold the server. Returns false if they are refused.
pub fn write(slot: &'static Slot, bytes: &[u8]) -> bool {
    let Some(generation) = slot.open_generation() else {
        return false;
    };
    let Some(hub) = slot.hub() else { return false };
    let mut late = slot.answer();
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
    slot.incoming.fetch_add(charged, Ordering::Relaxed);
    let message = Message::Write { slot, generation, bytes: out, charged, role };
    hub.queue.push(message).is_ok()
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
    let _guard = slot.answer();
    // This is the second check, under the lock that closing takes, too.
    if slot.open_generation() != Some(generation) || !slot.takes_frames() {
        return None;
    }
    let len = data.len().checked_add(frame::MAX_HEADER)?;
    if !has_room(slot, hub, len) {
        return None;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    frame::write_header(&mut bytes, opcode, data.len(), false);
    let header_len = bytes.len();
    bytes.extend_from_slice(data);
    if opcode == frame::CLOSE {
        slot.set_takes_frames(false);
    }
    let charged = bytes.len();
    slot.incoming.fetch_add(charged, Ordering::Relaxed);
    let role = Role::Frame { header_len };
    let message = Message::Write { slot, generation, bytes, charged, role };
    hub.queue.push(message).is_ok().then_some(charged)
}
