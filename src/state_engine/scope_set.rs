//! [`ScopeSet`]: a set of scopes in memory.

use crate::store::ScopeId;

/// Scopes of one chunk.
const CHUNK: i64 = 4096;

/// A set of scopes: a bitmap in chunks, so that few scopes take little memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ScopeSet {
    chunks: Vec<Option<Box<[u64; 64]>>>,
}

impl ScopeSet {
    /// Chunk, word and bit of a scope.
    fn place(scope: ScopeId) -> Option<(usize, usize, u64)> {
        let chunk = usize::try_from(scope.0 / CHUNK).ok()?;
        let within = usize::try_from(scope.0 % CHUNK).ok()?;
        Some((chunk, within / 64, 1 << (within % 64)))
    }

    /// Adds a scope.
    pub(super) fn insert(&mut self, scope: ScopeId) {
        let Some((chunk, word, bit)) = Self::place(scope) else {
            return;
        };
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, None);
        }
        let chunk = self.chunks.get_mut(chunk);
        let chunk = chunk.map(|chunk| chunk.get_or_insert_with(|| Box::new([0; 64])));
        if let Some(word) = chunk.and_then(|chunk| chunk.get_mut(word)) {
            *word |= bit;
        }
    }

    /// Whether the set contains a scope.
    pub(super) fn contains(&self, scope: ScopeId) -> bool {
        let Some((chunk, word, bit)) = Self::place(scope) else {
            return false;
        };
        let chunk = self.chunks.get(chunk).and_then(Option::as_ref);
        chunk.is_some_and(|chunk| chunk.get(word).is_some_and(|word| word & bit != 0))
    }

    /// The scopes, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = ScopeId> {
        let chunks = (0..).zip(&self.chunks);
        let words = chunks.filter_map(|(index, chunk)| Some((index * CHUNK, chunk.as_ref()?)));
        let words =
            words.flat_map(|(first, chunk)| (0..).map(move |word| first + word * 64).zip(&**chunk));
        words.flat_map(|(first, word)| Bits(*word).map(move |bit| ScopeId(first + bit)))
    }

    /// The bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let used = self.chunks.iter().flatten().count();
        self.chunks.len() * 8 + used * 512
    }
}

/// The positions of the bits that are set in a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(i64::from(bit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_set(ids in proptest::collection::vec(0..20_000i64, 0..200)) {
            let (mut scopes, mut expected) = (ScopeSet::default(), BTreeSet::new());
            for id in ids {
                scopes.insert(ScopeId(id));
                expected.insert(ScopeId(id));
            }
            prop_assert!(scopes.iter().eq(expected.iter().copied()));
            for id in (0..21_000).map(ScopeId) {
                prop_assert_eq!(scopes.contains(id), expected.contains(&id));
            }
        }
    }

    #[test]
    fn few_scopes_among_a_million_take_little_memory() {
        let mut scopes = ScopeSet::default();
        scopes.insert(ScopeId(3));
        scopes.insert(ScopeId(1_000_000));
        assert!(scopes.bytes() < 4096, "{}", scopes.bytes());
        scopes.insert(ScopeId(-1));
        assert!(!scopes.contains(ScopeId(-1)));
    }
}
