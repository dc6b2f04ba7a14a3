//! Applying a package in parts. Invariant: no part holds the writer for long.

use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::{AppliedPackage, ApplyPackageError, PackageProgress, PackageWork};

/// Applies a package part after part; other writes run between two parts.
pub(super) async fn apply_parts(
    engine: &CoreHandle,
    mut work: PackageWork,
) -> Result<AppliedPackage, EngineError<ApplyPackageError>> {
    loop {
        let progress = engine
            .write(move |core, now| core.apply_part(now, work))
            .await?;
        match progress {
            PackageProgress::More(rest) => work = rest,
            PackageProgress::Done(applied) => return Ok(applied),
        }
    }
}
