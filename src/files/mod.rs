//! From a path to bytes: static files.

pub mod mime;
pub mod serve;
