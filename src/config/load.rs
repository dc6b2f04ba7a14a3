//! Reads and checks a configuration file.

use std::io;
use std::path::{Path, PathBuf};

use super::check::check;
use super::removed;
use super::tables::Config;
use crate::schema::KnownApps;
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
    /// Reads and checks a file. Names of apps and domains are not checked if the folder
    /// `node.schema_dir` has problems, which [`crate::schema::Schemas::load`] reports.
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
        let read = Self::parse_with(path, &text, |config| {
            KnownApps::read(config.schema_dir().as_deref()).ok()
        });
        Ok(read?)
    }

    /// Checks the text of a file. Messages and relative paths in the file refer to `path`. Names of
    /// apps and domains are not checked if there is a `node.schema_dir`, because no file is read.
    ///
    /// # Errors
    /// The text has problems; all of them are reported, with the warnings.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        Self::parse_with(path, text, |config| match config.node.schema_dir {
            None => KnownApps::read(None).ok(),
            Some(_) => None,
        })
    }

    /// `known_apps` returns the apps that the configuration may enable, or `None` if they are not
    /// known.
    fn parse_with(
        path: &Path,
        text: &str,
        known_apps: impl FnOnce(&Self) -> Option<KnownApps>,
    ) -> Result<Self, Problems> {
        let mut file = TomlFile::parse(path, text);
        let warnings = removed::take_out(&mut file);
        let mut config: Option<Self> = file.read();
        if let Some(config) = &mut config {
            config.file = path.into();
            config.warnings.clone_from(&warnings);
            let known = known_apps(config);
            check(config, known, &mut |key, why| file.note_key(key, why));
        }
        file.finish(config).map_err(|problems| Problems {
            warnings,
            ..problems
        })
    }
}
