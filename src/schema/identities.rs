//! Names and numbers of the built-in app `identities`, whose objects the node itself interprets.
//!
//! Constants only. A test in `src/schema/load_tests.rs` compares the numbers with the schema file.

/// The app's slug. Every node needs this app: its objects name owners, readers and homes.
pub const APP: &str = "identities";
/// The app's sync domain.
pub const DOMAIN: &str = "identities";
/// Type `identities.identity`.
pub const IDENTITY: u16 = 1;
/// Type `identities.server`: the server identity of this node or of a peer. Never leaves the node.
pub const SERVER: u16 = 2;
/// Attribute `public_key` of both types: the current key.
pub const PUBLIC_KEY: u16 = 1;
/// Attribute `chain` of both types: the key chain in canonical CBOR.
pub const CHAIN: u16 = 2;
/// Attribute `home` of an identity: the home record in canonical CBOR.
pub const HOME: u16 = 3;
/// Attribute `name` of an identity.
pub const NAME: u16 = 4;
/// Attribute `listed` of an identity: 0 keeps the identity out of the sync domain.
pub const LISTED: u16 = 5;
/// Attribute `retired` of an identity: 1 means that its owner writes no more objects.
pub const RETIRED: u16 = 6;
