//! Who may do what: password files (later digest authentication, RFC 7616).
#![forbid(unsafe_code)]

pub mod htpasswd;
