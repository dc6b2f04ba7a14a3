//! Numbers that two nodes must share: with different values they disagree on what is valid.
//!
//! Each constant has a unit and a reason, and none is a configuration key. `docs/PROTOCOL.md` gives
//! the same values. This module imports nothing, so that every layer may use it.

/// Most key events (rotations) in a key chain.
///
/// Allows one rotation a month for more than two years. At about 140 bytes each, 32 events leave
/// space for the rest of a frame before admission. Each event costs its receiver one signature
/// check.
pub const KEY_EVENTS_MAX: usize = 32;

/// Version of the protocol. The context strings of what lasts for a session at most name it
/// (`postern/1/...`).
pub const PROTOCOL_VERSION: u64 = 1;

/// Version of what is stored and signed: objects, keys, homes, epochs, schemas. Their context
/// strings name it, so that a later protocol reads the objects of this one.
pub const OBJECT_FORMAT: u64 = 1;

/// Virtual port of every node's onion service. No socket of the host listens on it.
pub const ONION_PORT: u16 = 1984;

/// Version of the package format.
pub const PACKAGE_VERSION: u32 = 1;

/// Length of a puzzle's nonce, in bytes.
pub const NONCE_BYTES: usize = 16;

/// Longest frame before admission, in bytes: a solution that presents eight identities fits.
pub const UNADMITTED_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Longest frame after admission, in bytes: a package of the largest size and its envelope fit.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Most protocol versions in the first message of a client.
pub const VERSIONS_MAX: usize = 16;

/// Most features in one list.
pub const FEATURES_MAX: usize = 16;

/// Longest name of a feature, in bytes.
pub const FEATURE_BYTES_MAX: usize = 32;

/// Highest version of an app's schema, so that the next version is a number of 32 bits too.
pub const SCHEMA_VERSION_MAX: u32 = u32::MAX - 1;

/// Longest encoding of a cookie, in bytes. A client returns it beside its claims, in one frame.
pub const COOKIE_BYTES_MAX: usize = 192;

/// Longest sealed part of a challenge, in bytes. A client returns it as the cookie. This
/// implementation sends 44 bytes.
pub const SEALED_BYTES_MAX: usize = 256;

/// Most doublings of the effort that a client may add to a cookie's.
pub const EXTRA_DOUBLINGS_MAX: u8 = 4;

/// Longest ticket, in bytes. A client returns it beside its claims, in one frame.
pub const TICKET_BYTES_MAX: usize = 256;

/// Longest name of an app or a sync domain, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest code of a refusal or of the end of a session, in bytes.
pub const CODE_BYTES_MAX: usize = 64;

/// Longest message of a session, in bytes: a package of the largest size and 64 bytes around it.
pub const SESSION_MESSAGE_BYTES_MAX: usize = PACKAGE_BYTES_MAX + 64;

/// Most identities in the claims of a handshake: they fit a frame before admission. Further ones
/// are exchanged by sync.
pub const CLAIMED_IDENTITIES_MAX: usize = 8;

/// Most apps in the claims of a handshake.
pub const CLAIMED_APPS_MAX: usize = 64;

/// Most sync domains in the claims of a handshake: one more than the bits of `sync_flags`.
pub const CLAIMED_DOMAINS_MAX: usize = 64;

/// Longest list of features that this version offers, in bytes of its encoding.
pub const OFFERED_FEATURES_BYTES_MAX: usize = 64;

/// Longest lists of apps and of sync domains of a node together, in bytes of their encoding. Beside
/// them a `solution` holds the longest key chain, cookie, sealed part and ticket, and the offered
/// features.
pub const SOLUTION_NAMES_BYTES_MAX: usize = 1_636;

/// Longest lists of apps and of sync domains of a node together, in bytes of their encoding, where
/// the domains count twice. A `welcome` repeats the domains and the features.
pub const WELCOME_NAMES_BYTES_MAX: usize = 1_972;

/// Most `epoch` and `heard` messages of one side in one session. They do not count as requests, and
/// an honest node sends at most five.
pub const EPOCH_MESSAGES_MAX: u64 = 32;

/// Longest time that a pull may wait for changes, in seconds. A peer answers a longer one after
/// this time.
pub const PULL_WAIT_S_MAX: u64 = 60;

/// Most domains that one `watch` names.
pub const WATCH_CURSORS_MAX: usize = 64;

/// Most scopes that a package names, and most that a pull requests again.
pub const SCOPES_NAMED_MAX: usize = 1024;

/// Most stubs of a package, and most objects that a `fetch` names.
pub const STUBS_MAX: usize = 1024;

/// Most address records of one reply to `introduce`.
pub const ADDRESS_RECORDS_MAX: usize = 64;

/// Most objects and scopes that a `receipt` names in all.
pub const RECEIPT_OIDS_MAX: usize = 1024;

/// Longest package, in bytes, envelope included. The message around the package fits the rest of a
/// frame of [`FRAME_BYTES_MAX`].
pub const PACKAGE_BYTES_MAX: usize = 960 * 1024;

/// Most objects of a package, and so of a change group, which is never split.
///
/// 4,096 objects of 200 bytes fill a package.
pub const PACKAGE_OBJECTS_MAX: usize = 4096;

/// Longest object, in bytes of its CBOR encoding: any written message fits.
pub const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// Longest encoding of an identity's key chain, and of its home record, that is decoded, in bytes.
/// The schema of the app `identities` allows less: 8,192 and 8,704 bytes.
pub const IDENTITY_PART_BYTES_MAX: usize = 16 * 1024;

/// Most attrs of one object: more than any built-in type allows.
pub const OBJECT_ATTRS_MAX: usize = 256;

/// Lowest number of a core type. Core types exist in every app, and no schema file declares one.
pub const CORE_TYPES_FROM: u16 = 65_280;

/// Core type of a rights list.
pub const RIGHTS_TYPE: u16 = 65_535;

/// Core type of a `leave`: an identity ends its own right to read a scope.
pub const LEAVE_TYPE: u16 = 65_534;

/// Core type of an `accept`: an identity takes part in a scope that another identity founded.
pub const ACCEPT_TYPE: u16 = 65_533;

/// Most entries of a rights list. One change of a list writes as many rows.
pub const RIGHTS_ENTRIES_MAX: usize = 256;

/// Most lists that a rights list merges besides the one that it replaces. Each restore of a backup
/// adds one at most, until the owner's node merges them.
pub const RIGHTS_MERGED_MAX: usize = 7;

/// Bytes that a package's envelope and the message around it need in a frame at most.
const ENVELOPE_BYTES: usize = 4096;

// A frame holds the largest package. A package holds two of the largest objects, because the
// largest change group is a conversation with its first message.
const _: () = assert!(SESSION_MESSAGE_BYTES_MAX + ENVELOPE_BYTES <= FRAME_BYTES_MAX);
const _: () = assert!(2 * OBJECT_BYTES_MAX + ENVELOPE_BYTES <= PACKAGE_BYTES_MAX);
