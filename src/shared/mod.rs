//! The memory that other threads than the polling one may touch: the slots behind
//! `struct mg_connection *`, the hubs behind `struct mg_server *`, and the queue between threads.
//! It is never unmapped, since programs keep pointers for longer than they should.
//!
//! Knows neither the server nor its connections. Memory orderings are those of C11.

pub mod faults;
pub mod hub;
pub mod pool;
pub mod queue;
pub mod slots;
pub mod thread_number;
pub mod writes;
