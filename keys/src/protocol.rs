//! Numbers that two nodes must share: with different values they disagree on what is valid.
//!
//! Each constant has a unit and a reason, and none is a configuration key. `docs/PROTOCOL.md` gives
//! the same values. This module imports nothing, so that every layer may use it.

/// Most key events (rotations) in a key chain.
///
/// Allows one rotation a month for more than two years. At about 140 bytes each, 32 events leave
/// space for the rest of a handshake frame. Each event costs its receiver one signature check.
pub const KEY_EVENTS_MAX: usize = 32;

/// Longest frame before admission, in bytes: a solution that presents eight identities fits.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Longest frame after admission, in bytes: a package of the largest size and its envelope fit.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Longest object, in bytes of its CBOR encoding: any written message fits.
pub const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// Most attrs of one object: more than any built-in type allows.
pub const OBJECT_ATTRS_MAX: usize = 256;
