//! Schema files to [`Schemas`]: built-in apps from the program, own apps from a folder.
//!
//! Every fault names file, line, key and, where there is one, the nearest right word. Never takes a file in part.
//! An own app that is not turned on is checked all the same, so that it does not fail on the day when it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::raw::{Name, RawApp, RawAttr, RawDomain, RawKind, RawType, RawVisibility};
use super::{AppSchema, AttrSchema, Kind, Schemas, TypeSchema, Visibility, identities};
use crate::domain::{SYNC_DOMAINS_MAX, SyncDomain};
use crate::toml_file::{Problems, ReadTextError, TomlFile, nearest, read_text};

/// Longest schema file; the built-in ones are below 2 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most files in the folder.
const FILES_MAX: usize = 63;
/// Most types of one app, and most attributes of one type.
const TYPES_MAX: usize = 64;
const ATTRS_MAX: usize = 64;
/// Most values of one attribute; below what an object may hold in all.
const VALUES_MAX: u32 = 256;
/// Longest value; an object's own limit is the config's.
const VALUE_BYTES_MAX: u32 = 1024 * 1024;
/// Longest word in a name: an SQL table's name is made of one.
const WORD_BYTES_MAX: usize = 32;

const BUILT_IN: [(&str, &str); 5] = [
    ("contacts", include_str!("apps/contacts.toml")),
    (identities::APP, include_str!("apps/identities.toml")),
    ("market", include_str!("apps/market.toml")),
    ("messages", include_str!("apps/messages.toml")),
    ("rides", include_str!("apps/rides.toml")),
];

/// Why schemas were not loaded. The operator or the app's developer is to act.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A file is wrong.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// A file or the folder cannot be read.
    #[error("{path}: cannot read it")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file is too long to be a schema.
    #[error("{0}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// The folder holds too many files.
    #[error("{0}: more than {FILES_MAX} schema files")]
    TooManyFiles(PathBuf),
    /// Two files define the same app, or one defines a built-in app anew.
    #[error("{file}: the app `{slug}` is there already")]
    AppTwice {
        /// The second file.
        file: PathBuf,
        /// The app.
        slug: String,
    },
    /// An app that is turned on, but not there.
    #[error("there is no app `{slug}`{}", .suggestion.as_ref().map(|it| format!("; did you mean `{it}`?")).unwrap_or_default())]
    UnknownApp {
        /// The app asked for.
        slug: String,
        /// The nearest app that is there.
        suggestion: Option<String>,
    },
    /// Every node needs this one.
    #[error(
        "the app `{}` must be enabled because all other apps need it",
        identities::APP
    )]
    NoIdentities,
    /// More domains than `sync_flags` has bits.
    #[error("{0} sync domains are turned on, at most {SYNC_DOMAINS_MAX} are possible")]
    TooManyDomains(usize),
}

impl Schemas {
    /// Loads the apps of these slugs, built in or from `*.toml` in the folder. All files in the folder are checked.
    pub fn load(enabled: &[String], folder: Option<&Path>) -> Result<Self, SchemaError> {
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
        if let Some(slug) = enabled.iter().find(|slug| !known.contains_key(*slug)) {
            let suggestion = nearest(slug, known.keys().map(String::as_str)).map(str::to_owned);
            let slug = slug.clone();
            return Err(SchemaError::UnknownApp { slug, suggestion });
        }
        known.retain(|slug, _| enabled.contains(slug));
        if !known.contains_key(identities::APP) {
            return Err(SchemaError::NoIdentities);
        }
        let schemas = Self { apps: known };
        match schemas.sync_domains().count() {
            0..=SYNC_DOMAINS_MAX => Ok(schemas),
            count => Err(SchemaError::TooManyDomains(count)),
        }
    }

    /// Slugs of the built-in apps, sorted.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(slug, _)| *slug)
    }
}

/// The folder's schema files, sorted by name so that errors come in the same order everywhere.
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

/// Why the key `writers` of a domain is refused.
const WRITERS_REMOVED: &str =
    "this key was removed; take it out (the visibility of a type decides who may write)";

/// One file's app, checked.
fn parse(path: &Path, text: &str) -> Result<AppSchema, Problems> {
    let mut file = TomlFile::parse(path, text);
    file.refuse_removed("domain", "writers", WRITERS_REMOVED);
    let raw = file.read::<RawApp>().filter(|_| !file.has_problems());
    let Some(raw) = raw else {
        return file.finish(None);
    };
    let mut loader = Loader { file, raw: &raw };
    let app = loader.app();
    loader.file.finish(app)
}

struct Loader<'a> {
    file: TomlFile<'a>,
    raw: &'a RawApp,
}

/// Notes what is wrong and goes on, so that one run names all; `None` stands for what could not be resolved.
impl<'a> Loader<'a> {
    fn note<T>(&mut self, at: &Spanned<T>, message: String) {
        self.file.note(at.span().start, message, None);
    }

    fn app(&mut self) -> Option<AppSchema> {
        let raw = self.raw;
        if !is_word(raw.slug.get_ref()) {
            self.note(
                &raw.slug,
                format!("`{}` is no slug: {WORD_RULE}", raw.slug.get_ref()),
            );
        }
        if *raw.version.get_ref() == 0 {
            self.note(&raw.version, "versions begin with 1".into());
        }
        self.unique("type name", raw.types.iter().map(|it| &it.name));
        self.unique("type number", raw.types.iter().map(|it| &it.number));
        self.unique("domain", raw.domains.iter().map(|it| &it.name));
        if raw.types.is_empty() || raw.types.len() > TYPES_MAX {
            self.note(&raw.slug, format!("an app has 1 to {TYPES_MAX} types"));
        }
        let mut types: Vec<_> = raw.types.iter().filter_map(|it| self.type_(it)).collect();
        let domains: Vec<_> = raw
            .domains
            .iter()
            .filter_map(|it| self.domain(it))
            .collect();
        for it in &raw.types {
            let local = matches!(it.visibility, RawVisibility::Local);
            let names = raw.domains.iter().flat_map(|domain| &domain.parent_types);
            if !local
                && !names
                    .into_iter()
                    .any(|name| name.get_ref() == it.name.get_ref())
            {
                let name = it.name.get_ref();
                self.note(
                    &it.name,
                    format!("`{name}` is in no domain; make it local if it is never to leave"),
                );
            }
        }
        types.sort_by_key(|it| it.number);
        Some(AppSchema {
            slug: raw.slug.get_ref().clone(),
            version: *raw.version.get_ref(),
            types,
            domains,
        })
    }

    fn type_(&mut self, raw: &RawType) -> Option<TypeSchema> {
        let slug = self.raw.slug.get_ref();
        let name = raw.name.get_ref();
        if !name
            .strip_prefix(slug.as_str())
            .and_then(|it| it.strip_prefix('.'))
            .is_some_and(is_word)
        {
            self.note(
                &raw.name,
                format!("`{name}` must be `{slug}.` and a word: {WORD_RULE}"),
            );
        }
        self.numbered(&raw.number);
        self.unique("attribute name", raw.attrs.iter().map(|it| &it.name));
        self.unique("attribute number", raw.attrs.iter().map(|it| &it.number));
        if raw.attrs.is_empty() || raw.attrs.len() > ATTRS_MAX {
            self.note(&raw.name, format!("a type has 1 to {ATTRS_MAX} attributes"));
        }
        let mut attrs: Vec<_> = raw.attrs.iter().filter_map(|it| self.attr(it)).collect();
        attrs.sort_by_key(|it| it.number);
        Some(TypeSchema {
            number: *raw.number.get_ref(),
            name: name.clone(),
            attrs,
            visibility: self.visibility(raw)?,
        })
    }

    fn attr(&mut self, raw: &RawAttr) -> Option<AttrSchema> {
        let name = raw.name.get_ref();
        if !is_word(name) {
            self.note(&raw.name, format!("`{name}` is no name: {WORD_RULE}"));
        }
        self.numbered(&raw.number);
        if raw.max == 0 || raw.max > VALUES_MAX || raw.min > raw.max {
            self.note(
                &raw.name,
                format!(
                    "`{name}` has {} to {} values; possible are 0 <= min <= max, 1 <= max <= {VALUES_MAX}",
                    raw.min, raw.max
                ),
            );
        }
        let (kind, fixed) = match &raw.kind {
            RawKind::Text => (Kind::Text, None),
            RawKind::Json => (Kind::Json, None),
            RawKind::Bytes => (Kind::Bytes, None),
            RawKind::Integer => (Kind::Integer, Some(8)),
            RawKind::Identity => (Kind::Identity, Some(16)),
            RawKind::Parent(of) => {
                let type_number = *self.raw_type(of)?.number.get_ref();
                (Kind::Parent { type_number }, Some(16))
            }
        };
        let bytes_max = match (fixed, &raw.bytes_max) {
            (Some(fixed), None) => fixed,
            (Some(fixed), Some(given)) => {
                self.note(
                    given,
                    format!("`{name}` has {fixed} bytes always; take bytes_max out"),
                );
                fixed
            }
            (None, Some(given)) => {
                if !(1..=VALUE_BYTES_MAX).contains(given.get_ref()) {
                    self.note(
                        given,
                        format!("bytes_max of `{name}` must be 1 to {VALUE_BYTES_MAX}"),
                    );
                }
                *given.get_ref()
            }
            (None, None) => {
                self.note(&raw.name, format!("`{name}` needs bytes_max"));
                return None;
            }
        };
        Some(AttrSchema {
            number: *raw.number.get_ref(),
            name: name.clone(),
            kind,
            min: raw.min,
            max: raw.max,
            bytes_max,
        })
    }

    fn visibility(&mut self, raw: &RawType) -> Option<Visibility> {
        Some(match &raw.visibility {
            RawVisibility::Public => Visibility::Public,
            RawVisibility::Local => Visibility::Local,
            RawVisibility::ParticipantsHere(name) => {
                let attr = self.raw_attr(raw, name)?;
                if !matches!(attr.kind, RawKind::Identity) {
                    self.note(
                        name,
                        format!(
                            "`{}` must be of kind identity to name readers",
                            name.get_ref()
                        ),
                    );
                }
                Visibility::ParticipantsHere {
                    attr: *attr.number.get_ref(),
                }
            }
            RawVisibility::OwnerAndSubject(name) => {
                let attr = self.raw_attr(raw, name)?;
                if !matches!(attr.kind, RawKind::Identity) || (attr.min, attr.max) != (1, 1) {
                    self.note(
                        name,
                        format!(
                            "`{}` must be exactly one identity to be a subject",
                            name.get_ref()
                        ),
                    );
                }
                Visibility::OwnerAndSubject {
                    subject: *attr.number.get_ref(),
                }
            }
            RawVisibility::Participants(name) => {
                let attr = self.raw_attr(raw, name)?;
                let through = *attr.number.get_ref();
                let scope = match &attr.kind {
                    RawKind::Parent(of) if (attr.min, attr.max) == (1, 1) => self.raw_type(of)?,
                    _ => {
                        self.note(
                            name,
                            format!(
                                "`{}` must be exactly one reference to a Parent",
                                name.get_ref()
                            ),
                        );
                        return None;
                    }
                };
                if !matches!(scope.visibility, RawVisibility::ParticipantsHere(_)) {
                    self.note(
                        name,
                        format!("`{}` names no participants itself", scope.name.get_ref()),
                    );
                }
                Visibility::Participants { through }
            }
        })
    }

    fn domain(&mut self, raw: &RawDomain) -> Option<SyncDomain> {
        let (slug, name) = (self.raw.slug.get_ref(), raw.name.get_ref());
        let rest = name.strip_prefix(slug.as_str());
        if !rest.is_some_and(|it| it.is_empty() || it.strip_prefix('.').is_some_and(is_word)) {
            self.note(
                &raw.name,
                format!("`{name}` must be `{slug}`, or `{slug}.` and a word: {WORD_RULE}"),
            );
        }
        self.unique("type", raw.parent_types.iter());
        if raw.parent_types.is_empty() {
            self.note(&raw.name, format!("the domain `{name}` has no types"));
        }
        let mut types = Vec::new();
        for type_name in &raw.parent_types {
            let Some(it) = self.raw_type(type_name) else {
                continue;
            };
            types.push(*it.number.get_ref());
            if matches!(it.visibility, RawVisibility::Local) {
                self.note(
                    type_name,
                    format!("`{}` is local and never leaves", type_name.get_ref()),
                );
            }
        }
        types.sort_unstable();
        Some(SyncDomain {
            name: name.clone(),
            app: slug.clone(),
            types,
            mode: raw.mode,
        })
    }

    fn raw_type(&mut self, name: &Name) -> Option<&'a RawType> {
        let raw = self.raw;
        self.find(name, "type", &raw.types, |it| it.name.get_ref())
    }

    fn raw_attr<'r>(&mut self, raw: &'r RawType, name: &Name) -> Option<&'r RawAttr> {
        self.find(name, "attribute", &raw.attrs, |it| it.name.get_ref())
    }

    fn find<'r, T>(
        &mut self,
        name: &Name,
        what: &str,
        among: &'r [T],
        name_of: impl Fn(&T) -> &String,
    ) -> Option<&'r T> {
        let found = among.iter().find(|it| name_of(it) == name.get_ref());
        if found.is_none() {
            let suggestion = nearest(name.get_ref(), among.iter().map(|it| name_of(it).as_str()));
            let message = format!("there is no {what} `{}` here", name.get_ref());
            self.file
                .note(name.span().start, message, suggestion.map(str::to_owned));
        }
        found
    }

    fn numbered(&mut self, number: &Spanned<u16>) {
        if *number.get_ref() == 0 {
            self.note(number, "numbers begin with 1".into());
        }
    }

    fn unique<'r, T: Ord + std::fmt::Display + 'r>(
        &mut self,
        what: &str,
        values: impl Iterator<Item = &'r Spanned<T>>,
    ) {
        let mut seen = BTreeSet::new();
        for value in values {
            if !seen.insert(value.get_ref()) {
                self.note(
                    value,
                    format!("the {what} `{}` is there twice", value.get_ref()),
                );
            }
        }
    }
}

const WORD_RULE: &str =
    "a lower-case letter, then letters, digits and underscores, 32 in all at most";

/// Slugs and the parts of names: what SQL, file names and the wire all take without quoting.
fn is_word(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
