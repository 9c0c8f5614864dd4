//! From the path of a request to bytes: static files, and pages that list directories. Reads the
//! file system by POSIX calls; knows nothing of sockets, nor of who may see a file.
#![forbid(unsafe_code)]

pub mod cache;
pub mod devices;
pub mod directory;
pub mod known;
pub mod links;
pub mod listing;
pub mod load;
pub mod merge;
pub mod mime;
pub mod page;
pub mod passwords;
pub mod patience;
pub mod representation;
pub mod resolve;
pub mod secrets;
pub mod shortcuts;
pub mod ssi;
pub mod store;
