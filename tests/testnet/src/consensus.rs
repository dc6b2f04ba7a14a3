//! Reads the one thing that matters in a consensus: which relays it lists, and whether clients may use them.
//!
//! Pure: text in, names out. A relay counts when it is `Running`, `Valid` and an `HSDir`: before every relay is an
//! onion-service directory, services and clients would compute different places for the same descriptor.

use std::collections::BTreeSet;

const FLAGS: [&str; 3] = ["HSDir", "Running", "Valid"];

/// The nicknames of the relays in a consensus (any flavour) that have all the flags we need.
pub(crate) fn usable_relays(consensus: &str) -> BTreeSet<&str> {
    let mut usable = BTreeSet::new();
    let mut relay = None;
    for line in consensus.lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("r") => relay = words.next(),
            Some("s") => {
                let flags: BTreeSet<&str> = words.collect();
                if let Some(name) = relay.take()
                    && FLAGS.iter().all(|flag| flags.contains(flag))
                {
                    usable.insert(name);
                }
            }
            _ => {}
        }
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_counts_with_all_flags_only() {
        let text = "network-status-version 3 microdesc\n\
                    known-flags Exit Fast HSDir Running Valid\n\
                    r relay1 AAAA 2026-01-01 00:00:00 127.0.0.1 5001 0\nm digest\ns Fast HSDir Running V2Dir Valid\n\
                    r relay2 BBBB 2026-01-01 00:00:00 127.0.0.1 5002 0\nm digest\ns Fast Running Valid\n\
                    r relay3 CCCC 2026-01-01 00:00:00 127.0.0.1 5003 0\n";
        assert_eq!(usable_relays(text), BTreeSet::from(["relay1"]));
        assert!(usable_relays("").is_empty());
    }
}
