//! Which module of the node may import which: lower layers only.

use crate::paths::paths;
use crate::source::Source;

/// The modules from the bottom up, each with the modules that it may import.
pub(crate) const MAY_NAME: &[(&str, &[&str])] = &[
    ("object", &[]),
    ("domain", &[]),
    ("op_context", &[]),
    ("text", &[]),
    ("toml_file", &[]),
    ("schema", &["domain", "object", "toml_file"]),
    ("acl", &["domain", "op_context"]),
    ("store", &["acl", "object", "op_context", "schema", "text"]),
    (
        "graph",
        &["acl", "domain", "object", "op_context", "schema", "store"],
    ),
    (
        "state_engine",
        &["acl", "graph", "op_context", "schema", "store"],
    ),
    // All reads go through `state_engine::View`.
    (
        "services",
        &[
            "graph",
            "object",
            "op_context",
            "schema",
            "state_engine",
            "store",
            "text",
        ],
    ),
    ("engine", &["graph", "op_context", "state_engine", "store"]),
    // The system's clock, as the traits of the core and of the Bastion.
    ("clock", &["engine", "op_context"]),
    ("config", &["op_context", "schema", "text", "toml_file"]),
    ("core_limits", &["config", "graph", "state_engine"]),
    ("data_dir", &["config"]),
    (
        "backup",
        &[
            "clock",
            "config",
            "core_limits",
            "data_dir",
            "engine",
            "op_context",
            "schema",
            "state_engine",
            "store",
        ],
    ),
    (
        "peer",
        &[
            "config",
            "engine",
            "op_context",
            "schema",
            "state_engine",
            "store",
        ],
    ),
    // Above `peer`: whether a session slot is free is one of the facts.
    (
        "admission",
        &[
            "config",
            "engine",
            "op_context",
            "peer",
            "services",
            "store",
        ],
    ),
    // Not `peer`: the node hands sessions to the API through a trait.
    (
        "api",
        &[
            "config",
            "engine",
            "graph",
            "object",
            "op_context",
            "schema",
            "services",
            "state_engine",
            "store",
            "text",
        ],
    ),
    (
        "node",
        &[
            "admission",
            "api",
            "backup",
            "clock",
            "config",
            "core_limits",
            "data_dir",
            "engine",
            "graph",
            "op_context",
            "peer",
            "schema",
            "services",
            "state_engine",
            "store",
        ],
    ),
    // A client of the API, and the start of a node. The module reads no data itself.
    (
        "cli",
        &[
            "api", "backup", "config", "data_dir", "node", "schema", "text",
        ],
    ),
];

/// The modules that may import the Bastion, each with an item; an empty item stands for all.
const BASTION_IN: &[(&str, &str)] = &[
    // How far a peer is trusted: a plain value, so that the program has one type for it.
    ("store", "Tier"),
    ("state_engine", "Tier"),
    ("services", "Tier"),
    ("api", "Tier"),
    // Plain values of the handshake, which are stored or signed.
    ("schema", "AppClaim"),
    ("store", "AppClaim"),
    ("api", "AppClaim"),
    ("state_engine", "Features"),
    // The feature that decides what a session sends.
    ("state_engine", "Feature"),
    // The features that this program offers.
    ("config", "Feature"),
    ("config", "Features"),
    ("config", "GateConfig"),
    ("config", "Hardening"),
    // To check the `[tor]` table with the rest of the file.
    ("config", "TorConfig"),
    ("config", "TorError"),
    ("config", "TorLimits"),
    // A value in the configuration, of the Bastion's own type so that the two cannot differ.
    ("config", "Vanguards"),
    ("clock", "SecondsClock"),
    ("admission", ""),
    ("peer", ""),
    ("api", "GateStatus"),
    // Plain values, shown as they are.
    ("api", "TorStatus"),
    ("node", ""),
];

/// The module of the node that a file belongs to; none for `lib.rs` and `main.rs`.
fn module(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix("src/")?
        .split('/')
        .next()?
        .trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then_some(name)
}

fn may_name_bastion(module: &str, path: &[&str]) -> bool {
    let mut allowed = BASTION_IN.iter().filter(|(name, _)| *name == module);
    allowed.any(|(_, what)| what.is_empty() || path.contains(what))
}

/// Imports of a file that do not lead to a lower layer.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    let Some(module) = module(&source.path) else {
        return Vec::new();
    };
    let wrong = |line: usize, what: String| format!("{}:{line}: {what}", source.path);
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![wrong(
            1,
            format!("the module `{module}` is not in the table of layers"),
        )];
    };
    let is_root =
        source.path == format!("src/{module}.rs") || source.path == format!("src/{module}/mod.rs");
    let mut found = Vec::new();
    for path in paths(&source.production()) {
        let segments: Vec<_> = path.text.split("::").collect();
        match segments.as_slice() {
            ["crate", target, ..] if *target != module && !allowed.contains(target) => {
                found.push(wrong(
                    path.line,
                    format!("`{module}` may not import `{target}`"),
                ));
            }
            ["super", "super", ..] => {
                found.push(wrong(path.line, "write the path from `crate`".to_owned()))
            }
            ["super", target, ..] if is_root && MAY_NAME.iter().any(|(name, _)| name == target) => {
                found.push(wrong(path.line, "write the path from `crate`".to_owned()));
            }
            ["postern", ..] => {
                found.push(wrong(path.line, "write the path from `crate`".to_owned()))
            }
            ["bastion", rest @ ..] if !rest.is_empty() && !may_name_bastion(module, rest) => {
                found.push(wrong(
                    path.line,
                    format!(
                        "`{module}` may not import the Bastion's `{}`",
                        rest.join("::")
                    ),
                ));
            }
            _ => {}
        }
    }
    found
}

/// The table of layers of docs/ARCHITECTURE.md: each module with the modules that it may import.
pub(crate) fn in_document(text: &str) -> Vec<(&str, Vec<&str>)> {
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| module |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    cells
        .filter_map(|cells| Some((*names(cells.first()?).first()?, names(cells.last()?))))
        .collect()
}

/// The texts in backquotes.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The table of layers as docs/ARCHITECTURE.md should have it.
pub(crate) fn wanted_in_document() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = MAY_NAME.iter().map(|(module, allowed)| {
        let may_name_bastion = BASTION_IN.iter().any(|(name, _)| name == module);
        let bastion = may_name_bastion.then_some("bastion");
        (*module, allowed.iter().copied().chain(bastion).collect())
    });
    rows.collect()
}

fn check(path: &str, text: &str, count: usize) {
    assert_eq!(
        violations(&Source::new(path, text)).len(),
        count,
        "{path}: {text}"
    );
}

#[test]
fn violations_finds_an_upward_import_in_every_notation() {
    check("src/acl/mod.rs", "use crate::store::Rows;", 1);
    check(
        "src/acl/mod.rs",
        "use crate::{domain::Mode, store::{Rows, Apps}};",
        2,
    );
    check("src/acl/mod.rs", "fn f() { crate::graph::load() }", 1);
    check("src/acl/mod.rs", "use super::store::Rows;", 1);
    check("src/acl/rules.rs", "use super::super::store;", 1);
    check("src/store/select.rs", "use bastion::Gate;", 1);
    check(
        "src/api/mod.rs",
        "use crate::peer::SyncService;\nuse bastion::{Gate, GateStatus};",
        2,
    );
    check("src/unknown.rs", "", 1);
}

#[test]
fn violations_allows_downward_imports_and_tests() {
    check(
        "src/store/parents.rs",
        "use super::Rows;\nuse crate::acl::Granted;\nuse crate::store::Apps;",
        0,
    );
    check(
        "src/acl/mod.rs",
        "// crate::store\n#[cfg(test)]\nmod tests { use crate::store::Rows; }",
        0,
    );
    check("src/lib.rs", "pub mod store;", 0);
    check("src/peer/mod.rs", "use bastion::{Gate, Session};", 0);
    check("keys/src/ids.rs", "use crate::signing::Context;", 0);
}

#[test]
fn in_document_reads_the_table_of_layers() {
    let text = "| a | `b` |\n\n| module | contents | may import |\n| --- | --- | --- |\n\
                | `acl` | `Granted` | `domain`, `bastion` |\n| `domain` | x | none |\n\nend";
    let wanted = vec![("acl", vec!["domain", "bastion"]), ("domain", vec![])];
    assert_eq!(in_document(text), wanted);
}

#[test]
fn table_of_layers_has_no_cycle() {
    for (place, (module, allowed)) in MAY_NAME.iter().enumerate() {
        for target in *allowed {
            let below = MAY_NAME.iter().position(|(name, _)| name == target);
            assert!(
                below.is_some_and(|below| below < place),
                "{module} -> {target} is no downward import"
            );
        }
    }
}
