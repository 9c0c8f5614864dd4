//! The exported C functions, and nearly all `unsafe` code: the only callers of user code.
//!
//! An entry point converts its arguments, catches panics and delegates to the modules below. Knows
//! neither protocols nor sockets.

pub mod connection;
pub mod guard;
pub mod hold;
#[macro_use]
mod jump;
pub mod server;
pub mod utility;
pub mod variadic;
