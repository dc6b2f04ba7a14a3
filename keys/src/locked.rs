//! Memory for secrets that live as long as the node: pages that the system does not write to its swap space.
//!
//! Never gives a lock back: locks of pages do not nest, and two secrets may share a page, so that unlocking for the one
//! that goes would unlock the other too. Pages stay locked until the process ends; what is freed is used again by the
//! next secrets, so their number follows the most that were alive at once. Not covered: registers, the stack of a running
//! signature, the plaintext of a vault while it is written, hibernation. Never fails: where the system does not allow a
//! lock, the secret is kept all the same and [`MemoryLock`] says so. Invariant: such memory is zeroised when it is freed.

use std::ops::Deref;

use zeroize::Zeroize;

/// Whether the secrets of a [`KeyManager`](crate::KeyManager) lie in locked memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryLock {
    /// All of them.
    Locked,
    /// Not all of them; the system's reason. Usually the limit of locked memory is too low (`LimitMEMLOCK=` of a systemd
    /// service, `ulimit -l`); encrypting the swap space, or having none, serves the same end.
    NotLocked(String),
}

/// Aligned so that no secret lies across a border of pages: each locks one page.
#[derive(Clone)]
#[repr(C, align(64))]
struct Aligned<const N: usize>([u8; N]);

/// A secret of `N` bytes on the heap.
pub(crate) struct Locked<const N: usize> {
    bytes: Box<Aligned<N>>,
    fault: Option<String>,
}

impl<const N: usize> Locked<N> {
    /// Bytes that `fill` writes where they stay.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut locked = Self::with(lock_pages);
        fill(&mut locked.bytes.0);
        locked
    }

    /// A copy of bytes that lie elsewhere.
    pub(crate) fn copy_of(bytes: &[u8; N]) -> Self {
        Self::filled(|place| place.copy_from_slice(bytes))
    }

    /// Why the memory is not locked, if it is not.
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
            // On purpose: see the module's comment.
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
    fn a_secret_s_page_is_locked_and_stays_so() {
        let secret = Locked::copy_of(&[7; 64]);
        assert_eq!(*secret, [7; 64]);
        // Where the machine that tests are run on forbids it, the reason is known.
        let is_locked = secret.fault().is_none();
        assert!(is_locked || !secret.fault().unwrap().is_empty());
        let copy = secret.clone();
        drop(secret);
        assert_eq!(*copy, [7; 64]);
        assert!(!is_locked || locked_kib() > 0);
    }

    #[test]
    fn a_secret_is_kept_where_locking_is_not_allowed() {
        let mut secret = Locked::<32>::with(|_| Err("not allowed".to_owned()));
        secret.bytes.0.fill(9);
        assert_eq!((*secret, secret.fault()), ([9; 32], Some("not allowed")));
    }

    #[test]
    fn no_secret_lies_across_a_border_of_pages() {
        for _ in 0..100 {
            let secrets: Vec<_> = (0..50).map(|_| Locked::<64>::filled(|_| ())).collect();
            for secret in &secrets {
                assert_eq!(secret.as_ptr() as usize % 64, 0);
            }
        }
    }
}
