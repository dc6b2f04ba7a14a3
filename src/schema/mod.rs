//! App schemas: the types of an app, their attributes, and its sync domains, all from one TOML file per app.
//!
//! An app is data: adding one takes no code. Numbers of types and attributes go on the wire and into signed bytes, so
//! they stay for ever and names are for people. Never touches SQL or the network. Invariant: in a loaded [`Schemas`]
//! every reference resolves, every name and number is unique in its place, and there are at most 63 domains.

mod check;
pub mod identities;
mod load;
mod raw;

use std::collections::BTreeMap;

pub use check::SchemaViolation;
pub use load::SchemaError;

use crate::domain::SyncDomain;

/// What one attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// A signed integer of 64 bits.
    Integer,
    /// JSON text.
    Json,
    /// Bytes.
    Bytes,
    /// A reference to a Parent of that type of the same app, by its oid (`value_parent_id` in SQL).
    Parent {
        /// The type's number.
        type_number: u16,
    },
    /// An identity's oid.
    Identity,
}

/// One attribute of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttrSchema {
    /// Its number within the type, for ever.
    pub number: u16,
    /// Its name within the type, such as `body`.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Fewest values of one object.
    pub min: u32,
    /// Most values of one object.
    pub max: u32,
    /// Longest value in bytes: 8 for integers, 16 for references and identities.
    pub bytes_max: u32,
}

/// Who may read the objects of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody who takes the domain.
    Public,
    /// The identities in that attribute of the object itself, which is its own scope.
    ParticipantsHere {
        /// The attribute's number.
        attr: u16,
    },
    /// The readers of the Parent that this attribute refers to, which is the scope.
    Participants {
        /// The attribute's number.
        through: u16,
    },
    /// The owner and the identity in that attribute.
    OwnerAndSubject {
        /// The attribute's number.
        subject: u16,
    },
    /// Nobody: never leaves this node.
    Local,
}

/// One type of Parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSchema {
    /// Its number within the app, for ever.
    pub number: u16,
    /// Its full name, such as `messages.message`.
    pub name: String,
    /// Its attributes, sorted by number.
    pub attrs: Vec<AttrSchema>,
    /// Who may read.
    pub visibility: Visibility,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSchema {
    /// Its name on the wire and in SQL table names.
    pub slug: String,
    /// Raised by the app's developer with each change of the file.
    pub version: u32,
    /// Its types, sorted by number.
    pub types: Vec<TypeSchema>,
    /// Its sync domains, in the file's order.
    pub domains: Vec<SyncDomain>,
}

/// The apps that are turned on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schemas {
    apps: BTreeMap<String, AppSchema>,
}

impl TypeSchema {
    /// The attribute of that number.
    pub fn attr(&self, number: u16) -> Option<&AttrSchema> {
        let place = self
            .attrs
            .binary_search_by_key(&number, |attr| attr.number)
            .ok()?;
        self.attrs.get(place)
    }

    /// The attribute of that name within the type, such as `body`.
    pub fn attr_named(&self, name: &str) -> Option<&AttrSchema> {
        self.attrs.iter().find(|attr| attr.name == name)
    }

    /// An attribute's full name, as SEED writes it: `messages.message.body`.
    pub fn attr_full_name(&self, attr: &AttrSchema) -> String {
        format!("{}.{}", self.name, attr.name)
    }
}

impl AppSchema {
    /// The type of that number.
    pub fn type_(&self, number: u16) -> Option<&TypeSchema> {
        let place = self
            .types
            .binary_search_by_key(&number, |it| it.number)
            .ok()?;
        self.types.get(place)
    }

    /// The sync domains in which a type's objects travel.
    pub fn domains_of(&self, type_number: u16) -> impl Iterator<Item = &SyncDomain> {
        self.domains
            .iter()
            .filter(move |domain| domain.has_type(type_number))
    }
}

impl Schemas {
    /// The apps, sorted by slug.
    pub fn apps(&self) -> impl Iterator<Item = &AppSchema> {
        self.apps.values()
    }

    /// The app of that slug, if it is turned on.
    pub fn app(&self, slug: &str) -> Option<&AppSchema> {
        self.apps.get(slug)
    }

    /// A type by its app and number.
    pub fn type_(&self, slug: &str, number: u16) -> Option<&TypeSchema> {
        self.app(slug)?.type_(number)
    }

    /// A type by its full name, such as `messages.message`, with its app.
    pub fn type_named(&self, name: &str) -> Option<(&AppSchema, &TypeSchema)> {
        let (slug, _) = name.split_once('.')?;
        let app = self.app(slug)?;
        Some((app, app.types.iter().find(|it| it.name == name)?))
    }

    /// the story's `SYNC_DOMAINS`: all domains of the apps that are turned on, app by app.
    #[doc(alias = "SYNC_DOMAINS")]
    pub fn sync_domains(&self) -> impl Iterator<Item = &SyncDomain> {
        self.apps().flat_map(|app| &app.domains)
    }

    /// The first domain in which objects of a type travel.
    pub fn domain_of(&self, slug: &str, type_number: u16) -> Option<&SyncDomain> {
        self.app(slug)?.domains_of(type_number).next()
    }

    /// The domain of that name.
    pub fn domain(&self, name: &str) -> Option<&SyncDomain> {
        self.sync_domains().find(|domain| domain.name == name)
    }
}
