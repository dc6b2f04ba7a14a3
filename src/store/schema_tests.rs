//! The schema of an app that a database keeps, and what may replace it.

use std::fs;

use super::testing::{EPOCH, Folder};
use super::*;
use crate::schema::Schemas;

const CLUB: &str = r#"slug = "club"
version = 1

[[type]]
number = 1
name = "club.news"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 100 }]

[[domain]]
name = "club"
parent_types = ["club.news"]
mode = "allow_update"
"#;

/// Loads `identities` and, if there is a text, `club`.
fn loaded(folder: &Folder, text: Option<&str>) -> Schemas {
    let files = folder.0.path().join("schemas");
    fs::create_dir_all(&files).unwrap();
    let mut apps = vec!["identities".to_owned()];
    if let Some(text) = text {
        fs::write(files.join("club.toml"), text).unwrap();
        apps.push("club".to_owned());
    }
    Schemas::load(&apps, Some(&files)).unwrap()
}

fn open(folder: &Folder, text: Option<&str>) -> Result<Store, StoreError> {
    Store::open(&folder.file(), &loaded(folder, text), EPOCH)
}

fn club(folder: &Folder) -> StoredSchema {
    let mut stored = stored_schemas(&folder.file()).unwrap();
    stored.retain(|it| it.slug == "club");
    stored.pop().unwrap()
}

fn later(version: u32, bytes_max: u32) -> String {
    let text = CLUB.replace("version = 1", &format!("version = {version}"));
    text.replace("bytes_max = 100", &format!("bytes_max = {bytes_max}"))
}

#[test]
fn version_and_text_are_kept() {
    let folder = Folder::new();
    assert_eq!(stored_schemas(&folder.file()).unwrap(), []);
    let store = open(&folder, Some(CLUB)).unwrap();
    let of = |version, text: &str| StoredSchema {
        slug: "club".into(),
        version,
        text: Some(text.into()),
    };
    assert_eq!(club(&folder), of(1, CLUB), "also while the node runs");
    drop(store);
    let commented = format!("# a comment\n{CLUB}");
    for (version, text) in [(1, &commented), (2, &later(2, 100)), (5, &later(5, 200))] {
        drop(open(&folder, Some(text)).unwrap());
        assert_eq!(club(&folder), of(version, text));
    }
}

#[test]
fn changed_schema_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    drop(open(&folder, Some(&later(2, 100))).unwrap());
    let before = club(&folder);
    for text in [later(1, 100), later(2, 101), later(3, 99)] {
        let refused = open(&folder, Some(&text)).unwrap_err();
        assert!(matches!(refused, StoreError::Schema(_)), "{refused}");
        assert_eq!(club(&folder), before);
    }
    // A disabled app is compared when it is enabled again.
    drop(open(&folder, None).unwrap());
    assert_eq!(club(&folder), before);
    let refused = open(&folder, Some(&later(3, 99))).unwrap_err();
    assert!(matches!(refused, StoreError::Schema(_)), "{refused}");
    drop(open(&folder, Some(&later(3, 101))).unwrap());
    assert_eq!(club(&folder).version, 3);
}

#[test]
fn migrated_database_takes_the_first_text() {
    let folder = Folder::new();
    let store = open(&folder, Some(&later(2, 100))).unwrap();
    let forget = "UPDATE app SET text = NULL WHERE slug = 'club'";
    store.writer.execute(forget, []).unwrap();
    drop(store);
    let refused = open(&folder, Some(&later(1, 100))).unwrap_err();
    assert!(matches!(refused, StoreError::Schema(_)), "{refused}");
    assert_eq!(club(&folder).text, None);
    drop(open(&folder, Some(&later(2, 50))).unwrap());
    assert_eq!(club(&folder).text, Some(later(2, 50)));
    let refused = open(&folder, Some(&later(3, 49))).unwrap_err();
    assert!(matches!(refused, StoreError::Schema(_)), "{refused}");
}
