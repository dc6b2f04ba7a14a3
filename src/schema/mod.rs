//! App schemas: the types of an app, their attributes, and its sync domains, from one TOML file for
//! each app.
//!
//! An app is data, so that adding one takes no code. Numbers of types and attributes travel and are
//! signed, so they never change; names are for people. Invariant: in a
//! loaded [`Schemas`] every reference resolves, every name and number is unique in its table, and
//! there are at most 63 domains. Tested in `load_tests.rs` and `check.rs`.

mod check;
mod convert;
mod core_types;
mod digest;
mod founding;
pub mod identities;
mod load;
#[cfg(test)]
mod page_tests;
mod raw;
mod schemas;
mod types;
mod upgrade;

pub use check::SchemaViolation;
pub use digest::PeerSchema;
pub(crate) use load::KnownApps;
pub use load::SchemaError;
pub use schemas::Schemas;
pub use types::{AppSchema, AttrSchema, Kind, TypeSchema, Visibility};
pub use upgrade::{SchemaRefused, compare, parse_stored};
