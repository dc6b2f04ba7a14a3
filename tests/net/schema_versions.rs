//! Two live nodes with different versions of an app: the one behind restarts and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, Setup};
use postern::object::{Attrs, Value};
use tempfile::TempDir;

const NEWS: &str = r#"slug = "news"
version = 1

[[type]]
number = 1
name = "news.item"
visibility = "public"
attr = [
  { number = 1, name = "text", kind = "text", bytes_max = 10 },
  # v2 { number = 2, name = "place", kind = "text", min = 0, bytes_max = 10 },
]

[[domain]]
name = "news"
parent_types = ["news.item"]
mode = "allow_update"
"#;

fn folder(parent: &TempDir, version: u8) -> PathBuf {
    let folder = parent.path().join(version.to_string());
    fs::create_dir_all(&folder).unwrap();
    let text = match version {
        1 => NEWS.to_owned(),
        _ => NEWS
            .replace("version = 1", "version = 2")
            .replace("# v2 ", ""),
    };
    fs::write(folder.join("news.toml"), text).unwrap();
    folder
}

fn node(net: &MemoryNet, name: &str, seed: u64, schemas: &Path) -> LiveNode {
    // A writer thread, which settles by itself after a start.
    let setup = Setup::seeded(name, seed).apps(&["identities", "news"]);
    setup.schema_dir(schemas).readers(2).live(net)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_behind_restarts_with_the_later_file_and_loses_nothing() {
    let (net, parent) = (MemoryNet::new(), tempfile::tempdir().unwrap());
    let later = folder(&parent, 2);
    let alice = node(&net, "Alice", 1, &later);
    let bob = node(&net, "Bob", 2, &folder(&parent, 1));
    bob.meet(&alice).await;
    let mut made = Vec::new();
    for number in 0..100 {
        let mut attrs = Attrs::from([(1, vec![Value::Text(number.to_string())])]);
        if number % 2 == 0 {
            attrs.insert(2, vec![Value::Text("Bern".into())]);
        }
        made.push(alice.make("news", 1, attrs).unwrap().oid);
    }
    bob.pull_everything(&alice).await;
    assert_eq!((bob.rows("waiting").len(), bob.rejects().len()), (50, 0));
    let bob = bob.stop().await.schema_dir(&later).live(&net);
    while !bob.rows("waiting").is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(made.iter().all(|oid| bob.parent("news", *oid).is_some()));
    assert!(bob.rejects().is_empty());
    for node in [alice, bob] {
        node.stop().await;
    }
}
