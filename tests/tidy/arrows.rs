//! Which module of the node may name which: arrows point down only.

use crate::paths::paths;
use crate::source::Source;

/// Module by module from the bottom up, and what it may name. A module may always name itself.
pub(crate) const MAY_NAME: &[(&str, &[&str])] = &[
    ("object", &[]),
    ("domain", &[]),
    ("op_context", &[]),
    ("toml_file", &[]),
    ("schema", &["domain", "object", "toml_file"]),
    ("acl", &["domain", "op_context"]),
    ("store", &["acl", "object", "op_context", "schema"]),
    (
        "graph",
        &["acl", "domain", "object", "op_context", "schema", "store"],
    ),
    (
        "state_engine",
        &["acl", "graph", "op_context", "schema", "store"],
    ),
    // The verbs read through `state_engine::View`, as everybody does.
    (
        "services",
        &[
            "graph",
            "object",
            "op_context",
            "schema",
            "state_engine",
            "store",
        ],
    ),
    ("engine", &["graph", "op_context", "state_engine", "store"]),
    // The system's clock, as the traits of the core and of the Bastion.
    ("clock", &["engine", "op_context"]),
    ("config", &["op_context", "schema", "toml_file"]),
    ("core_limits", &["config", "state_engine"]),
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
    // Never `peer`: what the API shows of sessions, it is given by the node through a trait.
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
    // A client of the API, and what starts a node. It reads no data itself.
    (
        "cli",
        &["api", "backup", "config", "data_dir", "node", "schema"],
    ),
];

/// The modules that may name the Bastion, and what of it; everything where nothing is named.
const BASTION_IN: &[(&str, &str)] = &[
    // How far a peer is trusted: a plain value, so that the program has one type for it.
    ("store", "Tier"),
    ("state_engine", "Tier"),
    ("services", "Tier"),
    ("api", "Tier"),
    ("config", "GateConfig"),
    ("config", "Hardening"),
    // To check the `[tor]` table with the rest of the file.
    ("config", "TorConfig"),
    ("config", "TorError"),
    ("config", "TorLimits"),
    // A word that the operator writes; the Bastion's own, so that the two cannot differ.
    ("config", "Vanguards"),
    ("clock", "Clock"),
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

/// Arrows of a file that point up or sideways.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    let Some(module) = module(&source.path) else {
        return Vec::new();
    };
    let wrong = |line: usize, what: String| format!("{}:{line}: {what}", source.path);
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![wrong(
            1,
            format!("the module `{module}` has no line in the table of arrows"),
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
                    format!("`{module}` may not name `{target}`"),
                ));
            }
            ["super", "super", ..] => found.push(wrong(
                path.line,
                "write the path from `crate` on".to_owned(),
            )),
            ["super", target, ..] if is_root && MAY_NAME.iter().any(|(name, _)| name == target) => {
                found.push(wrong(
                    path.line,
                    "write the path from `crate` on".to_owned(),
                ));
            }
            ["postern", ..] => found.push(wrong(
                path.line,
                "write the path from `crate` on".to_owned(),
            )),
            ["bastion", rest @ ..] if !rest.is_empty() && !may_name_bastion(module, rest) => {
                found.push(wrong(
                    path.line,
                    format!(
                        "`{module}` may not name the Bastion's `{}`",
                        rest.join("::")
                    ),
                ));
            }
            _ => {}
        }
    }
    found
}

fn check(path: &str, text: &str, count: usize) {
    assert_eq!(
        violations(&Source::new(path, text)).len(),
        count,
        "{path}: {text}"
    );
}

#[test]
fn arrows_that_point_up_are_found_however_they_are_written() {
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
        "use crate::peer::Peers;\nuse bastion::{Gate, GateStatus};",
        2,
    );
    check("src/unheard_of.rs", "", 1);
}

#[test]
fn arrows_that_point_down_are_not() {
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
fn the_table_itself_has_no_circle() {
    for (place, (module, allowed)) in MAY_NAME.iter().enumerate() {
        for target in *allowed {
            let below = MAY_NAME.iter().position(|(name, _)| name == target);
            assert!(
                below.is_some_and(|below| below < place),
                "{module} -> {target} does not point down"
            );
        }
    }
}
