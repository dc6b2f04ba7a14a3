//! Whether a schema file may replace the one with which the database was used last.
//!
//! Invariants: stored objects, and objects of peers with the earlier file, stay valid. No cursor of
//! a peer passes a row that the peer now lacks. All differences that break this are reported at
//! once. Tested in `upgrade_tests.rs` and `upgrade_property_tests.rs`.

use std::fmt;
use std::path::Path;

use super::convert::parse;
use super::types::{AppSchema, AttrSchema, TypeSchema};
use crate::domain::{SYNC_DOMAINS_MAX, SyncDomain};

/// Why a database cannot be used with a schema. The app's developer or the operator must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRefused {
    /// The schema makes changes that are not additive.
    #[error("the schema of the app `{slug}` cannot replace the stored one:{}", lines(.refusals))]
    Differs {
        /// The app.
        slug: String,
        /// Each refused difference, in the order of the stored schema.
        refusals: Vec<Difference>,
    },
    /// Fewer domains are left than the app needs, because a database never reuses a domain's bit.
    #[error(
        "the app `{slug}` needs {new} new sync domains, but this database and other enabled apps \
         use {used} of {SYNC_DOMAINS_MAX} ({} left): put more types into one domain of its schema, \
         or remove an app with new domains from `node.apps`; domains of disabled apps stay used",
        SYNC_DOMAINS_MAX.saturating_sub(*used)
    )]
    TooManyDomains {
        /// The app.
        slug: String,
        /// Its domains that the database lacks.
        new: usize,
        /// Domains of the database, and new ones of other apps.
        used: usize,
    },
}

/// One difference that is refused, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SchemaRefused {
    /// The refusal of a file with a lower version than the stored one, if the file is one.
    pub fn of_version(slug: &str, stored: u32, file: u32) -> Option<Self> {
        (file < stored).then(|| Self::Differs {
            slug: slug.to_owned(),
            refusals: vec![Difference(format!(
                "version {file} is lower than {stored}, with which this database was used: install \
                 the later file"
            ))],
        })
    }

    /// The refusal of an app with `new` domains where `used` are used, if there are too many.
    pub fn of_domains(slug: &str, new: usize, used: usize) -> Option<Self> {
        (new > 0 && used + new > SYNC_DOMAINS_MAX).then(|| Self::TooManyDomains {
            slug: slug.to_owned(),
            new,
            used,
        })
    }

    /// Each refused difference, in the order of the stored schema.
    pub fn refusals(&self) -> &[Difference] {
        match self {
            Self::Differs { refusals, .. } => refusals,
            Self::TooManyDomains { .. } => &[],
        }
    }
}

fn lines(refusals: &[Difference]) -> String {
    refusals.iter().map(|it| format!("\n  {it}")).collect()
}

/// Reads the text of a schema that a database stores. `None`: this program cannot read it.
pub fn parse_stored(text: &str) -> Option<AppSchema> {
    parse(Path::new("the stored schema"), text).ok()
}

/// Compares the schema that is stored with the one of a file.
///
/// # Errors
/// The file has a lower version, its version is the same although something differs, or it makes
/// a change that is not additive.
pub fn compare(stored: &AppSchema, file: &AppSchema) -> Result<(), SchemaRefused> {
    let slug = &stored.slug;
    if let Some(refused) = SchemaRefused::of_version(slug, stored.version, file.version) {
        return Err(refused);
    }
    let mut refusals = Differences(Vec::new());
    for it in &stored.types {
        match file.type_(it.number) {
            Some(new) if new.name == it.name => refusals.type_(it, new),
            _ => refusals.missing(&format!("type number {}", it.number), &it.name),
        }
    }
    for it in &stored.domains {
        match file.domains.iter().find(|new| new.name == it.name) {
            Some(new) => refusals.domain(stored, it, new),
            None => refusals.note(
                &it.name,
                "the domain is gone, and peers have cursors in it: restore it",
            ),
        }
    }
    if stored.version == file.version && !is_same(stored, file) {
        let next = stored.version.saturating_add(1);
        refusals.0.push(Difference(format!(
            "version {} was used with another text: raise `version` to {next}",
            stored.version
        )));
    }
    match refusals.0 {
        refusals if refusals.is_empty() => Ok(()),
        refusals => Err(SchemaRefused::Differs {
            slug: slug.clone(),
            refusals,
        }),
    }
}

/// Whether two schemas differ at most in comments, in the order of entries and in the version.
fn is_same(one: &AppSchema, other: &AppSchema) -> bool {
    let has = |of: &AppSchema, domain| of.domains.contains(domain);
    one.types == other.types
        && one.domains.len() == other.domains.len()
        && one.domains.iter().all(|domain| has(other, domain))
}

struct Differences(Vec<Difference>);

impl Differences {
    fn note(&mut self, name: &str, why: &str) {
        self.0.push(Difference(format!("`{name}`: {why}")));
    }

    fn missing(&mut self, number: &str, name: &str) {
        self.0.push(Difference(format!(
            "{number} was `{name}`; a number is never removed or reused: restore it, and take a \
             new number for anything else"
        )));
    }

    fn type_(&mut self, stored: &TypeSchema, file: &TypeSchema) {
        if stored.visibility != file.visibility {
            self.note(
                &stored.name,
                "the visibility differs, and who reads stored objects cannot change: add a type",
            );
        }
        for it in &stored.attrs {
            let name = stored.attr_full_name(it);
            match file.attr(it.number) {
                Some(new) if new.name == it.name || new.renamed_from.as_ref() == Some(&it.name) => {
                    self.attr(&name, it, new);
                }
                _ => self.missing(&format!("attribute number {}", it.number), &name),
            }
        }
        let added = file.attrs.iter();
        for it in added.filter(|it| stored.attr(it.number).is_none() && it.min > 0) {
            let name = file.attr_full_name(it);
            self.note(&name, "stored objects lack it: set min = 0");
        }
    }

    fn attr(&mut self, name: &str, stored: &AttrSchema, file: &AttrSchema) {
        if stored.kind != file.kind {
            let why = "the kind differs, and stored values have another kind: add an attribute";
            return self.note(name, why);
        }
        for (key, is_narrower, before) in [
            ("min", file.min > stored.min, stored.min),
            ("max", file.max < stored.max, stored.max),
            (
                "bytes_max",
                file.bytes_max < stored.bytes_max,
                stored.bytes_max,
            ),
        ] {
            if is_narrower {
                let why = format!("stored values may not fit: restore {key} = {before}");
                self.note(name, &why);
            }
        }
    }

    fn domain(&mut self, app: &AppSchema, stored: &SyncDomain, file: &SyncDomain) {
        let name = &stored.name;
        if stored.mode != file.mode {
            let why =
                "the mode differs, and peers would judge stored objects otherwise: restore it";
            self.note(name, why);
        }
        let existing = app.types.iter();
        for it in existing.filter(|it| file.has_type(it.number) && !stored.has_type(it.number)) {
            let why = format!(
                "the domain contains `{}` now, and peers have passed its objects: add a domain",
                it.name
            );
            self.note(name, &why);
        }
        for number in stored.types.iter().filter(|it| !file.has_type(**it)) {
            let gone = app.type_(*number).map_or("", |it| it.name.as_str());
            let why = format!("peers would no longer receive `{gone}`: restore it in the domain");
            self.note(name, &why);
        }
    }
}

#[cfg(test)]
#[path = "upgrade_property_tests.rs"]
mod property_tests;
#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
