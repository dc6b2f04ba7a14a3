//! Cookies: challenges that their maker forgets and knows again when they come back.
//!
//! A cookie's readable part is authenticated together with an encrypted serial; a bit per serial remembers that it was
//! used. Keys live in memory only and roll over with age or when their serials run out; the one before is still known.
//! Invariant: a cookie is good for one verification, until its expiry, at its maker.

use keys::{OnionAddr, SealingKey, sealing};
use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::Algorithm;
use super::serials::Serials;
use crate::config::GateConfig;
use crate::error::Misbehaviour;
use crate::messages::{Challenge, Cookie};

const SEALED_BYTES: usize = 4 + sealing::OVERHEAD_BYTES;

/// A cookie's place in the bitmap: which key sealed it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    generation: u64,
    number: u32,
}

struct Generation {
    number: u64,
    key: SealingKey,
    born: u64,
    issued: u32,
    used: Serials,
}

/// Makes challenges, and knows them again.
pub struct CookieJar {
    current: Generation,
    previous: Option<Generation>,
    serials_max: u32,
    lifetime_s: u64,
    inner_bits: u8,
}

impl CookieJar {
    /// A jar with a new key. `now` in unix seconds.
    pub fn new(config: &GateConfig, now: u64, rng: &mut dyn CryptoRng) -> Self {
        Self {
            current: Generation::new(0, now, rng),
            previous: None,
            serials_max: config.serials_max,
            lifetime_s: config.cookie_lifetime_s,
            inner_bits: config.inner_bits,
        }
    }

    /// A challenge of this effort in the name of our onion service.
    pub fn challenge(
        &mut self,
        onion: OnionAddr,
        effort: u64,
        now: u64,
        rng: &mut dyn CryptoRng,
    ) -> Challenge {
        // By age: when the key before goes, all its cookies have expired. By number: under a flood, a cookie may go
        // early; its holder is told "expired" and asks for another.
        let old = now.saturating_sub(self.current.born) > self.lifetime_s;
        if old || self.current.issued >= self.serials_max {
            let next = Generation::new(self.current.number + 1, now, rng);
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

    /// Knows a cookie again, cheapest first: length, seal, expiry, unused. Changes nothing.
    pub fn recognise(
        &self,
        cookie: &[u8],
        sealed: &[u8],
        now: u64,
    ) -> Result<(Cookie, Serial), Misbehaviour> {
        if cookie.len() > Cookie::BYTES_MAX || sealed.len() != SEALED_BYTES {
            return Err(Misbehaviour::CookieNotOurs);
        }
        let (generation, plain) = self
            .generations()
            .find_map(|generation| Some((generation, generation.key.open(cookie, sealed).ok()?)))
            .ok_or(Misbehaviour::CookieNotOurs)?;
        let number = plain
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| Misbehaviour::CookieNotOurs)?;
        let cookie = Cookie::decode(cookie).map_err(|_| Misbehaviour::CookieNotOurs)?;
        // One that holds longer than any made now was made before the clock was set back: not for longer than promised.
        if now > cookie.expiry || cookie.expiry > now.saturating_add(self.lifetime_s) {
            return Err(Misbehaviour::CookieExpired);
        }
        if generation.used.is_used(number) {
            return Err(Misbehaviour::CookieUsed);
        }
        let generation = generation.number;
        Ok((cookie, Serial { generation, number }))
    }

    /// Marks a serial used: once, when its verification begins.
    pub fn take(&mut self, serial: Serial) -> Result<(), Misbehaviour> {
        let generation = self.generation(serial).ok_or(Misbehaviour::CookieExpired)?;
        match generation.used.take(serial.number) {
            true => Ok(()),
            false => Err(Misbehaviour::CookieUsed),
        }
    }

    /// Marks a serial unused again, some times: its holder is to come again with the same solution.
    pub fn give_back(&mut self, serial: Serial) {
        if let Some(generation) = self.generation(serial) {
            generation.used.give_back(serial.number);
        }
    }

    /// Whether a serial was given back before.
    pub fn was_given_back(&self, serial: Serial) -> bool {
        let mut generations = self.generations();
        generations
            .any(|it| it.number == serial.generation && it.used.was_given_back(serial.number))
    }

    fn generation(&mut self, serial: Serial) -> Option<&mut Generation> {
        let both = [Some(&mut self.current), self.previous.as_mut()];
        both.into_iter()
            .flatten()
            .find(|it| it.number == serial.generation)
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl Generation {
    fn new(number: u64, born: u64, rng: &mut dyn CryptoRng) -> Self {
        Self {
            number,
            key: SealingKey::generate(rng),
            born,
            issued: 0,
            used: Serials::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::tests::onion;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn jar(serials_max: u32) -> (CookieJar, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let config = GateConfig {
            serials_max,
            cookie_lifetime_s: 100,
            ..GateConfig::default()
        };
        (CookieJar::new(&config, 1000, &mut rng), rng)
    }

    #[test]
    fn a_cookie_comes_back_once_and_in_time() {
        let (mut jar, mut rng) = jar(64);
        let Challenge { cookie, sealed } = jar.challenge(onion(1), 7, 1000, &mut rng);
        let (read, serial) = jar.recognise(&cookie, &sealed, 1100).unwrap();
        assert_eq!((read.onion, read.effort, read.expiry), (onion(1), 7, 1100));
        assert_eq!(
            jar.recognise(&cookie, &sealed, 1101),
            Err(Misbehaviour::CookieExpired)
        );
        // From the future: the clock was set back.
        assert_eq!(
            jar.recognise(&cookie, &sealed, 999),
            Err(Misbehaviour::CookieExpired)
        );
        assert_eq!(jar.take(serial), Ok(()));
        assert_eq!(jar.take(serial), Err(Misbehaviour::CookieUsed));
        assert_eq!(
            jar.recognise(&cookie, &sealed, 1000),
            Err(Misbehaviour::CookieUsed)
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let (mut jar, mut rng) = jar(64);
        let Challenge { cookie, sealed } = jar.challenge(onion(1), 7, 1000, &mut rng);
        for place in 0..cookie.len() + sealed.len() {
            let (mut cookie, mut sealed) = (cookie.to_vec(), sealed.to_vec());
            match place.checked_sub(cookie.len()) {
                None => cookie[place] ^= 1,
                Some(place) => sealed[place] ^= 1,
            }
            assert_eq!(
                jar.recognise(&cookie, &sealed, 1000),
                Err(Misbehaviour::CookieNotOurs),
                "{place}"
            );
        }
        assert_eq!(
            jar.recognise(&cookie, &sealed[1..], 1000),
            Err(Misbehaviour::CookieNotOurs)
        );
        assert_eq!(
            jar.recognise(&[0; 500], &sealed, 1000),
            Err(Misbehaviour::CookieNotOurs)
        );
    }

    #[test]
    fn keys_roll_over_with_age_and_number_and_overlap_once() {
        let (mut jar, mut rng) = jar(64);
        let first = jar.challenge(onion(1), 1, 1000, &mut rng);
        let (_, first_serial) = jar.recognise(&first.cookie, &first.sealed, 1000).unwrap();
        for _ in 1..64 {
            jar.challenge(onion(1), 1, 1000, &mut rng);
        }
        assert!(jar.previous.is_none());
        let second = jar.challenge(onion(1), 1, 1000, &mut rng);
        assert!(jar.previous.is_some());
        // Under the key before, use is still remembered.
        assert_eq!(jar.take(first_serial), Ok(()));
        assert_eq!(
            jar.recognise(&first.cookie, &first.sealed, 1000),
            Err(Misbehaviour::CookieUsed)
        );
        let (_, second_serial) = jar.recognise(&second.cookie, &second.sealed, 1000).unwrap();
        assert_ne!(first_serial, second_serial);
        // By age; now the first key is forgotten, and with it its serials.
        jar.challenge(onion(1), 1, 1101, &mut rng);
        assert_eq!(
            jar.recognise(&first.cookie, &first.sealed, 1000),
            Err(Misbehaviour::CookieNotOurs)
        );
        assert_eq!(jar.take(first_serial), Err(Misbehaviour::CookieExpired));
        assert_eq!(jar.take(second_serial), Ok(()));
    }
}
