//! Reads from a consensus document which of the listed relays clients can use.
//!
//! Input is the text, output is a set of nicknames. A usable relay has the flags `Running`, `Valid`
//! and `HSDir`. Every relay must be an onion-service directory, because otherwise services and
//! clients choose different directories for the same descriptor.

use std::collections::BTreeSet;

const FLAGS: [&str; 3] = ["HSDir", "Running", "Valid"];

/// Returns the nicknames of the relays that have all [`FLAGS`]. Reads any consensus flavour.
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
    fn usable_relays_have_all_required_flags() {
        let text = "network-status-version 3 microdesc\n\
                    known-flags Exit Fast HSDir Running Valid\n\
                    r relay1 AAAA 2026-01-01 00:00:00 127.0.0.1 5001 0\n\
                    m digest\n\
                    s Fast HSDir Running V2Dir Valid\n\
                    r relay2 BBBB 2026-01-01 00:00:00 127.0.0.1 5002 0\n\
                    m digest\n\
                    s Fast Running Valid\n\
                    r relay3 CCCC 2026-01-01 00:00:00 127.0.0.1 5003 0\n";
        assert_eq!(usable_relays(text), BTreeSet::from(["relay1"]));
        assert!(usable_relays("").is_empty());
    }
}
