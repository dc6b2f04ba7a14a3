//! Tests of the queries of a pull: their plans, and how far each part reaches.

use keys::Oid;

use super::testing::{EPOCH, Folder};
use super::tests::{granted, parent, plan, write};
use super::*;
use crate::op_context::AppId;
use crate::schema::Schemas;

#[test]
fn selection_reads_covering_indexes_alone() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    let domain = store.apps().domain("messages").unwrap();
    assert_eq!(
        plan(&store, &domain.in_order),
        "SEARCH p USING COVERING INDEX app_messages_parent_seq (change_seq>?)"
    );
    let by_scope = plan(&store, &domain.by_scope);
    let search = "USING COVERING INDEX app_messages_parent_scope (scope_id=? AND change_seq>?";
    assert_eq!(
        by_scope,
        format!(
            "SCAN j VIRTUAL TABLE INDEX 1:\n\
             SEARCH p {search} AND change_seq<?)\n\
             CORRELATED SCALAR SUBQUERY 1\n\
             SEARCH c {search})"
        )
    );
    let readers = plan(&store, scopes::READERS_AT);
    assert_eq!(
        readers,
        "SEARCH i USING INDEX identity_home (home_peer=?)\n\
         SEARCH r USING PRIMARY KEY (identity_oid=?)"
    );
    let app = store.apps().get("messages").unwrap();
    let newest = plan(&store, &app.newest_of_scopes);
    assert!(
        newest.contains("SEARCH p USING COVERING INDEX app_messages_parent_scope (scope_id=?)"),
        "{newest}"
    );
}

#[test]
fn scopes_of_founders_are_found_by_one_search() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "messages"]).unwrap();
    assert_eq!(
        plan(&store, scopes::SCOPES_OF_FOUNDERS),
        "SEARCH scope USING INDEX scope_founders (app_id=? AND founders=?)"
    );
    let oid = |number| Oid::from_bytes([number; 16]);
    let apps = store.apps().clone();
    let app = apps.get("messages").unwrap();
    let founded = [
        (9, vec![1, 2]),
        (5, vec![2, 1]),
        (4, vec![1, 2, 3]),
        (7, vec![1, 2]),
    ];
    store
        .transaction(|tx| {
            for (parent_id, (number, founders)) in (1..).zip(&founded) {
                let founders: Vec<Oid> = founders.iter().map(|number| oid(*number)).collect();
                tx.insert_scope(app, parent_id, &oid(*number), &founders, true)?;
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    let scopes = |app, founders: &[u8], limit| {
        let founders: Vec<Oid> = founders.iter().map(|number| oid(*number)).collect();
        let found = store
            .rows()
            .scopes_of_founders(app, &founders, limit)
            .unwrap();
        found.into_iter().map(|(_, oid)| oid).collect::<Vec<_>>()
    };
    assert_eq!(
        scopes(app.id, &[1, 2], 9),
        [oid(7), oid(5), oid(9)],
        "the newest first"
    );
    assert_eq!(scopes(app.id, &[2, 1], 2), [oid(7), oid(5)]);
    assert_eq!(scopes(app.id, &[3, 2, 1], 9), [oid(4)]);
    assert_eq!(scopes(app.id, &[1], 9), []);
    assert_eq!(scopes(AppId(app.id.0 + 1), &[1, 2], 9), []);
}

#[test]
fn conversations_are_listed_without_reading_other_scopes() {
    let folder = Folder::new();
    let store = folder.open(&["identities", "messages"]).unwrap();
    assert_eq!(
        plan(&store, reading::SCOPES_READ_BY),
        "SEARCH r USING PRIMARY KEY (identity_oid=? AND scope_id>?)\n\
         SEARCH s USING INTEGER PRIMARY KEY (rowid=?)"
    );
    let app = store.apps().get("messages").unwrap();
    let count = plan(&store, &app.count_in_scope);
    assert!(
        count.contains(
            "SEARCH app_messages_parent USING INDEX app_messages_parent_scope (scope_id=?)"
        ),
        "{count}"
    );
    assert!(!count.contains("TEMP B-TREE"), "{count}");
    let list = plan(&store, &app.list_seen);
    assert!(
        !list.contains("SCAN") && !list.contains("TEMP B-TREE"),
        "{list}"
    );
}

#[test]
fn app_with_several_domains_has_a_partial_index_for_each() {
    let folder = Folder::new();
    let own = folder.0.path().join("apps");
    std::fs::create_dir(&own).unwrap();
    let app = r#"
slug = "garden"
version = 1
[[type]]
number = 1
name = "garden.seed"
visibility = "public"
[[type.attr]]
number = 1
name = "name"
kind = "text"
bytes_max = 64
[[type]]
number = 2
name = "garden.tool"
visibility = "public"
[[type.attr]]
number = 1
name = "name"
kind = "text"
bytes_max = 64
[[domain]]
name = "garden.seeds"
parent_types = ["garden.seed"]
mode = "no_update"
[[domain]]
name = "garden.tools"
parent_types = ["garden.tool"]
mode = "allow_update"
"#;
    std::fs::write(own.join("garden.toml"), app).unwrap();
    let schemas = Schemas::load(&["identities".into(), "garden".into()], Some(&own)).unwrap();
    let store = Store::open(&folder.file(), &schemas, EPOCH).unwrap();
    for domain in ["garden.seeds", "garden.tools"] {
        let table = store.apps().domain(domain).unwrap();
        let bit = table.mask.trailing_zeros();
        let index = format!("app_garden_parent_bit{bit} (change_seq>?)");
        let in_order = plan(&store, &table.in_order);
        assert_eq!(in_order, format!("SEARCH p USING COVERING INDEX {index}"));
        let index = format!("app_garden_parent_scope_bit{bit} (scope_id=? AND change_seq>?");
        let by_scope = plan(&store, &table.by_scope);
        assert_eq!(by_scope.matches(&index).count(), 2, "{by_scope}");
        assert_eq!(by_scope.matches("COVERING").count(), 2, "{by_scope}");
    }
}

/// Writes a row of `rides` in a scope.
fn write_in(store: &mut Store, seed: u8, scope: ScopeId, change_seq: u64) {
    let apps = store.apps().clone();
    let granted = granted(seed);
    let row = ParentRow {
        scope_id: scope,
        ..parent(&granted, seed.into(), change_seq)
    };
    store
        .transaction(|tx| {
            let app = apps.get("rides").unwrap();
            tx.parents(app)?.insert_parent(&row, &[], &granted)
        })
        .unwrap();
}

/// `change_seq` and local id of each entry, and how far the part reaches.
fn part(part: ChangePart) -> (Vec<(u64, i64)>, Option<u64>) {
    let entries = part.entries.iter();
    let entries = entries.map(|entry| (entry.change_seq, entry.id));
    (entries.collect(), part.reached)
}

#[test]
fn changes_in_order_end_after_a_whole_change_group() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    for (id, change_seq) in [(1, 3), (2, 3), (3, 5), (4, 9), (5, 9)] {
        write(&mut store, id as u8, id, change_seq).unwrap();
    }
    let domain = store.apps().domain("rides.offers").unwrap();
    let changes = |after, most| part(store.rows().changes_in_order(domain, after, most).unwrap());
    let all = vec![(3, 1), (3, 2), (5, 3), (9, 4), (9, 5)];
    assert_eq!(changes(0, 9), (all.clone(), None));
    assert_eq!(changes(0, 5), (all.clone(), None));
    assert_eq!(
        changes(0, 4),
        (all.clone(), None),
        "the last group is whole"
    );
    assert_eq!(changes(0, 3), (all[..3].to_vec(), Some(5)));
    assert_eq!(changes(0, 1), (all[..2].to_vec(), Some(3)));
    assert_eq!(changes(3, 9), (all[2..].to_vec(), None));
    assert_eq!(changes(9, 9), (vec![], None));
}

#[test]
fn changes_by_scope_reach_as_far_as_the_scope_that_was_cut_first() {
    let folder = Folder::new();
    let mut store = folder.open(&["identities", "rides"]).unwrap();
    let apps = store.apps().clone();
    let app = apps.get("rides").unwrap();
    let scopes: Vec<ScopeId> = store
        .transaction(|tx| {
            let scopes = (1..=3).map(|number| {
                let oid = Oid::from_bytes([number; 16]);
                tx.insert_scope(app, number.into(), &oid, &[], true)
            });
            scopes.collect::<Result<_, StoreError>>()
        })
        .unwrap();
    let [one, two, three] = scopes[..] else {
        panic!("{scopes:?}");
    };
    let rows = [
        (one, 2),
        (two, 3),
        (one, 4),
        (one, 4),
        (three, 5),
        (one, 6),
        (two, 7),
    ];
    for (seed, (scope, change_seq)) in (1..).zip(rows) {
        write_in(&mut store, seed, scope, change_seq);
    }
    let domain = store.apps().domain("rides.offers").unwrap();
    let changes = |scopes: &[(ScopeId, u64)], most| {
        part(store.rows().changes_by_scope(domain, scopes, most).unwrap())
    };
    let both = [(one, 0), (two, 0)];
    let all = vec![(2, 1), (3, 2), (4, 3), (4, 4), (6, 6), (7, 7)];
    assert_eq!(changes(&both, 9), (all.clone(), None));
    assert_eq!(
        changes(&both, 2),
        (all[..4].to_vec(), Some(4)),
        "a whole group"
    );
    assert_eq!(changes(&both, 1), (all[..1].to_vec(), Some(2)));
    assert_eq!(changes(&[(one, 2), (two, 3)], 9), (all[2..].to_vec(), None));
    assert_eq!(changes(&[(two, 7)], 9), (vec![], None));
    assert_eq!(changes(&[], 9), (vec![], None));
    let mut newest = Vec::new();
    let rows = store.rows();
    rows.newest_of_scopes(app, |scope, seq, is_own| newest.push((scope, seq, is_own)))
        .unwrap();
    newest.sort_unstable();
    assert_eq!(newest, [(one, 6, true), (two, 7, true), (three, 5, true)]);
}
