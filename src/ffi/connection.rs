//! The C functions that write to a connection: `mg_write`, `mg_websocket_write` and the `mg_send`
//! family.
//!
//! Owns the choice between the polling thread, which writes at once, and the queue of the hub for
//! all others. Knows nothing of framing.

use std::ffi::{c_char, c_int, c_void};

use super::guard::{c_bytes, c_str, catch};
use super::hold::Hold;
use crate::abi::mg_connection;
use crate::connection::Piece;
use crate::shared::faults::Quiet;
use crate::shared::hub::Message;
use crate::shared::slots::Slot;
use crate::shared::writes;

/// Sends `len` bytes as they stand, as part of a response whose status line, header and content the
/// program writes itself. The bytes are copied. The header of the response decides whether the
/// connection stays open.
///
/// Returns `len`, or 0 if nothing was queued: no request waits for a response, the connection has
/// closed, `max_send_queue_bytes` would be exceeded, or there is no memory. The bytes are never
/// queued in part.
///
/// Any thread may call this at any time, also with a connection that has closed.
///
/// # Safety
/// `conn` is NULL or was given to a handler; `buf` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_write(
    conn: *mut mg_connection,
    buf: *const c_void,
    len: c_int,
) -> c_int {
    catch(0, || {
        // SAFETY: by the caller's promise.
        let (slot, bytes) = unsafe { (Slot::from_c(conn), c_bytes(buf.cast(), len)) };
        let (Some(slot), Some(bytes)) = (slot, bytes) else {
            return 0;
        };
        if bytes.is_empty() {
            return 0;
        }
        let held = slot.hub().and_then(Hold::mine);
        let taken = match held {
            Some(hold) => {
                hold.with(|server| server.write(slot, Piece::Raw(bytes))).unwrap_or(false)
            }
            None => {
                let _quiet = Quiet::begin();
                writes::write(slot, bytes)
            }
        };
        if taken { len } else { 0 }
    })
}

/// Sends one websocket frame with the given opcode (0 to 15) and payload. The bytes are copied.
///
/// Returns the number of bytes queued, frame header included, or -1 on failure and on a
/// connection that is no websocket.
///
/// Any thread may call this at any time, also with a connection that has closed.
///
/// # Safety
/// `conn` is NULL or was given to a handler; `data` holds `data_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_websocket_write(
    conn: *mut mg_connection,
    opcode: c_int,
    data: *const c_char,
    data_len: usize,
) -> c_int {
    catch(-1, || {
        let Ok(opcode @ 0..=15) = u8::try_from(opcode) else { return -1 };
        let Ok(len) = c_int::try_from(data_len) else { return -1 };
        // SAFETY: by the caller's promise.
        let (slot, data) = unsafe { (Slot::from_c(conn), c_bytes(data, len)) };
        let (Some(slot), Some(data)) = (slot, data) else { return -1 };
        let queued = match slot.hub().and_then(Hold::mine) {
            Some(hold) => hold.with(|server| server.write_frame(slot, opcode, data)).flatten(),
            None => {
                let _quiet = Quiet::begin();
                writes::write_frame(slot, opcode, data)
            }
        };
        queued.and_then(|len| c_int::try_from(len).ok()).unwrap_or(-1)
    })
}

/// Begins a response with a status, 100 to 999; other numbers do nothing. Optional: without this
/// call the status is 200, or the error inside the HTTP error handler. Only the first call counts.
///
/// mg_send_status(), mg_send_header() and mg_send_data() build a response whose framing the
/// library chooses: chunks for HTTP/1.1. To be called by the thread that polls.
///
/// # Safety
/// `conn` is NULL or was given to a handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_send_status(conn: *mut mg_connection, status_code: c_int) {
    catch((), || {
        if let Some(status) = u16::try_from(status_code).ok().filter(|s| (100..=999).contains(s)) {
            // SAFETY: by the caller's promise.
            unsafe { send(conn, Piece::Status(status)) };
        }
    });
}

/// Adds a header field to the response. Name and value are copied; a field with a line break is
/// dropped. To be called before mg_send_data(), by the thread that polls.
///
/// # Safety
/// `conn` is NULL or was given to a handler; `name` and `value` are NULL or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_send_header(
    conn: *mut mg_connection,
    name: *const c_char,
    value: *const c_char,
) {
    catch((), || {
        // SAFETY: by the caller's promise.
        let (name, value) = unsafe { (c_str(name), c_str(value)) };
        if let (Some(name), Some(value)) = (name, value) {
            // SAFETY: as above.
            unsafe { send(conn, Piece::Field(name, value)) };
        }
    });
}

/// Sends a piece of the content. The first call sends the header. The bytes are copied. The
/// response ends when the handler returns; a response that is continued later ends with a call of
/// length 0. Where there is no room for a piece (`max_send_queue_bytes`, `max_buffered_bytes`), nothing
/// more is taken and the connection closes, so that the client does not take the response for a whole one.
///
/// To be called by the thread that polls.
///
/// # Safety
/// `conn` is NULL or was given to a handler; `data` holds `data_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mg_send_data(
    conn: *mut mg_connection,
    data: *const c_void,
    data_len: c_int,
) {
    catch((), || {
        // SAFETY: by the caller's promise.
        if let Some(data) = unsafe { c_bytes(data.cast(), data_len) } {
            // SAFETY: as above.
            unsafe { send(conn, Piece::Data(data)) };
        }
    });
}

/// Passes a piece of a response to the server, on the polling thread only.
///
/// # Safety
/// `conn` is NULL or was given to a handler.
unsafe fn send(conn: *mut mg_connection, piece: Piece<'_>) {
    // SAFETY: by the caller's promise.
    let Some(slot) = (unsafe { Slot::from_c(conn) }) else {
        return;
    };
    let Some(hub) = slot.hub() else { return };
    match Hold::mine(hub) {
        Some(hold) => {
            hold.with(|server| server.write(slot, piece));
        }
        None if slot.open_generation().is_some() => {
            let what = "the mg_send family was called by a thread that does not poll";
            let _ = hub.queue.push(Message::Complain(what));
        }
        None => {}
    }
}
