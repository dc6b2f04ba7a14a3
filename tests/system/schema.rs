//! `check` and `run` with a schema file that replaces an earlier one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::process::NodeProcess;
use serde_json::json;
use tempfile::TempDir;

const CONFIG: &str = "[node]
apps = [\"identities\", \"club\"]
schema_dir = \"schemas\"
[api]
listen = \"127.0.0.1:0\"
[transport]
kind = \"loopback\"
loopback_listen = \"127.0.0.1:0\"
";

const CLUB: &str = r#"slug = "club"
version = 2

[[type]]
number = 1
name = "club.news"
visibility = "public"
attr = [
  { number = 1, name = "text", kind = "text", max = 3, bytes_max = 100 },
  { number = 2, name = "place", kind = "text", min = 0, bytes_max = 100 },
]

[[domain]]
name = "club"
parent_types = ["club.news"]
mode = "allow_update"
"#;

struct Club {
    _parent: TempDir,
    node: NodeProcess,
}

impl Club {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
        let node = NodeProcess::init(binary, parent.path(), "Alice", CONFIG);
        fs::create_dir(node.folder.join("schemas")).unwrap();
        let club = Self {
            _parent: parent,
            node,
        };
        club.install(CLUB);
        club
    }

    fn install(&self, text: &str) {
        fs::write(self.node.folder.join("schemas/club.toml"), text).unwrap();
    }

    /// Exit code and standard error of a command on the node's folder.
    fn command(&self, name: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.arg(name).arg("--config").arg(self.node.config());
        if name == "run" {
            command.arg("--passphrase-file").arg(self.node.passphrase());
        }
        command.env_remove("CREDENTIALS_DIRECTORY");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    }
}

#[test]
fn check_and_run_refuse_each_change_that_is_not_additive() {
    let mut club = Club::new();
    assert_eq!(club.command("check").0, Some(0));
    club.node.start();
    assert_eq!(club.command("check").0, Some(0), "while the node runs");
    club.node.stop();
    let edits = [
        (
            "kind = \"text\", max = 3",
            "kind = \"json\", max = 3",
            "the kind differs",
        ),
        (
            "min = 0, bytes_max",
            "min = 1, bytes_max",
            "may not fit: restore min = 0",
        ),
        ("max = 3", "max = 2", "may not fit: restore max = 3"),
        ("\"public\"", "\"local\"", "the visibility differs"),
        ("\"allow_update\"", "\"append_only\"", "the mode differs"),
        (
            "number = 2, name = \"place\"",
            "number = 2, name = \"title\"",
            "never removed or reused",
        ),
        ("max = 3", "max = 4", "raise `version` to 3"),
        ("version = 2", "version = 1", "install the later file"),
    ];
    for (from, to, reason) in edits {
        let later = match reason {
            "raise `version` to 3" | "install the later file" => CLUB.to_owned(),
            _ => CLUB.replace("version = 2", "version = 3"),
        };
        let mut text = later.replacen(from, to, 1);
        assert_ne!(text, later, "{from}");
        if to == "\"local\"" {
            // No domain may contain a local type.
            text.truncate(text.find("[[domain]]").unwrap());
        }
        club.install(&text);
        for name in ["check", "run"] {
            let (code, stderr) = club.command(name);
            assert_eq!(code, Some(2), "{name} {to}: {stderr}");
            assert!(
                stderr.contains("the app `club` cannot replace the stored one"),
                "{stderr}"
            );
            assert!(stderr.contains(reason), "{name} {to}: {stderr}");
        }
    }
    club.install(CLUB);
    club.node.start();
    club.node.stop();
}

#[test]
fn node_upgrades_by_a_restart() {
    let mut club = Club::new();
    club.node.start();
    let post = |node: &NodeProcess, attrs: serde_json::Value| {
        let owner = &node.get("/api/identities")["identities"][0]["oid"];
        let body = json!({ "type": "club.news", "owner": owner, "attrs": attrs });
        node.post("/api/objects", body);
    };
    post(&club.node, json!({ "text": ["a"] }));
    club.node.stop();
    let later = CLUB.replace("version = 2", "version = 3");
    club.install(&later.replace(
        "\n]\n",
        "\n  { number = 3, name = \"motto\", kind = \"text\", min = 0, bytes_max = 9 },\n]\n",
    ));
    assert_eq!(club.command("check").0, Some(0));
    club.node.start();
    post(&club.node, json!({ "text": ["b"], "motto": ["c"] }));
    club.node.stop();
    club.install(CLUB);
    let (code, stderr) = club.command("run");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("version 2 is lower than 3"), "{stderr}");
}

/// A version of the app with more domains.
fn with_domains(count: u8) -> String {
    let mut text = CLUB.replace("version = 2", "version = 3");
    for number in 0..count {
        text += &format!(
            "\n[[domain]]\nname = \"club.n{number}\"\nparent_types = [\"club.news\"]\n\
             mode = \"allow_update\"\n"
        );
    }
    text
}

#[test]
fn check_and_run_refuse_an_app_that_needs_more_domains_than_are_left() {
    let mut club = Club::new();
    club.node.start();
    club.node.stop();
    let database = rusqlite::Connection::open(club.node.folder.join("postern.db")).unwrap();
    // Bits 0 to 61 are used then, as after many apps that are disabled now.
    let use_bits = "WITH RECURSIVE n(bit) AS (SELECT MAX(bit) + 1 FROM domain_bit
                      UNION ALL SELECT bit + 1 FROM n WHERE bit < 61)
                    INSERT INTO domain_bit SELECT 'gone.n' || bit, bit FROM n";
    database.execute(use_bits, []).unwrap();
    drop(database);
    club.install(&with_domains(2));
    for name in ["check", "run"] {
        let (code, stderr) = club.command(name);
        assert_eq!(code, Some(2), "{name}: {stderr}");
        let reason = "the app `club` needs 2 new sync domains, but this database and other enabled \
                      apps use 62 of 63 (1 left)";
        assert!(stderr.contains(reason), "{name}: {stderr}");
    }
    club.install(&with_domains(1));
    assert_eq!(club.command("check").0, Some(0));
    club.node.start();
    club.node.stop();
}

/// The names are known only after the schema files were read.
#[test]
fn check_and_run_refuse_an_unknown_domain_to_push_and_run_takes_the_others() {
    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    let mut club = Club::new();
    let before = fs::read_to_string(club.node.config()).unwrap();
    let configure = |domain: &str| {
        let peer = format!("\n[[peer]]\nonion = \"{ONION}\"\npush_domains = [\"{domain}\"]\n");
        fs::write(club.node.config(), format!("{before}{peer}")).unwrap();
    };
    configure("clubs");
    for name in ["check", "run"] {
        let (code, stderr) = club.command(name);
        assert_eq!(code, Some(2), "{name}: {stderr}");
        let reason = "there is no domain `clubs`; did you mean `club`?";
        assert!(stderr.contains(reason), "{name}: {stderr}");
    }
    configure("club");
    club.node.start();
    club.node.stop();
    // A row of a peer that is not in the configuration, as an earlier one left it.
    let database = rusqlite::Connection::open(club.node.folder.join("postern.db")).unwrap();
    let row = "INSERT INTO sync_outbox VALUES (zeroblob(32), 'club', 1)";
    database.execute(row, []).unwrap();
    drop(database);
    club.node.start();
    club.node.stop();
    let database = rusqlite::Connection::open(club.node.folder.join("postern.db")).unwrap();
    let count = database.query_row("SELECT COUNT(*) FROM sync_outbox", [], |row| row.get(0));
    assert_eq!(count, Ok(0));
}
