//! Why the program ends: a sentence for standard error, and the exit status.

/// The status for what was asked for in a wrong way.
const USAGE: u8 = 2;
/// The status for what went wrong otherwise.
const TROUBLE: u8 = 1;

/// A sentence for standard error, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub sentence: String,
    pub status: u8,
}

impl Failure {
    /// What was asked for cannot be done: an unknown option, a value that is refused.
    pub fn usage(sentence: impl Into<String>) -> Failure {
        Failure { sentence: sentence.into(), status: USAGE }
    }

    /// What was asked for was right, and failed.
    pub fn trouble(sentence: impl Into<String>) -> Failure {
        Failure { sentence: sentence.into(), status: TROUBLE }
    }
}
