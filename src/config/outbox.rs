//! Checks the domains of which peers are pushed every change, `peer.push_domains`.
//!
//! Inputs: a parsed [`Config`] and the schemas. Invariant: the names of a node that starts are sync
//! domains of its apps. Apps of `node.schema_dir` are known only at the start, so their domains are
//! checked there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use keys::OnionAddr;

use super::tables::Config;
use crate::schema::Schemas;
use crate::toml_file::nearest;

/// Most peers to which changes are pushed at once: each commit may write a row for each.
const OUTBOX_PEERS_MAX: usize = 64;

/// A domain in the configuration that no enabled app has.
#[derive(Debug, thiserror::Error)]
#[error("{file}: push_domains of the peer {onion}: {why}")]
pub struct UnknownPushDomain {
    file: PathBuf,
    onion: OnionAddr,
    why: String,
}

impl Config {
    /// Checks the names in `push_domains` against the schemas of all enabled apps.
    pub fn check_push_domains(&self, schemas: &Schemas) -> Result<(), UnknownPushDomain> {
        for peer in &self.peers {
            let mut names = peer.push_domains.iter();
            if let Some(why) = names.find_map(|name| unknown(name, schemas)) {
                return Err(UnknownPushDomain {
                    file: self.file.clone(),
                    onion: peer.onion,
                    why,
                });
            }
        }
        Ok(())
    }
}

/// Notes each wrong value by the dotted path of its key, as far as the files of `node.schema_dir`
/// are not needed.
pub(super) fn check_outbox(config: &Config, note: &mut dyn FnMut(&str, &str)) {
    let schemas = match config.node.schema_dir {
        None => Schemas::load(&config.node.apps, None).ok(),
        Some(_) => None,
    };
    let mut peers = 0;
    for (index, peer) in config.peers.iter().enumerate() {
        let key = format!("peer.{index}.push_domains");
        peers += usize::from(!peer.push_domains.is_empty());
        if peers > OUTBOX_PEERS_MAX {
            let why = format!("at most {OUTBOX_PEERS_MAX} peers may have domains here");
            note(&key, &why);
            return;
        }
        let domains: BTreeSet<_> = peer.push_domains.iter().collect();
        if domains.len() < peer.push_domains.len() {
            note(&key, "names a domain twice");
        }
        for domain in domains {
            let schemas = schemas.iter();
            for why in schemas.filter_map(|schemas| unknown(domain, schemas)) {
                note(&key, &why);
            }
        }
    }
}

/// The fault of a name that is no sync domain.
fn unknown(name: &str, schemas: &Schemas) -> Option<String> {
    if schemas.domain(name).is_some() {
        return None;
    }
    let near = nearest(name, schemas.sync_domains().map(|it| it.name.as_str()));
    let near = near.map_or(String::new(), |it| format!("; did you mean `{it}`?"));
    Some(format!("there is no domain `{name}`{near}"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use keys::KeyManager;
    use rand::SeedableRng as _;

    use super::*;

    /// The address of the node with a seed, in full.
    fn address(seed: u64) -> String {
        let keys = KeyManager::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(seed));
        keys.onion().to_onion_string()
    }

    fn peers(count: usize) -> String {
        let mut text = String::new();
        for seed in 0..count as u64 {
            let onion = address(seed);
            writeln!(
                text,
                "[[peer]]\nonion = \"{onion}\"\npush_domains = [\"messages\"]"
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn at_most_64_peers_have_such_domains() {
        let parse = |text: &str| Config::parse(Path::new("p"), text);
        let without = format!("[[peer]]\nonion = \"{}\"\n", address(64));
        assert!(parse(&(peers(64) + &without)).is_ok());
        let error = parse(&peers(65)).unwrap_err().to_string();
        let expected = "p:195: peer.push_domains: at most 64 peers may have domains here";
        assert_eq!(error, expected);
    }

    #[test]
    fn names_are_checked_at_the_start_if_the_apps_have_a_folder() {
        let onion = address(1);
        let text = format!(
            "[node]\nschema_dir = \"apps\"\n\
             [[peer]]\nonion = \"{onion}\"\npush_domains = [\"identities\", \"mesages\"]\n"
        );
        let mut config = Config::parse(Path::new("p"), &text).unwrap();
        let schemas = Schemas::load(&config.node.apps, None).unwrap();
        let error = config.check_push_domains(&schemas).unwrap_err();
        let onion = config.peers[0].onion;
        assert_eq!(
            error.to_string(),
            format!(
                "p: push_domains of the peer {onion}: there is no domain `mesages`; did you mean \
                 `messages`?"
            )
        );
        config.peers[0].push_domains.pop();
        config.check_push_domains(&schemas).unwrap();
    }
}
