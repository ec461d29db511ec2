//! What can go wrong, as one type whose kind decides the exit code of the job.
//!
//! An error says where (rank, operation, file), what, and what to do next. It can cross from one
//! rank to all others (see `control`), so everything it carries is text and numbers.

use std::fmt;
use std::path::Path;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The classes of failure that scripts can tell apart by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The user's input is wrong: a file, an option, an impossible request. Exit code 2.
    Input,
    /// Ranks called different collectives, or with different arguments. Exit code 3.
    Disagreement,
    /// A peer did not arrive within the time limit. Exit code 3.
    Timeout,
    /// A rank or a node of the job was lost. Exit code 4.
    RankLost,
    /// A defect in rankwise or in the MPI under it. Exit code 1.
    Internal,
    /// A computation that cannot deliver what was asked, such as no convergence. Exit code 1.
    Failed,
}

impl ErrorKind {
    /// All kinds, in the order of their wire codes.
    pub const ALL: [ErrorKind; 6] = [
        ErrorKind::Input,
        ErrorKind::Disagreement,
        ErrorKind::Timeout,
        ErrorKind::RankLost,
        ErrorKind::Internal,
        ErrorKind::Failed,
    ];

    /// The exit code that this kind ends the job with.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Input => 2,
            ErrorKind::Disagreement | ErrorKind::Timeout => 3,
            ErrorKind::RankLost => 4,
            ErrorKind::Internal | ErrorKind::Failed => 1,
        }
    }

    /// The word for this kind in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Input => "input",
            ErrorKind::Disagreement => "disagreement",
            ErrorKind::Timeout => "timeout",
            ErrorKind::RankLost => "rank_lost",
            ErrorKind::Internal => "internal",
            ErrorKind::Failed => "failed",
        }
    }
}

/// A failure, with the rank it arose on once it is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// One line: where, what, what to do next.
    pub message: String,
    /// The rank on which it arose; `None` when every rank sees it alike.
    pub rank: Option<usize>,
    /// True once the same error is known on every rank, so that only one of them reports it.
    pub agreed: bool,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), rank: None, agreed: false }
    }

    /// The user's input is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Input, message)
    }

    /// The user's file is wrong at a line (counted from 1).
    pub fn line(path: &Path, line: u64, what: impl fmt::Display) -> Self {
        Error::input(format!("{} line {line}: {what}", path.display()))
    }

    /// An input or output error on a file. A file that the user named is the user's input.
    pub fn file(path: &Path, doing: &str, source: &std::io::Error) -> Self {
        Error::input(format!("{}: cannot {doing}: {source}", path.display()))
    }

    /// A defect in rankwise or below it.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// The same error, as one that arose on `rank`; an earlier rank is kept.
    pub fn on_rank(mut self, rank: usize) -> Self {
        self.rank.get_or_insert(rank);
        self
    }

    /// The exit code that this error ends the job with.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rank) = self.rank {
            write!(f, "rank {rank}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} error: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_first_rank_only() {
        let error = Error::input("no such file").on_rank(2).on_rank(5);
        assert_eq!(error.to_string(), "rank 2: no such file");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn every_kind_has_a_name_and_a_failing_exit_code() {
        for kind in ErrorKind::ALL {
            assert!((1..=4).contains(&kind.exit_code()), "{}", kind.name());
        }
    }
}
