//! Dependencies that only some crates may have, checked on the lines of each manifest.

/// Whether a manifest names a dependency that its crate may not have. The version table in the root
/// manifest may name all.
pub(crate) fn is_fault(path: &str, line: &str) -> bool {
    const ONLY_IN: [(&str, &[&str]); 6] = [
        ("serde_cbor", &["Cargo.toml", "keys/Cargo.toml"]),
        (
            "rusqlite",
            &[
                "Cargo.toml",
                "tests/bench/Cargo.toml",
                "tests/harness/Cargo.toml",
            ],
        ),
        ("arti-", &["Cargo.toml", "bastion/Cargo.toml"]),
        ("tor-", &["Cargo.toml", "bastion/Cargo.toml"]),
        ("ed25519-dalek", &["Cargo.toml", "keys/Cargo.toml"]),
        (
            "postern",
            &[
                "Cargo.toml",
                "tests/bench/Cargo.toml",
                "tests/demo/Cargo.toml",
                "tests/fuzz/Cargo.toml",
                "tests/harness/Cargo.toml",
            ],
        ),
    ];
    let is_keys = path == "keys/Cargo.toml";
    // With this feature an argument could take its value from a variable, a passphrase too.
    let reads_variables = line.starts_with("clap ") && line.contains("\"env\"");
    ONLY_IN
        .iter()
        .any(|(name, places)| line.starts_with(name) && !places.contains(&path))
        || reads_variables
        || is_keys
            && ["tokio", "rusqlite", "bastion", "tracing"]
                .iter()
                .any(|name| line.starts_with(name))
}

#[test]
fn is_fault_finds_a_forbidden_dependency() {
    for (path, line) in [
        ("bastion/Cargo.toml", "rusqlite = { workspace = true }"),
        ("keys/Cargo.toml", "tokio = { workspace = true }"),
        ("bastion/Cargo.toml", "postern = { workspace = true }"),
        ("tests/bench/Cargo.toml", "arti-client = \"1\""),
        (
            "Cargo.toml",
            "clap = { version = \"4.6\", features = [\"env\"] }",
        ),
    ] {
        assert!(is_fault(path, line), "{path}: {line}");
    }
    assert!(!is_fault("Cargo.toml", "rusqlite = { workspace = true }"));
}
