//! What other threads than the polling one touch: the slots behind `struct mg_connection *`, the hub
//! behind `struct mg_server *`, and the queue between them. All of it lives for ever, since programs keep pointers
//! for longer than they should.
//!
//! Knows neither the server nor its connections.

pub mod hub;
mod pool;
pub mod queue;
pub mod slots;
pub mod thread_number;
