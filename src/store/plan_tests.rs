//! Tests of how SQLite runs every statement of the store: none reads a table that peers can make
//! large from its beginning.

use std::fs;
use std::path::Path;

use super::app_tables::AppTable;
use super::testing::Folder;
use super::tests::plan;
use super::*;

/// Tables whose number of rows no peer decides, or decides only within a small limit.
const SMALL: [&str; 21] = [
    "address",
    "app",
    "api_token",
    "asked_peer",
    "contact",
    "domain_bit",
    "due_list",
    "ended_scope",
    "epoch",
    "introduction",
    "meta",
    "pending",
    "purge",
    "purge_position",
    "purge_round",
    "reclaimed_domain",
    "recovery_domain",
    "recovery_key",
    "recovery_peer",
    "tier_usage",
    "write_mode",
];

/// A table that its statement defines, in a part that another literal holds.
const WITH_VERDICTS: &str = "standing";

/// Statements that read a large table from its beginning or sort, each with the reason why no
/// writer is held for long.
const EXCEPTIONS: [(&str, &str); 35] = [
    ("UPDATE pull_again SET not_before = 0", "once at the start"),
    (
        "SELECT COUNT(*) FROM sqlite_schema",
        "the tables of this program",
    ),
    (
        "SELECT peer_id, domain, epoch, seq, oid, type, code, at FROM sync_rejects",
        "ends at a limit",
    ),
    (
        "SELECT peer_id, code, type, COUNT(*), MAX(at) FROM sync_rejects",
        "for the operator, on a reader",
    ),
    (
        "SELECT peer_id, domain, change_seq FROM sync_outbox",
        "once at the start; the configuration bounds it",
    ),
    (
        "SELECT 1 FROM invitation INDEXED BY invitation_declined",
        "ends at the first row",
    ),
    (
        "UPDATE invitation INDEXED BY invitation_held",
        "reads only what is put off",
    ),
    ("DELETE FROM pending", "has at most a hundred rows"),
    (
        "SELECT w.account, COUNT(*)",
        "sorts the waiting objects of one peer",
    ),
    ("SELECT 1 FROM waiting LIMIT 1", "ends at the first row"),
    (
        "SELECT needs_kind, needs, after_id, until_id FROM settling",
        "ends at the first row",
    ),
    (
        "INSERT INTO settling",
        "sorts the causes of one identity: as many as key numbers",
    ),
    (
        "SELECT r.until_seq FROM identity",
        "sorts the identities of this node",
    ),
    (
        "SELECT COUNT(*) FROM verdict",
        "for the operator; a verdict is a decision of the operator",
    ),
    (
        "SELECT peer_id FROM ( SELECT peer_id FROM peers",
        "for the operator, on a reader",
    ),
    (
        "SELECT EXISTS (SELECT 1 FROM peers JOIN verdict",
        "an admitted peer costs work",
    ),
    (
        "SELECT peer_id, ticket FROM peers WHERE onion",
        "an admitted peer costs work",
    ),
    (
        "SELECT peer_id FROM peers WHERE tier = 'untrusted'",
        "once an hour; see above",
    ),
    (
        "SELECT epoch, key_id, signature, head FROM peer_epoch",
        "has a few rows for each peer",
    ),
    ("DELETE FROM peer_epoch", "has a few rows for each peer"),
    (
        "SELECT COUNT(*) FROM identity WHERE frozen = 1",
        "for the operator, on a reader",
    ),
    (
        "SELECT peer_id FROM verdict",
        "a verdict is a decision of the operator",
    ),
    ("SELECT 1 FROM sqlite_schema", "the tables of this program"),
    ("INSERT INTO recovery_peer", "once for each epoch"),
    ("INSERT INTO recovery_home", "once for each epoch"),
    ("INSERT INTO recovery_key", "once for each epoch"),
    ("UPDATE reader SET since_seq = 0", "once for each epoch"),
    (
        "SELECT scope_id, peer_no, is_going FROM purge_scope",
        "ends at the first row",
    ),
    (
        "SELECT oid, peer_no, after_scope FROM purge_identity",
        "ends at the first row",
    ),
    ("SELECT 1 FROM purged LIMIT 1", "ends at the first row"),
    ("SELECT 1 FROM purge_scope LIMIT 1", "ends at the first row"),
    (
        "SELECT g.peer_no FROM purge AS g CROSS JOIN peers",
        "a purge is an order of the operator",
    ),
    (
        "DELETE FROM rights_list WHERE id = ?1",
        "runs without checks of foreign keys",
    ),
    (
        "DELETE FROM scope WHERE id = ?1",
        "runs without checks of foreign keys",
    ),
    (
        "UPDATE identity SET home_since_seq = 0",
        "once for each epoch",
    ),
];

/// The steps of a plan that read a large table from its beginning, or sort.
fn faults(store: &Store, sql: &str) -> Vec<String> {
    let plan = plan(store, sql);
    let is_fault = |step: &&str| {
        let scanned = step.trim().strip_prefix("SCAN ");
        let table = scanned.and_then(|rest| rest.split(' ').next());
        // Sorting within one change group is cheap.
        let sorts = step.contains("TEMP B-TREE") && !step.contains("LAST TERM");
        let is_large = |table: &str| !SMALL.contains(&table) && !table.starts_with('(');
        table.is_some_and(|table| is_large(table) && table != "CONSTANT") || sorts
    };
    plan.lines().filter(is_fault).map(str::to_owned).collect()
}

/// The SQL statements among the string literals of a source file, without those of its tests.
fn statements(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let code: Vec<&str> = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n").replace("'\"'", "");
    let literals = code.split('"').skip(1).step_by(2);
    let is_sql = |text: &&str| {
        let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];
        verbs.iter().any(|verb| text.starts_with(verb))
            && !text.contains('{')
            && !text.contains(WITH_VERDICTS)
    };
    let joined = |text: &str| {
        let words = text.replace("\\\n", " ");
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = literals.filter(is_sql).map(joined).collect();
    let split = texts.iter().flat_map(|text| text.split(';'));
    let each = split.map(str::trim).filter(|sql| !sql.is_empty());
    each.map(str::to_owned).collect()
}

#[test]
fn statement_of_the_store_reads_no_large_table_from_its_beginning() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let (mut found, mut count) = (Vec::new(), 0);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    for entry in fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".rs") || name.ends_with("tests.rs") || name == "testing.rs" {
            continue;
        }
        for sql in statements(&fs::read_to_string(&path).unwrap()) {
            count += 1;
            let faults = faults(&store, &sql);
            let is_known = EXCEPTIONS.iter().any(|(start, _)| sql.starts_with(start));
            if !faults.is_empty() && !is_known {
                found.push(format!("{name}: {sql}\n  {faults:?}"));
            }
        }
    }
    assert!(count > 90, "only {count} statements were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Statements on the tables of an app, with what they are for.
fn of_app(app: &AppTable) -> [(&'static str, &String); 19] {
    [
        ("update", &app.update_parent),
        ("delete values", &app.delete_attrs),
        ("by oid", &app.parent_by_oid),
        ("by id", &app.parent_by_id),
        ("oid by id", &app.oid_by_id),
        ("values", &app.attrs),
        ("list", &app.listing),
        ("list by creation", &app.created),
        ("created between", &app.created_between),
        ("own in a scope", &app.own_in_scope),
        ("reclaim", &app.by_oid),
        ("restamp a scope", &app.restamped_in_scope),
        ("drop an ended scope", &app.received_in_scope),
        ("count a scope", &app.count_in_scope),
        ("list that is seen", &app.list_seen),
        ("drop values", &app.drop_values),
        ("restamp", &app.restamp_parent),
        ("restamp values", &app.restamp_attrs),
        ("re-sign", &app.signed_before),
    ]
}

#[test]
fn statement_on_the_tables_of_an_app_searches_an_index() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let app = store.apps().get("messages").unwrap();
    for (name, sql) in of_app(app) {
        let found = faults(&store, sql);
        assert!(found.is_empty(), "{name}: {found:?}\n{sql}");
    }
    let local = "USING INDEX app_messages_parent_local (owner_oid=? AND key_id=?)";
    let first = "USING INDEX app_messages_parent_local (owner_oid=? AND key_id<?)";
    assert_eq!(
        plan(&store, &app.signed_before),
        format!("SEARCH p {local}\nSCALAR SUBQUERY 1\nSEARCH o {first}")
    );
    assert_eq!(
        plan(&store, &app.list_before),
        "SEARCH p USING INDEX app_messages_parent_lists (owner_oid=? AND key_id<?)"
    );
    // The index gives the order, so that a portion reads no more lists than it re-signs.
    assert_eq!(
        plan(&store, &app.lists_before),
        "SEARCH r USING INDEX rights_list_order (scope_id=? AND key_number<?)\n\
         SEARCH p USING INTEGER PRIMARY KEY (rowid=?)"
    );
    let scope = "SEARCH p USING INDEX app_messages_parent_scope (scope_id=? AND change_seq>?";
    assert_eq!(plan(&store, &app.received_in_scope), format!("{scope})"));
    let until = format!("{scope} AND change_seq<?)");
    assert!(plan(&store, &app.restamped_in_scope).starts_with(&until));
    assert_eq!(
        plan(&store, &app.by_oid),
        "SEARCH p USING INDEX sqlite_autoindex_app_messages_parent_1 (oid>?)"
    );
}

#[test]
fn open_readers_are_found_beside_any_number_of_closed_ones() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let open = "INDEX reader_scope (scope_id=? AND until_seq=?)";
    let of_node = "SEARCH r USING PRIMARY KEY (identity_oid=? AND scope_id=?)";
    for (sql, step) in [
        (scopes::READERS, open),
        (scopes::CLOSE_READERS, open),
        (deliveries::SCOPE_AT, "INDEX reader_scope (scope_id=?)"),
        (deliveries::RIGHTS_IN, "INDEX reader_scope (scope_id=?)"),
        (
            reading::READERS_UNTIL,
            "INDEX reader_scope (scope_id=? AND until_seq>?)",
        ),
        (&sight::seen_by_identity(), of_node),
        (&sight::seen_at_home(), of_node),
    ] {
        let found = plan(&store, sql);
        assert!(found.contains(step), "{sql}\n{found}");
    }
}

#[test]
fn history_of_opened_scopes_reads_only_the_index_of_these_scopes() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    for identities in ["SELECT ?2", "SELECT oid FROM identity WHERE home_peer = ?2"] {
        let found = plan(&store, &feed::opened_rows_sql("messages", identities));
        for step in [
            "SEARCH h USING COVERING INDEX app_messages_parent_scope (scope_id=?)",
            "SEARCH opening USING PRIMARY KEY (identity_oid=? AND opened_seq=?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)",
        ] {
            assert!(found.contains(step), "{found}");
        }
        assert!(
            !found.contains("SCAN h") && !found.contains("SCAN p"),
            "{found}"
        );
    }
}

#[test]
fn lists_without_an_identity_take_one_search_for_each_key() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let found = plan(&store, answers::LISTS_WITHOUT);
    let by_key = "SEARCH l USING COVERING INDEX rights_list_order (scope_id=? AND key_number>?)";
    let lists = "SEARCH r USING COVERING INDEX rights_list_order \
                 (scope_id=? AND key_number=? AND version>? AND version<?)";
    for step in [by_key, lists] {
        assert!(found.contains(step), "{found}");
    }
}
