//! From a path to bytes: static files.

pub mod mime;
