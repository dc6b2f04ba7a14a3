//! Verification of a package's objects on every core, concurrently with the writer.
//!
//! The writer decides later whether an object may be written. Invariant: the result has the order
//! of the objects for any number of threads. Tested in `tests/core/engines.rs`.

use std::num::NonZero;

use keys::{AddressError, AddressRecord, Oid, SignedObject, VerifiedAddress};

use super::error::{CoreStopped, EngineError};
use super::handle::{CoreHandle, Driver};
use crate::graph::{DecodedObject, GraphLimits, ObjectFault, decode_object};
use crate::state_engine::{CheckedObject, check_objects, known_keys};
use crate::store::StoreError;

type Decoded = Vec<Result<DecodedObject, ObjectFault>>;

/// Number of objects from which several threads are faster than one.
const PARALLEL_OBJECTS_MIN: usize = 32;

impl CoreHandle {
    /// Decodes objects, finds their owners' keys, and verifies their signatures.
    pub async fn verify_objects(
        &self,
        objects: Vec<SignedObject>,
    ) -> Result<Vec<CheckedObject>, EngineError<StoreError>> {
        let limits = self.context.limits.graph;
        let decoded = self
            .spread(objects, move |part| decode(part, &limits))
            .await?;
        let mut owners: Vec<Oid> = decoded.iter().flatten().map(DecodedObject::owner).collect();
        owners.sort();
        owners.dedup();
        let mut known = self
            .read(move |view| known_keys(&view.rows, &owners))
            .await?;
        known.add_own_keys(decoded.iter().flatten());
        Ok(self
            .spread(decoded, move |part| check_objects(part, &known))
            .await?)
    }

    /// Verifies the chains and the signatures of address records. Fails with the first fault.
    pub async fn verify_addresses(
        &self,
        records: Vec<AddressRecord>,
    ) -> Result<Result<Vec<VerifiedAddress>, AddressError>, CoreStopped> {
        let verify =
            |part: Vec<AddressRecord>| part.into_iter().map(AddressRecord::verify).collect();
        let verified: Vec<_> = self.spread(records, verify).await?;
        Ok(verified.into_iter().collect())
    }

    /// Runs `work` over parts of `items`, one part per core, and joins the results in order. An
    /// inline core does all the work in one part.
    async fn spread<T: Send + 'static, R: Send + 'static>(
        &self,
        items: Vec<T>,
        work: impl Fn(Vec<T>) -> Vec<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>, CoreStopped> {
        let is_inline = matches!(&*self.driver, Driver::Inline(_));
        if is_inline || items.len() < PARALLEL_OBJECTS_MIN {
            return Ok(work(items));
        }
        tokio::task::spawn_blocking(move || in_parts(items, &work))
            .await
            .map_err(|_| CoreStopped)
    }
}

fn decode(objects: Vec<SignedObject>, limits: &GraphLimits) -> Decoded {
    objects
        .into_iter()
        .map(|object| decode_object(object, limits))
        .collect()
}

/// Runs `work` on one scoped thread per part.
fn in_parts<T: Send, R: Send>(
    mut items: Vec<T>,
    work: &(impl Fn(Vec<T>) -> Vec<R> + Sync),
) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let size = items.len().div_ceil(threads).max(1);
    let mut parts = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(size.min(items.len()));
        parts.push(std::mem::replace(&mut items, rest));
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        // A panic continues in this thread and fails the whole package, so that no part is missing.
        let joined = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.flatten().collect()
    })
}
