//! Media types by file extension.
