//! Loads [`Schemas`]: built-in apps from the program, an operator's own apps from a folder.
//!
//! Each problem is reported with file, line, key and, where there is one, the nearest valid word. A
//! file is loaded whole or not at all. Apps that are not enabled are checked too, so that enabling
//! one later cannot fail.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bastion::AppClaim;
use keys::codec;
use keys::protocol::{SCHEMA_VERSION_MAX, SOLUTION_NAMES_BYTES_MAX, WELCOME_NAMES_BYTES_MAX};

use super::convert::parse;
use super::identities;
use super::schemas::Schemas;
use super::types::AppSchema;
use crate::domain::SYNC_DOMAINS_MAX;
use crate::toml_file::{Problems, ReadTextError, nearest, read_text};

/// Longest schema file, in bytes. The built-in ones are shorter than 2 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most files in the folder.
const FILES_MAX: usize = 63;

const BUILT_IN: [(&str, &str); 5] = [
    ("contacts", include_str!("apps/contacts.toml")),
    (identities::APP, include_str!("apps/identities.toml")),
    ("market", include_str!("apps/market.toml")),
    ("messages", include_str!("apps/messages.toml")),
    ("rides", include_str!("apps/rides.toml")),
];

/// Why schemas were not loaded. The operator or the app's developer must act.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A file has problems.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// A file or the folder cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The reason that the operating system gives.
        #[source]
        source: io::Error,
    },
    /// A file is too long to be a schema.
    #[error("{0}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// The folder holds too many files.
    #[error("{0}: more than {FILES_MAX} schema files")]
    TooManyFiles(PathBuf),
    /// Two files define the same app, or one defines a built-in app.
    #[error("{file}: the app `{slug}` is defined already")]
    AppTwice {
        /// The second file.
        file: PathBuf,
        /// The app.
        slug: String,
    },
    /// The configuration enables an app that does not exist.
    #[error("there is no app `{slug}`{}", did_you_mean(.suggestion.as_deref()))]
    UnknownApp {
        /// Slug of the app.
        slug: String,
        /// The most similar slug of an existing app.
        suggestion: Option<String>,
    },
    /// The app `identities` is not enabled.
    #[error(
        "the app `{}` must be enabled because all other apps need it",
        identities::APP
    )]
    NoIdentities,
    /// More domains than `sync_flags` has bits.
    #[error("{0} sync domains are enabled, but at most {SYNC_DOMAINS_MAX} are possible")]
    TooManyDomains(usize),
    /// The node could not announce its apps and domains to a peer.
    #[error(
        "the names of the enabled apps and domains take {bytes} bytes of a handshake, but at most \
         {bytes_max} are possible: enable fewer apps, or give an app's domains shorter names"
    )]
    NamesTooLong {
        /// Bytes of the lists of names in one message.
        bytes: usize,
        /// Bytes that the message has for them.
        bytes_max: usize,
    },
}

/// All apps that a configuration may enable.
pub(crate) struct KnownApps(BTreeMap<String, AppSchema>);

impl KnownApps {
    /// Reads the built-in apps, and those of `*.toml` files in the folder.
    ///
    /// # Errors
    /// Any file in the folder has problems.
    pub(crate) fn read(folder: Option<&Path>) -> Result<Self, SchemaError> {
        let mut known = BTreeMap::new();
        for (slug, text) in BUILT_IN {
            known.insert(
                slug.to_owned(),
                parse(Path::new(&format!("{slug}.toml")), text)?,
            );
        }
        for file in folder.map_or(Ok(Vec::new()), files)? {
            let app = parse(&file, &read(&file)?)?;
            if known.contains_key(&app.slug) {
                return Err(SchemaError::AppTwice {
                    file,
                    slug: app.slug,
                });
            }
            known.insert(app.slug.clone(), app);
        }
        Ok(Self(known))
    }

    /// Slugs of the apps, sorted.
    pub(crate) fn slugs(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The enabled apps.
    ///
    /// # Errors
    /// An enabled app does not exist, `identities` is missing, or there are too many domains.
    pub(crate) fn enable(self, enabled: &[String]) -> Result<Schemas, SchemaError> {
        if let Some(slug) = enabled.iter().find(|slug| !self.0.contains_key(*slug)) {
            let suggestion = nearest(slug, self.slugs()).map(str::to_owned);
            let slug = slug.clone();
            return Err(SchemaError::UnknownApp { slug, suggestion });
        }
        let Self(mut known) = self;
        known.retain(|slug, _| enabled.contains(slug));
        if !known.contains_key(identities::APP) {
            return Err(SchemaError::NoIdentities);
        }
        let schemas = Schemas::new(known);
        match schemas.sync_domains().count() {
            0..=SYNC_DOMAINS_MAX => schemas.check_names().map(|()| schemas),
            count => Err(SchemaError::TooManyDomains(count)),
        }
    }
}

impl Schemas {
    /// Loads the enabled apps, built-in ones and those of `*.toml` files in the folder.
    ///
    /// # Errors
    /// Any file in the folder has problems, or an enabled app does not exist.
    pub fn load(enabled: &[String], folder: Option<&Path>) -> Result<Self, SchemaError> {
        KnownApps::read(folder)?.enable(enabled)
    }

    /// Checks that every message of a handshake can hold the names of apps and domains. A version
    /// counts with its longest encoding, so that no upgrade changes the result.
    fn check_names(&self) -> Result<(), SchemaError> {
        let claim = |app: &AppSchema| AppClaim {
            version: SCHEMA_VERSION_MAX,
            ..app.claim()
        };
        let apps: Vec<_> = self.apps().map(claim).collect();
        let domains: Vec<_> = self.sync_domains().map(|it| it.name.as_str()).collect();
        let (apps, domains) = (codec::encode(&apps).len(), codec::encode(&domains).len());
        let messages = [
            (apps + domains, SOLUTION_NAMES_BYTES_MAX),
            (apps + 2 * domains, WELCOME_NAMES_BYTES_MAX),
        ];
        match messages.into_iter().find(|(bytes, max)| bytes > max) {
            Some((bytes, bytes_max)) => Err(SchemaError::NamesTooLong { bytes, bytes_max }),
            None => Ok(()),
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
}

/// The schema files of a folder, sorted by name so that errors have one order on all systems.
fn files(folder: &Path) -> Result<Vec<PathBuf>, SchemaError> {
    let unreadable = |source| SchemaError::Unreadable {
        path: folder.into(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(SchemaError::TooManyFiles(folder.into()));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, SchemaError> {
    read_text(path, FILE_BYTES_MAX).map_err(|error| match error {
        ReadTextError::TooLong => SchemaError::TooLong(path.into()),
        ReadTextError::Unreadable(source) => SchemaError::Unreadable {
            path: path.into(),
            source,
        },
    })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
