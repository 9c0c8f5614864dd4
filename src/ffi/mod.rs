//! What C sees: the exported functions, the public structures, and nearly all `unsafe`.

pub mod connection;
pub mod guard;
pub mod hold;
pub mod server;
pub mod types;
pub mod utility;
pub mod variadic;
