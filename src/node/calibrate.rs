//! The cost of the key derivation that opens a vault, measured on the machine that has to pay it.
//!
//! The clock is read here, because `keys` reads none. The result is never below the floor of
//! `keys`, however slow the machine is.

use std::time::Duration;

use keys::{KdfCost, VaultError};
use tokio::time::Instant;

/// Time that opening a vault shall take. The owner pays it once for each start, an attacker for
/// each guess. Test builds make many vaults: their target is so short that the result is the floor.
const TARGET: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 1000 });
/// Largest memory of the derivation: 256 MiB in KiB, which a small machine can spare for a second
/// at its start.
const MEMORY_KIB_MAX: u32 = 256 * 1024;

/// Measures the cost at which opening a vault takes about one second. Blocks for about two.
///
/// # Errors
/// [`KdfError::OutOfMemory`](keys::KdfError) where the machine cannot allocate the floor's memory.
pub fn calibrated() -> Result<KdfCost, VaultError> {
    let cost = KdfCost::calibrated(TARGET, MEMORY_KIB_MAX, &mut |cost| {
        let started = Instant::now();
        cost.try_out()?;
        Ok(started.elapsed())
    })?;
    Ok(cost)
}
