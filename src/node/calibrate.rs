//! What a guess at the passphrase shall cost, measured on the machine that will have to bear it.
//!
//! The clock lives here, outside of `keys`. Never below `keys`' floor, however slow the machine is.

use std::time::Duration;

use keys::{KdfCost, VaultError};
use tokio::time::Instant;

/// How long opening the vault may take: once for each start, while a guesser pays it for each guess. A build for tests makes
/// many vaults: there it is so short that the floor is measured once and taken.
const TARGET: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 1000 });
/// Most memory for it, in KiB: 256 MiB, which a small machine has for a second at its start.
const MEMORY_KIB_MAX: u32 = 256 * 1024;

/// The cost at which opening a vault takes about a second here. Measuring takes about twice that, and blocks.
///
/// # Errors
/// [`VaultError::OutOfMemory`] where the machine does not give the floor's memory.
pub fn calibrated() -> Result<KdfCost, VaultError> {
    KdfCost::calibrated(TARGET, MEMORY_KIB_MAX, &mut |cost| {
        let begun = Instant::now();
        cost.try_out()?;
        Ok(begun.elapsed())
    })
}
