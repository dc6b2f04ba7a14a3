//! The bytes that the signatures of solution and welcome cover (docs/PROTOCOL.md 3.4 and 3.5).

use keys::signing::signing_input;
use keys::{Context, Digest, OnionAddr};

use crate::messages::Solution;

/// Returns the digest of challenge and solution, both exactly as sent. The welcome's signature
/// covers it.
pub(super) fn transcript(challenge: &[u8], solution: &[u8]) -> Digest {
    Digest::of(&signing_input(Context::Transcript, &[challenge, solution]))
}

/// Passes to `use_parts` what a solution's signature covers: every other field, and the server's
/// onion key.
pub(super) fn with_solution_parts<R>(
    solution: &Solution,
    onion: &OnionAddr,
    use_parts: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    use_parts(&[
        &solution.cookie,
        &solution.sealed,
        solution.nonce.as_slice(),
        &[solution.extra_doublings],
        solution
            .ticket
            .as_ref()
            .map_or(&[], |ticket| ticket.as_slice()),
        &solution.claims,
        onion.public_key().as_bytes(),
    ])
}
