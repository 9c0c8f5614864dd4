//! WebDAV, classes 1 and 2 (RFC 4918): what its methods do to files, and what they answer.
//!
//! Knows nothing of sockets. It is given requests as values, works on the file system in bounded
//! portions, and gives back answers as values.
#![forbid(unsafe_code)]

pub mod bodies;
pub mod conditions;
pub mod fields;
pub mod locks;
pub mod store;
pub mod temporary;
#[cfg(test)]
mod test_folder;
pub mod xml;
