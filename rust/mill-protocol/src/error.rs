//! The errors of a running job.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use mill_frame::text::shortened;

/// The result of everything that the runtime calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is; decides which exception a Python user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The plan asks for something that cannot be.
    Plan,
    /// A column is missing or has the wrong type.
    Schema,
    /// A record cannot be processed: overflow, a failed cast, a malformed line.
    Data,
    /// A source or sink failed, or cannot keep the guarantee asked for.
    Connector,
    /// A checkpoint could not be written or read.
    Checkpoint,
    /// The user's own function raised.
    UserFunction,
    /// The job was cancelled.
    Cancelled,
    /// The engine broke one of its own rules.
    Internal,
}

/// A failure, with the step it happened in.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    step: Option<String>,
    message: String,
    traceback: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of this kind. The message starts in lower case, names column and value, and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, step: None, message: message.into(), traceback: String::new(), source: None }))
    }

    /// A plan that cannot be.
    pub fn plan(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Plan, message)
    }

    /// A missing column or a wrong type.
    pub fn schema(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Schema, message)
    }

    /// A record that cannot be processed.
    pub fn data(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data, message)
    }

    /// A source or sink that failed.
    pub fn connector(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Connector, message)
    }

    /// A checkpoint that could not be written or read.
    pub fn checkpoint(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Checkpoint, message)
    }

    /// A broken rule of the engine's own.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    /// The same failure with its cause kept.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The same failure with the traceback of the user's function, for the records of an `errors` stream.
    #[must_use]
    pub fn traced(mut self, traceback: impl Into<String>) -> Error {
        self.0.traceback = traceback.into();
        self
    }

    /// The same failure as of this step; a step that is already named stays.
    #[must_use]
    pub fn in_step(mut self, step: &str) -> Error {
        self.0.step.get_or_insert_with(|| step.to_owned());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step it happened in, where known.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The message without the step.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Takes the cause out, to hand it on as what it was (a Python exception, say).
    pub fn take_source(&mut self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.0.source.take()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.step {
            Some(step) => write!(f, "step {step:?}: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        if let Some(source) = &self.0.source {
            write!(f, " (because: {source})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

/// One record that a step could not process, for a job that skips such records or routes them to `.errors`.
#[derive(Clone, Debug, Default)]
pub struct Rejected {
    /// What went wrong, with file and line where there are any.
    pub error: String,
    /// The traceback of the user's function, or empty.
    pub traceback: String,
    /// The whole record: a line as it was, or JSON.
    pub record: String,
    /// What the user's function raised, kept so that a job that fails hands on the very exception.
    pub cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Rejected {
    /// A record on which a call failed; the message, the traceback and the cause are those of the failure.
    pub fn of(error: Error, record: impl Into<String>) -> Rejected {
        let Inner { message, traceback, source, .. } = *error.0;
        Rejected { error: message, traceback, record: record.into(), cause: source.map(Arc::from) }
    }

    /// A record that could not be processed, without a traceback or cause.
    pub fn new(error: impl Into<String>, record: impl Into<String>) -> Rejected {
        Rejected { error: error.into(), record: record.into(), ..Rejected::default() }
    }

    /// The failure of a job that does not put up with such records.
    pub fn into_error(self) -> Error {
        let is_users = self.cause.is_some() || !self.traceback.is_empty();
        let kind = if is_users { ErrorKind::UserFunction } else { ErrorKind::Data };
        let message =
            if self.record.is_empty() { self.error } else { format!("{}; record: {}", self.error, shortened(&self.record)) };
        let error = Error::new(kind, message);
        match self.cause {
            Some(cause) => error.because(Box::new(cause)),
            None => error,
        }
    }
}
