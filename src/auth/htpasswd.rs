//! Password files.
