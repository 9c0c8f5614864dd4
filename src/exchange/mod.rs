//! The values that pass from room to room while requests are answered: the request itself, the bytes on their
//! way to a socket, and what all connections of a server share.
//!
//! Refuses to know connections, sockets, and the kernel's event queue.

pub mod buffers;
pub mod context;
pub mod errands;
pub mod hidden;
pub mod input;
pub mod later;
pub mod outbox;
pub mod request;
pub mod spares;
pub mod turn;
