//! Tests of the store as a whole: its tables, its settings, and how SQLite runs its statements.

use keys::Signature;
use rusqlite::Connection;

use super::testing::{EPOCH, Folder, schemas};
use super::version::{APPLICATION_ID, SCHEMA_VERSION};
use super::*;
use crate::acl::{AclManager, Granted};
use crate::op_context::AppId;

const LATER: keys::Epoch = keys::Epoch::from_bytes([8; 16]);

fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

fn tables(store: &Store) -> Vec<String> {
    column(
        &store.writer,
        "SELECT name FROM sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )
}

/// The plan by which SQLite runs a statement, one step in each line.
pub(super) fn plan(store: &Store, sql: &str) -> String {
    let mut statement = store
        .writer
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let rows = statement
        .raw_query()
        .mapped(|row| row.get::<_, String>(3))
        .collect::<rusqlite::Result<Vec<_>>>();
    rows.unwrap().join("\n")
}

pub(super) fn granted(seed: u8) -> Granted {
    let (first, next) = (
        keys::SecretKey::from_seed(&[seed; 32]),
        keys::SecretKey::from_seed(&[seed ^ 0xff; 32]),
    );
    let chain = keys::KeyChain::new(keys::Genesis::new(first.public(), &next.public()));
    AclManager::check_self_certified(&chain.verify().unwrap())
}

pub(super) fn parent(granted: &Granted, id: i64, change_seq: u64) -> ParentRow {
    ParentRow {
        id,
        oid: granted.oid(),
        type_number: 1,
        owner: granted.oid(),
        scope_id: ScopeId::PUBLIC,
        rev: 1,
        deleted: false,
        key_id: 0,
        signature: Signature::from_bytes([0; 64]),
        origin: None,
        salt: None,
        rights_id: None,
        created_seq: change_seq,
        change_seq,
        sync_flags: 1,
        account: Account::Own,
    }
}

pub(super) fn write(
    store: &mut Store,
    seed: u8,
    id: i64,
    change_seq: u64,
) -> Result<(), StoreError> {
    let apps = store.apps().clone();
    let granted = granted(seed);
    store.transaction(|tx| {
        tx.parents(apps.get("rides").unwrap())?.insert_parent(
            &parent(&granted, id, change_seq),
            &[],
            &granted,
        )
    })
}

#[test]
fn new_database_has_the_tables_of_the_schema_and_a_pair_for_each_app() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let expected = [
        "accept",
        "address",
        "api_token",
        "app",
        "app_identities_attr",
        "app_identities_parent",
        "app_messages_attr",
        "app_messages_parent",
        "asked_peer",
        "contact",
        "domain_bit",
        "due_list",
        "ended_ban",
        "ended_scope",
        "epoch",
        "forgotten_key",
        "identity",
        "introduction",
        "invitation",
        "leave",
        "list_named",
        "meta",
        "opening",
        "overruled",
        "peer_epoch",
        "peers",
        "pending",
        "pending_home",
        "pull_again",
        "purge",
        "purge_identity",
        "purge_position",
        "purge_round",
        "purge_scope",
        "purged",
        "reader",
        "receipt",
        "reclaimed_domain",
        "recovery_domain",
        "recovery_home",
        "recovery_key",
        "recovery_peer",
        "refused_object",
        "relayed_usage",
        "rights_entry",
        "rights_list",
        "scope",
        "settling",
        "sync_outbox",
        "sync_rejects",
        "sync_state",
        "tier_usage",
        "unapplied_object",
        "unapplied_scope",
        "verdict",
        "waiting",
        "write_mode",
    ];
    assert_eq!(tables(&store), expected);
    let strict = column(
        &store.writer,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 1",
    );
    assert_eq!(strict.len(), expected.len(), "every table is STRICT");
}

#[test]
fn reopening_keeps_the_epoch_the_bits_and_the_rows() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    let bit = store.apps().mask("rides.offers");
    write(&mut store, 1, 1, 41).unwrap();
    drop(store);

    let store = Store::open(
        &folder.file(),
        &schemas(&["identities", "contacts", "rides"]),
        LATER,
    )
    .unwrap();
    assert_eq!(store.epoch(), EPOCH);
    assert_eq!(store.apps().mask("rides.offers"), bit);
    assert_eq!(
        store.apps().mask("contacts"),
        1 << 2,
        "a later app gets the next bit"
    );
    assert_eq!(store.rows().heads().unwrap().0, 41);
    drop(store);

    let store = folder.open(&["identities"]).unwrap();
    assert_eq!(
        store.rows().heads().unwrap().0,
        41,
        "a disabled app still counts"
    );
    assert_eq!(store.apps().mask("rides.offers"), 0);
}

#[test]
fn refuses_foreign_files_and_later_versions_without_a_change() {
    let foreign = |sql: &str| {
        let folder = Folder::new();
        Connection::open(folder.file())
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        let before = std::fs::read(folder.file()).unwrap();
        let error = folder.open(&["identities"]).unwrap_err();
        let is_refused = matches!(error, StoreError::Foreign(_) | StoreError::Version(_));
        assert!(is_refused, "{error}");
        assert_eq!(
            std::fs::read(folder.file()).unwrap(),
            before,
            "the file did not change"
        );
        error.to_string()
    };
    assert!(foreign("CREATE TABLE foreign_table (x)").contains("not made by Postern"));
    assert!(
        foreign("PRAGMA application_id = 77; CREATE TABLE foreign_table (x)")
            .contains("not made by Postern")
    );
    let later = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99");
    assert!(foreign(&later).contains("version 99"));
    let next = format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
        SCHEMA_VERSION + 1
    );
    assert!(foreign(&next).contains("use a later program"));

    let folder = Folder::new();
    std::fs::write(folder.file(), [b'x'; 4096]).unwrap();
    assert!(
        folder.open(&["identities"]).is_err(),
        "a file that is not a database"
    );
}

#[test]
fn connections_use_the_settings_that_survive_power_loss() {
    let folder = Folder::new();
    let store = folder.open(&["identities"]).unwrap();
    let reader = store.reader().unwrap();
    for connection in [&store.writer, &reader.connection] {
        let pragma = |name| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .unwrap()
        };
        let journal: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(
            (
                journal.as_str(),
                pragma("synchronous"),
                pragma("foreign_keys")
            ),
            ("wal", 2, 1)
        );
    }
    assert!(
        reader.connection.execute("DELETE FROM meta", []).is_err(),
        "a reading connection cannot write"
    );
}

#[test]
fn failed_transaction_leaves_no_row() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    let granted = granted(1);
    let apps = store.apps().clone();
    let app = apps.get("rides").unwrap();
    let failed = store.transaction(|tx| {
        tx.parents(app)?.insert_parent(
            &parent(&granted, 1, 1),
            &[(1, 0, StoredValue::Plain(&"x".into()))],
            &granted,
        )?;
        let scope = tx.insert_scope(app, 1, &granted.oid(), &[granted.oid()], true)?;
        tx.put_reader(scope, &granted.oid(), 0)?;
        assert!(
            tx.parent(app, &granted.oid())?.is_some(),
            "a transaction sees its own rows"
        );
        Err::<(), _>(StoreError::Inconsistent("a failure of the caller"))
    });
    assert!(failed.is_err());
    assert_eq!(store.rows().parent(app, &granted.oid()).unwrap(), None);
    assert_eq!(store.rows().readers(ScopeId(2)).unwrap(), []);
    write(&mut store, 1, 1, 1).unwrap();
}

#[test]
fn grant_for_another_object_writes_nothing() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    let (one, other) = (granted(1), granted(2));
    let apps = store.apps().clone();
    let app = apps.get("rides").unwrap();
    let row = parent(&one, 1, 1);
    let refused = store.transaction(|tx| tx.parents(app)?.insert_parent(&row, &[], &other));
    assert!(matches!(refused, Err(StoreError::Inconsistent(_))));
    write(&mut store, 1, 1, 1).unwrap();
    let refused = store.transaction(|tx| tx.parents(app)?.update_parent(&row, &[], &other));
    assert!(matches!(refused, Err(StoreError::Inconsistent(_))));
}

#[test]
fn queries_of_every_pull_search_indexes() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let app = store.apps().get("messages").unwrap();
    for sql in [
        &app.head,
        &app.attrs,
        &app.parent_by_oid,
        &app.oid_by_id,
        &app.delete_attrs,
    ] {
        let plan = plan(&store, sql);
        assert!(
            !plan.contains("SCAN p") && !plan.contains("SCAN app_"),
            "{sql}\n{plan}"
        );
    }
    let sql = "SELECT id FROM waiting WHERE needs_kind = 1 AND needs = ?1 AND id > 0 ORDER BY id";
    let waiting = plan(&store, sql);
    assert!(
        waiting.contains("SEARCH") && !waiting.contains("TEMP"),
        "{waiting}"
    );
}

#[test]
fn reader_snapshot_does_not_see_later_writes() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    let mut reader = store.reader().unwrap();
    reader
        .snapshot(|rows| {
            assert_eq!(rows.heads()?.0, 0);
            write(&mut store, 1, 1, 8)?;
            assert_eq!(rows.heads()?.0, 0);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    assert_eq!(reader.snapshot(|rows| rows.heads()).unwrap().0, 8);
    assert!(store.apps().get("rides").unwrap().id > AppId(0));
}
