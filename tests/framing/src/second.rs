//! What the second parser, llhttp, makes of a stream of messages. The reading is done in `second.c`.

use std::ffi::{c_char, c_int, c_uint};
use std::ops::Range;

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let Range { start, end } = self.at as usize..(self.at + self.len) as usize;
        bytes.get(start..end).unwrap_or_default()
    }
}

pub const COMPLETE: u8 = 0;
pub const INCOMPLETE: u8 = 1;
pub const REFUSED: u8 = 2;

/// The same as in `second.c`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Message {
    pub method: Span,
    pub target: Span,
    content: Span,
    fields: Span,
    /// The offset behind the message.
    pub end: u32,
    pub length: u64,
    pub outcome: u8,
    pub major: u8,
    pub minor: u8,
    pub has_length: u8,
    pub chunked: u8,
    pub coded: u8,
    pub keep_alive: u8,
    pub upgrade: u8,
    pub status: u16,
    began: u8,
    head_complete: u8,
}

#[repr(C)]
struct Buffers {
    content: *mut u8,
    fields: *mut u8,
    content_len: u32,
    content_room: u32,
    fields_len: u32,
    fields_room: u32,
}

unsafe extern "C" {
    fn second_read(
        reader: *mut Buffers,
        stream: *const c_char,
        len: usize,
        are_responses: c_int,
        is_last: c_int,
        no_content: c_uint,
        messages: *mut Message,
        max: c_int,
    ) -> c_int;
}

/// More messages than the grammar puts into one stream.
const MAX_MESSAGES: usize = 32;
const ROOM: usize = 256 * 1024;

/// The reader, and what it has read last.
pub struct Second {
    messages: [Message; MAX_MESSAGES],
    count: usize,
    content: Vec<u8>,
    fields: Vec<u8>,
}

impl Second {
    pub fn new() -> Self {
        Self {
            messages: [Message::default(); MAX_MESSAGES],
            count: 0,
            content: vec![0; ROOM],
            fields: vec![0; ROOM],
        }
    }

    pub fn requests(&mut self, stream: &[u8]) -> &[Message] {
        self.read(stream, false, false, 0)
    }

    /// `is_last` says that the connection ends behind the stream; `heads` has a bit for each request
    /// that was a HEAD.
    pub fn responses(&mut self, stream: &[u8], is_last: bool, heads: u32) -> &[Message] {
        self.read(stream, true, is_last, heads)
    }

    fn read(&mut self, stream: &[u8], responses: bool, is_last: bool, heads: u32) -> &[Message] {
        let mut buffers = Buffers {
            content: self.content.as_mut_ptr(),
            fields: self.fields.as_mut_ptr(),
            content_len: 0,
            content_room: ROOM as u32,
            fields_len: 0,
            fields_room: ROOM as u32,
        };
        // SAFETY: the buffers are as long as is said, and so are the stream and the messages.
        let count = unsafe {
            second_read(
                &raw mut buffers,
                stream.as_ptr().cast(),
                stream.len(),
                responses.into(),
                is_last.into(),
                heads,
                self.messages.as_mut_ptr(),
                MAX_MESSAGES as c_int,
            )
        };
        self.count = usize::try_from(count).unwrap_or(0);
        self.messages()
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages[..self.count]
    }

    pub fn content(&self, message: &Message) -> &[u8] {
        message.content.of(&self.content)
    }

    /// The names and values of the fields of the head.
    pub fn fields(&self, message: &Message) -> impl Iterator<Item = (&[u8], &[u8])> {
        message.fields.of(&self.fields).split(|byte| *byte == 1).filter_map(|field| {
            let at = field.iter().position(|byte| *byte == 0)?;
            Some((&field[..at], &field[at + 1..]))
        })
    }
}
