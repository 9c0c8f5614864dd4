//! The Common Gateway Interface (RFC 3875): the environment of a program, its process, the head of
//! its output, and the table of the programs that run.
//!
//! Refuses to know connections and the event loop; `answer/program` makes answers of the output.

pub mod environment;
pub mod header;
pub mod launch;
pub mod process;
mod program;
pub mod table;
