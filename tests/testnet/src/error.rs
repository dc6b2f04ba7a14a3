//! What can go wrong while a network starts, in words that say what to do about it.

use std::{path::PathBuf, time::Duration};

/// Why no network could be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the Debian package `tor` is not there.
    #[error("`{program}` was not found: install C tor first (apt-get install tor)")]
    NotInstalled {
        /// The program that was looked for in `PATH`.
        program: &'static str,
    },
    /// A program ran and failed.
    #[error("`{program}` failed: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it wrote, at its end.
        output: String,
    },
    /// The directory asked for holds something already, perhaps another network.
    #[error("{0} is not empty: name another directory, or remove what is in it")]
    NotEmpty(PathBuf),
    /// The relay bandwidth is not in the form of torrc.
    #[error("{0:?} is not a bandwidth as torrc writes it, for example \"1 MB\"")]
    BadBandwidth(String),
    /// A port that was free when the network was planned was taken when its node started.
    #[error("{node}: one of its ports was taken by another process")]
    PortTaken {
        /// The node's nickname.
        node: String,
    },
    /// A node's process ended before the network stood.
    #[error("{node}: `tor` ended early: {log}")]
    Ended {
        /// The node's nickname.
        node: String,
        /// The end of its log.
        log: String,
    },
    /// The network did not stand in time.
    #[error("no usable consensus after {} s: {missing}", waited.as_secs())]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// What was still missing.
        missing: String,
    },
    /// A file or a process of the network could not be had.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: adds what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
