//! From a path to bytes: static files, and pages that list directories.

pub mod cache;
pub mod directory;
pub mod listing;
pub mod mime;
pub mod resolve;
pub mod serve;
