//! Errors of starting a network. Each message states what to change where the user can act.

use std::{path::PathBuf, time::Duration};

/// The reason why a network did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the Debian package `tor` is not installed.
    #[error("`{program}` was not found: install C tor first (apt-get install tor)")]
    NotInstalled {
        /// The program that is not in `PATH`.
        program: &'static str,
    },
    /// A program exited with an error status.
    #[error("`{program}` failed: {output}")]
    Failed {
        /// The program's file name.
        program: &'static str,
        /// Its standard output followed by its standard error, trimmed.
        output: String,
    },
    /// The requested folder is not empty; perhaps it belongs to another network.
    #[error("{0} is not empty: name another folder, or remove what is in it")]
    NotEmpty(PathBuf),
    /// The relay bandwidth does not follow the syntax of torrc.
    #[error("{0:?} is not a bandwidth as torrc writes it, for example \"1 MB\"")]
    BadBandwidth(String),
    /// Another process took a reserved port between its release and the start of the node.
    #[error("{node}: one of its ports was taken by another process")]
    PortTaken {
        /// The node's nickname.
        node: String,
    },
    /// A node's process exited before the network was usable.
    #[error("{node}: `tor` ended early: {log}")]
    Ended {
        /// The node's nickname.
        node: String,
        /// The last five lines of its log.
        log: String,
    },
    /// The network was not usable before the deadline.
    #[error("no usable consensus after {} s: {missing}", waited.as_secs())]
    NotReady {
        /// The time from the start of the network.
        waited: Duration,
        /// The first condition that did not hold.
        missing: String,
    },
    /// An operation on a file or a process of the network failed.
    #[error("{doing}: {source}")]
    Io {
        /// The operation that failed.
        doing: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl Error {
    /// Returns a closure for `map_err` that adds the name of the failed operation.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
