//! What C sees: the exported functions, the public structures, and nearly all `unsafe`.

pub mod guard;
pub mod types;
pub mod variadic;
