//! Locked memory for long-lived secrets: pages that the system does not write to its swap space.
//!
//! Pages stay locked until the process ends, because page locks do not nest. Two secrets may share
//! a page, and unlocking it for one would unlock the other. Freed memory is reused by later
//! secrets, so the number of locked pages follows the most secrets alive at once. Not covered:
//! registers, the stack of a running signature, the plaintext of a vault during a write,
//! hibernation. If the system refuses a lock, the secret is kept anyway and [`MemoryLock`] reports
//! it. Invariant: locked memory is zeroised when it is freed. Tested below.

use std::ops::Deref;

use zeroize::Zeroize;

/// Whether the secrets of a [`KeyManager`](crate::KeyManager) are in locked memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryLock {
    /// All secrets are in locked memory.
    Locked,
    /// Some secrets are not; has the system's reason.
    ///
    /// Usually the limit of locked memory is too low (`LimitMEMLOCK=` of a systemd service,
    /// `ulimit -l`). Encrypted swap space, or none, has the same effect.
    NotLocked(String),
}

/// Aligned so that no secret crosses a page boundary: each locks one page.
#[derive(Clone)]
#[repr(C, align(64))]
struct Aligned<const N: usize>([u8; N]);

/// A secret of `N` bytes on the heap.
pub(crate) struct Locked<const N: usize> {
    bytes: Box<Aligned<N>>,
    fault: Option<String>,
}

impl<const N: usize> Locked<N> {
    /// Allocates and locks zeroed bytes, and calls `fill` to write them in place.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut locked = Self::with(lock_pages);
        fill(&mut locked.bytes.0);
        locked
    }

    /// Copies `bytes` into locked memory.
    pub(crate) fn copy_of(bytes: &[u8; N]) -> Self {
        Self::filled(|place| place.copy_from_slice(bytes))
    }

    /// Returns why the memory is not locked, or `None` if it is.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn with(lock: impl FnOnce(&Aligned<N>) -> Result<(), String>) -> Self {
        let bytes = Box::new(Aligned([0; N]));
        let fault = lock(&bytes).err();
        Self { bytes, fault }
    }
}

fn lock_pages<const N: usize>(place: &Aligned<N>) -> Result<(), String> {
    match region::lock(place.0.as_ptr(), N) {
        Ok(guard) => {
            // Keeps the page locked; the module's comment has the reason.
            std::mem::forget(guard);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

impl<const N: usize> Deref for Locked<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.bytes.0
    }
}

impl<const N: usize> Clone for Locked<N> {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl<const N: usize> Drop for Locked<N> {
    fn drop(&mut self) {
        self.bytes.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locked memory of this process in KiB, as the kernel counts it (proc(5), `VmLck`).
    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmLck:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn page_of_a_secret_stays_locked_after_a_drop() {
        let secret = Locked::copy_of(&[7; 64]);
        assert_eq!(*secret, [7; 64]);
        // On a machine that forbids locking, the reason is present.
        let is_locked = secret.fault().is_none();
        assert!(is_locked || !secret.fault().unwrap().is_empty());
        let copy = secret.clone();
        drop(secret);
        assert_eq!(*copy, [7; 64]);
        assert!(!is_locked || locked_kib() > 0);
    }

    #[test]
    fn secret_is_kept_when_locking_fails() {
        let mut secret = Locked::<32>::with(|_| Err("not allowed".to_owned()));
        secret.bytes.0.fill(9);
        assert_eq!((*secret, secret.fault()), ([9; 32], Some("not allowed")));
    }

    #[test]
    fn secrets_do_not_cross_page_boundaries() {
        for _ in 0..100 {
            let secrets: Vec<_> = (0..50).map(|_| Locked::<64>::filled(|_| ())).collect();
            for secret in &secrets {
                assert_eq!(secret.as_ptr() as usize % 64, 0);
            }
        }
    }
}
