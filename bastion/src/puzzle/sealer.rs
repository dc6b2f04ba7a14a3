//! [`ChallengeSealer`]: makes challenges without storing them, and opens the cookies that clients
//! return.
//!
//! The cookie is authenticated together with an encrypted serial number. One bit per serial records
//! its use. The keys exist in memory only. They roll over with age and when their serials run out;
//! the previous key stays valid. Invariant: a cookie is good for one verification, until its
//! expiry, at the node that sealed it.

use keys::protocol::COOKIE_BYTES_MAX;
use keys::{OnionAddr, SealingKey, sealing};
use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::serials::Serials;
use super::work::Algorithm;
use crate::config::GateConfig;
use crate::error::Misbehaviour;
use crate::messages::{Challenge, Cookie};

/// A serial of 4 bytes, sealed.
const SEALED_BYTES: usize = 4 + sealing::OVERHEAD_BYTES;

/// The serial number of a cookie, and the key that sealed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    generation: u64,
    number: u32,
}

/// A sealing key and the serials that it sealed.
struct KeyGeneration {
    number: u64,
    key: SealingKey,
    /// Unix seconds.
    created: u64,
    issued: u32,
    used: Serials,
}

/// Makes challenges and opens returned cookies.
pub struct ChallengeSealer {
    current: KeyGeneration,
    previous: Option<KeyGeneration>,
    serials_max: u32,
    lifetime_s: u64,
    inner_bits: u8,
}

impl ChallengeSealer {
    /// Creates a sealer with a new key. `now` is in Unix seconds.
    pub fn new(config: &GateConfig, now: u64, rng: &mut dyn CryptoRng) -> Self {
        Self {
            current: KeyGeneration::new(0, now, rng),
            previous: None,
            serials_max: config.serials_max,
            lifetime_s: config.cookie_lifetime_s,
            inner_bits: config.inner_bits,
        }
    }

    /// Makes a challenge of this effort for this node's onion service.
    pub fn challenge(
        &mut self,
        onion: OnionAddr,
        effort: u64,
        now: u64,
        rng: &mut dyn CryptoRng,
    ) -> Challenge {
        // A roll-over by age drops a key only after all its cookies have expired. A roll-over by
        // number happens under a flood and may drop valid cookies: the client gets `expired` and
        // requests another challenge.
        let is_old = now.saturating_sub(self.current.created) > self.lifetime_s;
        if is_old || self.current.issued >= self.serials_max {
            let next = KeyGeneration::new(self.current.number + 1, now, rng);
            self.previous = Some(std::mem::replace(&mut self.current, next));
        }
        let cookie = Cookie {
            onion,
            effort,
            expiry: now.saturating_add(self.lifetime_s),
            algorithm: Algorithm::Argon2id1m.name().into(),
            inner_bits: self.inner_bits,
        }
        .encode();
        let serial = self.current.issued.to_be_bytes();
        self.current.issued += 1;
        let sealed = self.current.key.seal(&cookie, &serial, rng);
        Challenge {
            cookie: ByteBuf::from(cookie),
            sealed: ByteBuf::from(sealed),
        }
    }

    /// Opens a returned cookie. Checks length, seal, expiry and use, cheapest first. Changes
    /// nothing.
    pub fn open(
        &self,
        cookie: &[u8],
        sealed: &[u8],
        now: u64,
    ) -> Result<(Cookie, Serial), Misbehaviour> {
        if cookie.len() > COOKIE_BYTES_MAX || sealed.len() != SEALED_BYTES {
            return Err(Misbehaviour::CookieUnknown);
        }
        let (generation, plain) = self
            .generations()
            .find_map(|generation| Some((generation, generation.key.open(cookie, sealed).ok()?)))
            .ok_or(Misbehaviour::CookieUnknown)?;
        let number = plain
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| Misbehaviour::CookieUnknown)?;
        let cookie = Cookie::decode(cookie).map_err(|_| Misbehaviour::CookieUnknown)?;
        // A cookie that is valid for longer than its lifetime was made before the clock was set
        // back.
        if now > cookie.expiry || cookie.expiry > now.saturating_add(self.lifetime_s) {
            return Err(Misbehaviour::CookieExpired);
        }
        if generation.used.is_used(number) {
            return Err(Misbehaviour::CookieUsed);
        }
        let generation = generation.number;
        Ok((cookie, Serial { generation, number }))
    }

    /// Marks a serial used when its verification begins. Fails when it was used already.
    pub fn reserve(&mut self, serial: Serial) -> Result<(), Misbehaviour> {
        let generation = self.generation(serial).ok_or(Misbehaviour::CookieExpired)?;
        match generation.used.mark_used(serial.number) {
            true => Ok(()),
            false => Err(Misbehaviour::CookieUsed),
        }
    }

    /// Marks a serial unused, a limited number of times, so that the client can send the same
    /// solution later.
    pub fn release_serial(&mut self, serial: Serial) {
        if let Some(generation) = self.generation(serial) {
            generation.used.release(serial.number);
        }
    }

    /// Returns whether a serial was released before.
    pub fn was_released(&self, serial: Serial) -> bool {
        self.generations().any(|generation| {
            generation.number == serial.generation && generation.used.was_released(serial.number)
        })
    }

    fn generation(&mut self, serial: Serial) -> Option<&mut KeyGeneration> {
        let both = [Some(&mut self.current), self.previous.as_mut()];
        both.into_iter()
            .flatten()
            .find(|generation| generation.number == serial.generation)
    }

    fn generations(&self) -> impl Iterator<Item = &KeyGeneration> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl KeyGeneration {
    fn new(number: u64, created: u64, rng: &mut dyn CryptoRng) -> Self {
        Self {
            number,
            key: SealingKey::generate(rng),
            created,
            issued: 0,
            used: Serials::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::testing::onion;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn sealer(serials_max: u32) -> (ChallengeSealer, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let config = GateConfig {
            serials_max,
            cookie_lifetime_s: 100,
            ..GateConfig::default()
        };
        (ChallengeSealer::new(&config, 1000, &mut rng), rng)
    }

    #[test]
    fn cookie_is_accepted_once_until_its_expiry() {
        let (mut sealer, mut rng) = sealer(64);
        let Challenge { cookie, sealed } = sealer.challenge(onion(1), 7, 1000, &mut rng);
        let (read, serial) = sealer.open(&cookie, &sealed, 1100).unwrap();
        assert_eq!((read.onion, read.effort, read.expiry), (onion(1), 7, 1100));
        assert_eq!(
            sealer.open(&cookie, &sealed, 1101),
            Err(Misbehaviour::CookieExpired)
        );
        // Issued in the future, because the clock was set back.
        assert_eq!(
            sealer.open(&cookie, &sealed, 999),
            Err(Misbehaviour::CookieExpired)
        );
        assert_eq!(sealer.reserve(serial), Ok(()));
        assert_eq!(sealer.reserve(serial), Err(Misbehaviour::CookieUsed));
        assert_eq!(
            sealer.open(&cookie, &sealed, 1000),
            Err(Misbehaviour::CookieUsed)
        );
    }

    #[test]
    fn any_changed_bit_is_rejected() {
        let (mut sealer, mut rng) = sealer(64);
        let Challenge { cookie, sealed } = sealer.challenge(onion(1), 7, 1000, &mut rng);
        for index in 0..cookie.len() + sealed.len() {
            let (mut cookie, mut sealed) = (cookie.to_vec(), sealed.to_vec());
            match index.checked_sub(cookie.len()) {
                None => cookie[index] ^= 1,
                Some(index) => sealed[index] ^= 1,
            }
            assert_eq!(
                sealer.open(&cookie, &sealed, 1000),
                Err(Misbehaviour::CookieUnknown),
                "{index}"
            );
        }
        assert_eq!(
            sealer.open(&cookie, &sealed[1..], 1000),
            Err(Misbehaviour::CookieUnknown)
        );
        assert_eq!(
            sealer.open(&[0; 500], &sealed, 1000),
            Err(Misbehaviour::CookieUnknown)
        );
    }

    #[test]
    fn keys_roll_over_by_age_and_number_and_the_previous_key_stays_valid() {
        let (mut sealer, mut rng) = sealer(64);
        let first = sealer.challenge(onion(1), 1, 1000, &mut rng);
        let (_, first_serial) = sealer.open(&first.cookie, &first.sealed, 1000).unwrap();
        for _ in 1..64 {
            sealer.challenge(onion(1), 1, 1000, &mut rng);
        }
        assert!(sealer.previous.is_none());
        let second = sealer.challenge(onion(1), 1, 1000, &mut rng);
        assert!(sealer.previous.is_some());
        // Use of a serial of the previous key is recorded.
        assert_eq!(sealer.reserve(first_serial), Ok(()));
        assert_eq!(
            sealer.open(&first.cookie, &first.sealed, 1000),
            Err(Misbehaviour::CookieUsed)
        );
        let (_, second_serial) = sealer.open(&second.cookie, &second.sealed, 1000).unwrap();
        assert_ne!(first_serial, second_serial);
        // A roll-over by age drops the first key and its serials.
        sealer.challenge(onion(1), 1, 1101, &mut rng);
        assert_eq!(
            sealer.open(&first.cookie, &first.sealed, 1000),
            Err(Misbehaviour::CookieUnknown)
        );
        assert_eq!(
            sealer.reserve(first_serial),
            Err(Misbehaviour::CookieExpired)
        );
        assert_eq!(sealer.reserve(second_serial), Ok(()));
    }
}
