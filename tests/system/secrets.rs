//! No secret of a node is in the clear in its folder, its backup or its output.
//!
//! The search reads every byte of these files, while the program runs and after it has ended.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use harness::ALL_APPS;
use harness::needles::{Needle, files_below, forms, found_in, text_forms};
use harness::process::NodeProcess;
use keys::{ApiToken, KdfCost, KeyManager, Oid, OnionKey, Passphrase, SecretKey};
use postern::data_dir::DataDir;
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::services::identities::{self, IdentityError};
use postern::state_engine::{CoreLimits, StateEngine};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::json;

const PASSPHRASE: &str = "harbour-lantern-thimble-orchard";
const CONFIG: &str = "[api]
listen = \"127.0.0.1:0\"
[transport]
kind = \"loopback\"
loopback_listen = \"127.0.0.1:0\"
[log]
filter = \"trace\"
";

/// A node's folder whose secrets are known to the test.
struct Known {
    parent: tempfile::TempDir,
    identity: Oid,
    secrets: Vec<Needle>,
    token: Vec<Needle>,
}

/// The forms of a signing key: its seed, its expanded key and its scalar.
fn key_forms(name: &str, secret: &SecretKey) -> Vec<Needle> {
    secret.with_seed(|seed| {
        let mut all = forms(&format!("{name}, seed"), seed);
        OnionKey::from_seed(seed).with_secret(|expanded| {
            all.extend(forms(&format!("{name}, expanded"), expanded));
            all.extend(forms(&format!("{name}, scalar"), &expanded[..32]));
        });
        all
    })
}

impl Known {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("node");
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let data = DataDir::at(&folder);
        let passphrase = Passphrase::from_string(PASSPHRASE.into());
        let (mut first, mut second) = (
            ChaCha20Rng::seed_from_u64(71),
            ChaCha20Rng::seed_from_u64(72),
        );
        let keys =
            KeyManager::create(&data.keys(), &passphrase, KdfCost::TEST, &mut first).unwrap();
        let identity = keys.add_identity(&mut second).unwrap();

        // The same keys again, in the order in which the vault creates them.
        let (mut first, mut second) = (
            ChaCha20Rng::seed_from_u64(71),
            ChaCha20Rng::seed_from_u64(72),
        );
        let onion = OnionKey::generate(&mut first);
        assert_eq!(onion.onion_addr(), keys.onion());
        let [node, node_next] = std::array::from_fn(|_| SecretKey::generate(&mut first));
        let [person, person_next] = std::array::from_fn(|_| SecretKey::generate(&mut second));
        let public: Vec<_> = keys.holders().iter().map(|holder| holder.public).collect();
        assert_eq!(public, [node.public(), person.public()]);
        let mut secrets = text_forms("the passphrase", PASSPHRASE);
        onion.with_secret(|expanded| {
            secrets.extend(forms("the onion's key", expanded));
            secrets.extend(forms("the onion's scalar", &expanded[..32]));
        });
        for (name, key) in [
            ("the node's key", &node),
            ("the node's next key", &node_next),
            ("the identity's key", &person),
            ("the identity's next key", &person_next),
        ] {
            secrets.extend(key_forms(name, key));
        }

        let token = ApiToken::generate(&mut ChaCha20Rng::seed_from_u64(73));
        token.write_new(&data.token()).unwrap();
        let schemas = Arc::new(Schemas::load(&ALL_APPS.map(str::to_owned), None).unwrap());
        let (rng, now) = (
            Box::new(ChaCha20Rng::seed_from_u64(74)),
            Timestamp(1_700_000_000_000),
        );
        let limits = CoreLimits::default();
        let mut core =
            StateEngine::open(&data.database(), schemas, Arc::new(keys), limits, rng, now).unwrap();
        core.write(now, |graph| {
            identities::publish(graph, identity, Some("Alice"))?;
            graph.tx().put_token(&token.hash(), "operator", now)?;
            Ok::<_, IdentityError>(())
        })
        .unwrap();
        drop(core);
        fs::write(folder.join("postern.toml"), CONFIG).unwrap();
        let file = parent.path().join("passphrase");
        fs::write(&file, format!("{PASSPHRASE}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let text = token.to_text().to_string();
        let mut token = text_forms("the token", &text);
        let digits = text.strip_prefix("postern_").unwrap();
        let raw = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
        token.extend(forms("the token's bytes", &raw));
        Self {
            parent,
            identity,
            secrets,
            token,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn node(&self) -> NodeProcess {
        let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
        NodeProcess::over(binary, "Alice", &self.at("node"), &self.at("passphrase"))
    }

    /// Searches every file except the passphrase file, which this test wrote.
    fn search(&self, files_min: usize) {
        let mut files = files_below(self.parent.path());
        files.retain(|path| *path != self.at("passphrase"));
        assert!(files.len() >= files_min, "{files:?}");
        let (own, mut found) = (self.at("node").join("api.token"), Vec::new());
        for path in files {
            found.extend(found_in(&path, &self.secrets));
            if path != own {
                found.extend(found_in(&path, &self.token));
            }
        }
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
        assert!(
            !found_in(&own, &self.token).is_empty(),
            "the token file holds the token"
        );
    }
}

#[test]
fn node_writes_no_secret_in_the_clear() {
    let known = Known::new();
    known.search(5);
    let mut node = known.node();
    node.start();
    let second = node.post("/api/identities", json!({ "name": "Second" }));
    let sent = json!({
        "sender_identity_oid": known.identity.to_hex(),
        "recipient_identity_oid": second["oid"],
        "body": "a text that is no secret",
    });
    node.post("/api/messages/send", sent);
    known.search(6);
    let rotated = node.post(
        &format!("/api/identities/{}/rotate", known.identity.to_hex()),
        json!({}),
    );
    assert_eq!(rotated["key_id"], json!(1));
    assert_eq!(
        node.post("/api/keys/rotate-node", json!({}))["key_id"],
        json!(1)
    );
    // A refused request must not log the token.
    assert_eq!(
        node.api("POST", "/api/identities", Some(json!({ "unknown": 1 })))
            .status,
        400
    );
    let backup = known.at("backup");
    node.post("/api/backup", json!({ "path": backup.to_str().unwrap() }));
    node.until("the backup is made", Duration::from_secs(60), |node| {
        let state = node.get("/api/backup")["backup"]["state"].clone();
        assert_ne!(state, json!("failed"));
        (state == json!("done")).then_some(())
    });
    known.search(8);
    node.kill();
    known.search(8);
    node.start();
    node.stop();
    known.search(8);
    let log = fs::read(node.log()).unwrap();
    assert!(!log.is_empty(), "the output was searched");

    let restored = Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("restore")
        .args([&backup, &known.at("restored")])
        .arg("--passphrase-file")
        .arg(known.at("passphrase"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    fs::write(
        known.at("output"),
        [restored.stdout, restored.stderr].concat(),
    )
    .unwrap();
    known.search(12);
}

/// Oids are no secrets, but a log that an operator passes on must not tell which identities talk
/// to each other.
#[test]
fn rotation_logs_no_complete_oid() {
    let known = Known::new();
    let mut node = known.node();
    node.start();
    let second = node.post("/api/identities", json!({ "name": "Second" }));
    let sent = node.post(
        "/api/messages/send",
        json!({
            "sender_identity_oid": known.identity.to_hex(),
            "recipient_identity_oid": second["oid"],
            "body": "a text",
        }),
    );
    for path in [
        format!("/api/identities/{}/rotate", known.identity.to_hex()),
        "/api/keys/rotate-node".to_owned(),
    ] {
        assert_eq!(node.post(&path, json!({}))["key_id"], json!(1));
    }
    node.stop();
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(log.contains(&known.identity.short()), "{log}");
    for (name, oid) in [
        ("the rotated identity", json!(known.identity.to_hex())),
        ("the other identity", second["oid"].clone()),
        ("the message", sent["oid"].clone()),
        ("the conversation", sent["conversation_oid"].clone()),
    ] {
        let oid = oid.as_str().unwrap_or_else(|| panic!("{name}: {sent}"));
        assert_eq!(oid.len(), 32, "{name}");
        let line = log.lines().find(|line| line.contains(oid));
        assert_eq!(line, None, "{name}");
    }
}

#[test]
fn search_finds_every_form_of_every_secret() {
    let known = Known::new();
    let path = known.at("found");
    let all = [&known.secrets[..], &known.token].concat();
    assert!(all.len() > 300, "{}", all.len());
    for needle in &all {
        fs::write(&path, [b"before", &needle.bytes[..], b"behind"].concat()).unwrap();
        let found = found_in(&path, std::slice::from_ref(needle));
        assert_eq!(found, [format!("{}: {}", path.display(), needle.name)]);
    }
    // Also where the secret is only a part of the encoded bytes, at any offset.
    let secret: Vec<u8> = (0..32).map(|number| number * 7 + 3).collect();
    let needles = forms("it", &secret);
    for before in 0..8 {
        let whole = [&vec![0xa5; before], &secret[..], &[0x5a; 9]].concat();
        for (form, text) in [
            ("hex", data_encoding::HEXLOWER.encode(&whole)),
            ("HEX", data_encoding::HEXUPPER.encode(&whole)),
            ("base32,", data_encoding::BASE32.encode(&whole)),
            (
                "base32 lower",
                data_encoding::BASE32.encode(&whole).to_lowercase(),
            ),
            ("base64,", data_encoding::BASE64.encode(&whole)),
            ("base64url", data_encoding::BASE64URL.encode(&whole)),
        ] {
            fs::write(&path, text).unwrap();
            let found = found_in(&path, &needles);
            assert!(
                found.iter().any(|name| name.contains(form)),
                "{form}, {before}: {found:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(
            found_in(&path, &needles),
            [format!("{}: it, raw", path.display())]
        );
    }
    fs::write(&path, vec![0; 4096]).unwrap();
    assert!(found_in(&path, &all).is_empty());
}
