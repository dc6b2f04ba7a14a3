//! Checks the domains of which peers are pushed every change, `peer.push_domains`.
//!
//! Inputs: the peers of a configuration and the schemas. Invariant: the names of a node that starts
//! are sync domains of its apps.

use std::collections::BTreeSet;

use super::tables::PeerConfig;
use crate::schema::Schemas;
use crate::toml_file::nearest;

/// Most peers to which changes are pushed at once: each commit may write a row for each.
const OUTBOX_PEERS_MAX: usize = 64;

/// Notes each wrong value by the dotted path of its key. Names are not checked without schemas.
pub(super) fn check_outbox(
    peers: &[PeerConfig],
    schemas: Option<&Schemas>,
    note: &mut dyn FnMut(&str, &str),
) {
    let mut pushed = 0;
    for (index, peer) in peers.iter().enumerate() {
        let key = format!("peer.{index}.push_domains");
        if !peer.push_domains.is_empty() {
            pushed += 1;
            if pushed == OUTBOX_PEERS_MAX + 1 {
                let why = format!("at most {OUTBOX_PEERS_MAX} peers may have domains here");
                note(&key, &why);
            }
        }
        let domains: BTreeSet<_> = peer.push_domains.iter().collect();
        if domains.len() < peer.push_domains.len() {
            note(&key, "names a domain twice");
        }
        for domain in domains {
            if let Some(why) = schemas.and_then(|schemas| unknown(domain, schemas)) {
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

    use crate::config::Config;

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

    const CLUB: &str = r#"slug = "club"
version = 1
[[type]]
number = 1
name = "club.news"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 9 }]
[[domain]]
name = "club.board"
parent_types = ["club.news"]
mode = "allow_update"
"#;

    /// Loads a file with `apps`, a folder of further apps, and domains of two peers.
    fn load(apps: &str, first: &str, second: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, folder) = (dir.path().join("p"), dir.path().join("apps"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("club.toml"), CLUB).unwrap();
        let mut text = format!("[node]\napps = [{apps}]\nschema_dir = \"apps\"\n");
        for (seed, domains) in [(1, first), (2, second)] {
            let onion = address(seed);
            writeln!(
                text,
                "[[peer]]\nonion = \"{onion}\"\npush_domains = [{domains}]"
            )
            .unwrap();
        }
        std::fs::write(&path, text).unwrap();
        let folder = format!("{}/", dir.path().display());
        Config::load(&path).map_err(|error| error.to_string().replace(&folder, ""))
    }

    #[test]
    fn all_unknown_domains_are_reported_beside_apps_of_a_folder() {
        let apps = r#""identities", "messages", "club""#;
        assert!(load(apps, r#""club.board""#, r#""messages""#).is_ok());
        let (first, second) = (
            r#""club.bord", "mesages""#,
            r#""club.board", "market.public_offers""#,
        );
        assert_eq!(
            load(apps, first, second).unwrap_err(),
            "p:6: peer.push_domains: there is no domain `club.bord`; did you mean `club.board`?\n\
             p:6: peer.push_domains: there is no domain `mesages`; did you mean `messages`?\n\
             p:9: peer.push_domains: there is no domain `market.public_offers`"
        );
    }

    #[test]
    fn all_unknown_apps_are_reported_beside_apps_of_a_folder() {
        let apps = r#""identities", "clubs", "mesages""#;
        assert_eq!(
            load(apps, "", "").unwrap_err(),
            "p:2: node.apps: there is no app `clubs`; did you mean `club`?\n\
             p:2: node.apps: there is no app `mesages`; did you mean `messages`?"
        );
    }
}
