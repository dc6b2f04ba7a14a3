//! The model of a loaded app schema: apps, types, attributes and visibilities, as plain values.
//!
//! `load` makes them from files and checks them. `check` compares objects with them.

use std::sync::Arc;

use crate::domain::SyncDomain;

/// The kind of value that an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// A signed integer of 64 bits.
    Integer,
    /// JSON text.
    Json,
    /// Bytes without a structure that the node knows.
    Bytes,
    /// A reference to a Parent of the same app, by its oid. Unless it decides the scope, the Parent
    /// may be missing.
    Parent {
        /// Number of the type that the Parent must have.
        type_number: u16,
    },
    /// The oid of an identity.
    Identity,
}

/// One attribute of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttrSchema {
    /// Its number within the type, which never changes.
    pub number: u16,
    /// Its name within the type, such as `body`.
    pub name: String,
    /// Its name in earlier versions of the schema, if it had another one.
    pub renamed_from: Option<String>,
    /// The kind of its values.
    pub kind: Kind,
    /// Fewest values in one object.
    pub min: u32,
    /// Most values in one object.
    pub max: u32,
    /// Longest value in bytes: 8 for integers, 16 for references and identities.
    pub bytes_max: u32,
}

/// Which identities may read the objects of a type, and who may write in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// The identities of every peer that takes the domain.
    Public,
    /// The identities in an attribute of the object, which is its own scope.
    ParticipantsHere {
        /// Number of the attribute.
        attr: u16,
    },
    /// The readers of the Parent to which an attribute refers. That Parent is the scope.
    Participants {
        /// Number of the attribute.
        through: u16,
    },
    /// The readers of the scope that the place of the object names: core types only.
    Within,
    /// The owner, and the identity in an attribute.
    OwnerAndSubject {
        /// Number of the attribute.
        subject: u16,
    },
    /// No peer: the objects never leave this node.
    Local,
}

/// One type of Parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSchema {
    /// Its number within the app, which never changes.
    pub number: u16,
    /// Its full name, such as `messages.message`.
    pub name: String,
    /// Its attributes, sorted by number.
    pub attrs: Vec<AttrSchema>,
    /// Which identities may read its objects.
    pub visibility: Visibility,
}

/// One app.
#[derive(Debug, Clone)]
pub struct AppSchema {
    /// Its name on the wire and in the names of SQL tables.
    pub slug: String,
    /// Version of the schema file, raised by the app's developer with each change.
    pub version: u32,
    /// Its types, sorted by number.
    pub types: Vec<TypeSchema>,
    /// Its sync domains, in the order of the file.
    pub domains: Vec<SyncDomain>,
    /// The text of the file, which a database stores.
    pub text: Arc<str>,
}

/// Without the text, which may differ in comments.
impl PartialEq for AppSchema {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            slug,
            version,
            types,
            domains,
            text: _,
        } = self;
        (slug, version, types, domains)
            == (&other.slug, &other.version, &other.types, &other.domains)
    }
}

impl Eq for AppSchema {}

impl TypeSchema {
    /// The attribute with that number.
    pub fn attr(&self, number: u16) -> Option<&AttrSchema> {
        let index = self
            .attrs
            .binary_search_by_key(&number, |attr| attr.number)
            .ok()?;
        self.attrs.get(index)
    }

    /// The attribute with that name within the type, such as `body`.
    pub fn attr_named(&self, name: &str) -> Option<&AttrSchema> {
        self.attrs.iter().find(|attr| attr.name == name)
    }

    /// The full name of an attribute, such as `messages.message.body` (docs/STORY.md).
    pub fn attr_full_name(&self, attr: &AttrSchema) -> String {
        format!("{}.{}", self.name, attr.name)
    }
}

impl AppSchema {
    /// The type with that number.
    pub fn type_(&self, number: u16) -> Option<&TypeSchema> {
        let index = self
            .types
            .binary_search_by_key(&number, |it| it.number)
            .ok()?;
        self.types.get(index)
    }

    /// The type of the Parent that is the scope of objects of a type. This type, or the one to
    /// which its reference leads; the loader refuses longer chains. `None`: public or local
    /// objects.
    pub fn scope_type(&self, type_number: u16) -> Option<u16> {
        let it = self.type_(type_number)?;
        match it.visibility {
            Visibility::Public | Visibility::Local | Visibility::Within => None,
            Visibility::ParticipantsHere { .. } | Visibility::OwnerAndSubject { .. } => {
                Some(type_number)
            }
            Visibility::Participants { through } => match it.attr(through)?.kind {
                Kind::Parent { type_number } => Some(type_number),
                _ => None,
            },
        }
    }

    /// The sync domains in which objects of a type travel.
    pub fn domains_of(&self, type_number: u16) -> impl Iterator<Item = &SyncDomain> {
        self.domains
            .iter()
            .filter(move |domain| domain.has_type(type_number))
    }
}
