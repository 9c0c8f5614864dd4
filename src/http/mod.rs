//! HTTP/1.x as values (RFC 9110, RFC 9112, RFC 3986): bytes in, values out.
//!
//! Owns the syntax and the framing of messages. Knows no socket, no file and no connection.
#![forbid(unsafe_code)]

pub mod accept_encoding;
mod built_head;
pub mod chunked;
pub mod conditional;
pub mod extra_fields;
pub mod form;
pub mod form_data;
pub mod forwarded;
pub mod header_value;
pub mod multipart;
pub mod origin;
pub mod outlet;
pub mod proxy_header;
pub mod range;
mod raw_head;
pub mod request;
pub mod response;
pub mod status;
pub mod uri;
