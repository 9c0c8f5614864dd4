//! The exported functions: the only callers of user code, and nearly all `unsafe`. What they do is in the rooms
//! below; an entry point converts, guards and delegates.

pub mod connection;
pub mod guard;
pub mod hold;
pub mod server;
pub mod utility;
pub mod variadic;
