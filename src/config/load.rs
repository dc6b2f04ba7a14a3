//! Reads and checks a configuration file.

use std::io;
use std::path::{Path, PathBuf};

use super::check::check;
use super::removed;
use super::tables::Config;
use crate::toml_file::{Problems, ReadTextError, TomlFile, read_text};

/// Name of the file in a node's folder.
pub const FILE_NAME: &str = "postern.toml";

/// Longest file, in bytes. One with every key and a hundred peers is below 64 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A configuration file that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file exceeds the limit.
    #[error("{0}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// The file is wrong: one line of text for each problem.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is too long, or has problems; all of them are reported.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path, FILE_BYTES_MAX).map_err(|error| match error {
            ReadTextError::TooLong => ConfigError::TooLong(path.into()),
            ReadTextError::Unreadable(source) => ConfigError::Unreadable {
                path: path.into(),
                source,
            },
        })?;
        Ok(Self::parse(path, &text)?)
    }

    /// Checks the text of a file. Messages and relative paths in the file refer to `path`.
    ///
    /// # Errors
    /// The text has problems; all of them are reported, with the warnings.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let mut file = TomlFile::parse(path, text);
        let warnings = removed::take_out(&mut file);
        let mut config: Option<Self> = file.read();
        if let Some(config) = &mut config {
            config.file = path.into();
            config.warnings.clone_from(&warnings);
            check(config, &mut |key, why| file.note_key(key, why));
        }
        file.finish(config).map_err(|problems| Problems {
            warnings,
            ..problems
        })
    }
}
