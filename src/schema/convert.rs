//! From a parsed schema file to an [`AppSchema`]: resolves names, and checks names, numbers and
//! bounds.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use keys::protocol::{CORE_TYPES_FROM, SCHEMA_VERSION_MAX};
use toml::Spanned;

use super::raw::{Name, RawApp, RawAttr, RawDomain, RawKind, RawType, RawVisibility};
use super::types::{AppSchema, AttrSchema, Kind, TypeSchema, Visibility};
use crate::domain::SyncDomain;
use crate::object::is_core_type;
use crate::toml_file::{Problems, TomlFile, nearest};

/// Most types of one app.
const TYPES_MAX: usize = 64;
/// Most attributes of one type.
const ATTRS_MAX: usize = 64;
/// Most values of one attribute. An object has a limit for all its values.
const VALUES_MAX: u32 = 256;
/// Longest value, in bytes. An object has a limit for all its bytes.
const VALUE_BYTES_MAX: u32 = 1024 * 1024;
/// Longest word in a name, in bytes. Names of SQL tables contain one.
const WORD_BYTES_MAX: usize = 32;
/// The grammar of words, for error messages.
const WORD_RULE: &str = "a lower-case letter, then lower-case letters, digits and underscores, \
                         at most 32 characters";
/// Why the key `writers` of a domain is refused.
const WRITERS_REMOVED: &str =
    "this key was removed; delete it, because the visibility of a type decides who may write";

/// Checks the text of a schema file. Reports all problems at once.
pub(super) fn parse(path: &Path, text: &str) -> Result<AppSchema, Problems> {
    let mut file = TomlFile::parse(path, text);
    file.refuse_removed("domain", "writers", WRITERS_REMOVED);
    let raw = file.read::<RawApp>().filter(|_| !file.has_problems());
    let Some(raw) = raw else {
        return file.finish(None);
    };
    let mut converter = Converter {
        file,
        raw: &raw,
        text,
    };
    let app = converter.app();
    converter.file.finish(app)
}

struct Converter<'a> {
    file: TomlFile<'a>,
    raw: &'a RawApp,
    text: &'a str,
}

/// Each method notes problems and continues, so that one run reports all. `None` means that a name
/// could not be resolved.
impl<'a> Converter<'a> {
    fn note<T>(&mut self, at: &Spanned<T>, message: String) {
        self.file.note(at.span().start, message, None);
    }

    fn app(&mut self) -> Option<AppSchema> {
        let raw = self.raw;
        if !is_word(raw.slug.get_ref()) {
            self.note(
                &raw.slug,
                format!("`{}` is not a valid slug: {WORD_RULE}", raw.slug.get_ref()),
            );
        }
        if !(1..=SCHEMA_VERSION_MAX).contains(raw.version.get_ref()) {
            let message = format!("the version must be 1 to {SCHEMA_VERSION_MAX}");
            self.note(&raw.version, message);
        }
        self.unique("type name", raw.types.iter().map(|it| &it.name));
        self.unique("type number", raw.types.iter().map(|it| &it.number));
        self.unique("domain", raw.domains.iter().map(|it| &it.name));
        if raw.types.is_empty() || raw.types.len() > TYPES_MAX {
            self.note(
                &raw.slug,
                format!("an app must have 1 to {TYPES_MAX} types"),
            );
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
                    format!(
                        "`{name}` belongs to no domain; \
                         give it the visibility `local` if it must not leave the node"
                    ),
                );
            }
        }
        types.sort_by_key(|it| it.number);
        self.modes(&domains);
        Some(AppSchema {
            slug: raw.slug.get_ref().clone(),
            version: *raw.version.get_ref(),
            types,
            domains,
            text: self.text.into(),
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
                format!("`{name}` must be `{slug}.` followed by a word: {WORD_RULE}"),
            );
        }
        self.numbered(&raw.number);
        if is_core_type(*raw.number.get_ref()) {
            let message = format!("type numbers from {CORE_TYPES_FROM} on belong to every app");
            self.note(&raw.number, message);
        }
        self.unique("attribute name", raw.attrs.iter().map(|it| &it.name));
        self.unique("attribute number", raw.attrs.iter().map(|it| &it.number));
        if raw.attrs.is_empty() || raw.attrs.len() > ATTRS_MAX {
            self.note(
                &raw.name,
                format!("a type must have 1 to {ATTRS_MAX} attributes"),
            );
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
            self.note(
                &raw.name,
                format!("`{name}` is not a valid name: {WORD_RULE}"),
            );
        }
        self.numbered(&raw.number);
        if raw.max == 0 || raw.max > VALUES_MAX || raw.min > raw.max {
            self.note(
                &raw.name,
                format!(
                    "`{name}` has min {} and max {}; \
                     0 <= min <= max and 1 <= max <= {VALUES_MAX} must hold",
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
                    format!("values of `{name}` always have {fixed} bytes; delete bytes_max"),
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
            renamed_from: raw.renamed_from.clone(),
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
                            "`{}` must have the kind identity, because it names readers",
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
                            "`{}` must hold exactly one identity, because it names the subject",
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
                                "`{}` must hold exactly one reference to a Parent",
                                name.get_ref()
                            ),
                        );
                        return None;
                    }
                };
                if !matches!(scope.visibility, RawVisibility::ParticipantsHere(_)) {
                    self.note(
                        name,
                        format!(
                            "the type `{}` does not name participants",
                            scope.name.get_ref()
                        ),
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
                format!("`{name}` must be `{slug}`, or `{slug}.` followed by a word: {WORD_RULE}"),
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
                    format!(
                        "`{}` is local, so that no domain can contain it",
                        type_name.get_ref()
                    ),
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

    /// The first domain of a type decides on its updates. Nodes that share different domains must
    /// decide alike.
    fn modes(&mut self, domains: &[SyncDomain]) {
        for (position, it) in domains.iter().enumerate() {
            let mut before = domains.iter().take(position);
            let shares = |other: &&SyncDomain| it.types.iter().any(|it| other.has_type(*it));
            let other = before.find(|other| other.mode != it.mode && shares(other));
            let raw = self
                .raw
                .domains
                .iter()
                .find(|raw| raw.name.get_ref() == &it.name);
            if let (Some(other), Some(raw)) = (other, raw) {
                let message = format!(
                    "all domains of a type must have one mode, and `{}` has another one",
                    other.name
                );
                self.note(&raw.name, message);
            }
        }
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
            let message = format!("there is no {what} `{}`", name.get_ref());
            self.file
                .note(name.span().start, message, suggestion.map(str::to_owned));
        }
        found
    }

    fn numbered(&mut self, number: &Spanned<u16>) {
        if *number.get_ref() == 0 {
            self.note(number, "numbers must be at least 1".into());
        }
    }

    fn unique<'r, T: Ord + Display + 'r>(
        &mut self,
        what: &str,
        values: impl Iterator<Item = &'r Spanned<T>>,
    ) {
        let mut seen = BTreeSet::new();
        for value in values {
            if !seen.insert(value.get_ref()) {
                self.note(
                    value,
                    format!("the {what} `{}` is used twice", value.get_ref()),
                );
            }
        }
    }
}

/// Whether a text may be a slug or a part of a name: SQL, file names and the wire format need no
/// quotes for it.
fn is_word(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
