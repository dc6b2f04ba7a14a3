//! Names that only some modules may use, as a table.

use crate::paths::paths;
use crate::source::Source;

/// Names that belong to some modules.
pub(crate) struct Restricted {
    /// Paths or parts of paths; with `!`, a macro.
    pub(crate) names: &'static [&'static str],
    /// Paths that the rule covers; all if empty.
    pub(crate) within: &'static [&'static str],
    /// Paths that may use the names.
    pub(crate) except: &'static [&'static str],
    /// Whether the rule covers tests too.
    pub(crate) tests_too: bool,
    pub(crate) why: &'static str,
}

/// The modules that run in the writer thread of the engine or in its readers.
pub(crate) const BELOW_ENGINE: &[&str] = &[
    "src/object",
    "src/domain",
    "src/op_context",
    "src/schema",
    "src/acl",
    "src/store",
    "src/graph",
    "src/state_engine",
    "src/services",
];

const BASTION_PURE: &[&str] = &[
    "bastion/src/claims",
    "bastion/src/error",
    "bastion/src/handshake",
    "bastion/src/load",
    "bastion/src/messages",
    "bastion/src/puzzle",
];

pub(crate) const RULES: &[Restricted] = &[
    Restricted {
        names: &["rusqlite"],
        within: &[],
        except: &["src/store/", "tests/"],
        tests_too: true,
        why: "all SQL is in src/store",
    },
    Restricted {
        names: &["serde_cbor", "serde_cbor_2", "ciborium"],
        within: &[],
        except: &["keys/src/codec.rs"],
        tests_too: true,
        why: "every decoder runs after the scan of keys::codec",
    },
    Restricted {
        names: &[
            "arti_client",
            "safelog",
            "tor_cell",
            "tor_hscrypto",
            "tor_hsservice",
            "tor_llcrypto",
            "tor_proto",
            "tor_rtcompat",
        ],
        within: &[],
        except: &["bastion/src/transport/tor/"],
        tests_too: true,
        why: "one folder contains arti, so that the rest builds without it",
    },
    Restricted {
        names: &[
            "tokio",
            "tokio_util",
            "futures",
            "async",
            "await",
            "std::thread",
            "std::net",
            "std::process",
        ],
        within: BELOW_ENGINE,
        except: &[],
        tests_too: false,
        why: "below the engine, all code is synchronous",
    },
    Restricted {
        names: &[
            "SystemTime",
            "Instant",
            "rand::rng",
            "rand::random",
            "rand::random_range",
            "SysRng",
            "StdRng",
        ],
        within: BELOW_ENGINE,
        except: &[],
        tests_too: false,
        why: "below the engine, time and randomness are arguments",
    },
    Restricted {
        names: &["HashMap", "HashSet"],
        within: BELOW_ENGINE,
        except: &[],
        tests_too: false,
        why: "the order of a hash map must not reach stored or sent data: use BTreeMap",
    },
    Restricted {
        names: &[
            "tokio",
            "tokio_util",
            "futures",
            "async",
            "await",
            "std::net",
            "rusqlite",
            "tracing",
        ],
        within: &["keys/"],
        except: &[],
        tests_too: true,
        why: "keys has no runtime, no SQL, no sockets and no log",
    },
    Restricted {
        names: &[
            "SystemTime",
            "Instant",
            "rand::rng",
            "rand::random",
            "SysRng",
        ],
        within: &["keys/src/"],
        except: &[],
        tests_too: false,
        why: "in keys, time and randomness are arguments",
    },
    Restricted {
        names: &["rusqlite", "postern"],
        within: &["bastion/"],
        except: &[],
        tests_too: true,
        why: "the Bastion has no graph and no SQL",
    },
    Restricted {
        names: &[
            "tokio",
            "async",
            "await",
            "SystemTime",
            "rand::rng",
            "rand::random",
            "std::net",
        ],
        within: BASTION_PURE,
        except: &[],
        tests_too: false,
        why: "the handshake is pure; the gate has the streams, clocks and randomness",
    },
    Restricted {
        names: &["ed25519_dalek", "chacha20poly1305", "zeroize", "subtle"],
        within: &[],
        except: &["keys/src/"],
        tests_too: false,
        why: "only keys handles secret bytes",
    },
    Restricted {
        names: &["from_seed", "with_seed", "expose_secret"],
        within: &[],
        except: &["keys/src/"],
        tests_too: false,
        why: "a secret enters and leaves through the vault only",
    },
    Restricted {
        names: &["with_onion_secret"],
        within: &[],
        // The node of the flood benchmark has keys of its own, used for nothing else.
        except: &["keys/src/", "src/node/", "tests/bench/src/flood/access.rs"],
        tests_too: false,
        why: "only the node passes the onion key to the transport",
    },
    Restricted {
        names: &["verify_batch"],
        within: &[],
        except: &[],
        tests_too: true,
        why: "it accepts weak keys that verify_strict refuses",
    },
    Restricted {
        names: &[
            "insert_parent",
            "update_parent",
            "put_reader",
            "put_opening",
            "put_identity",
        ],
        within: &["src/", "tests/"],
        except: &["src/store/", "src/graph/"],
        tests_too: false,
        why: "only GraphManager writes objects and derived rows",
    },
    Restricted {
        names: &[
            "put_sync_state",
            "put_rejects",
            "remove_waiting",
            "move_pull_again",
        ],
        within: &["src/", "tests/"],
        except: &["src/store/", "src/state_engine/", "tests/bench/src/holds/"],
        tests_too: false,
        why: "only StateEngine moves cursors, in the transaction of the rows",
    },
    Restricted {
        names: &[
            "ContactRow",
            "Petname",
            "contact_named",
            "contacts",
            "put_contact",
        ],
        within: &["src/"],
        // No module that builds or sends packages and handshakes is among them.
        except: &[
            "src/store/",
            "src/services/",
            "src/api/",
            // New identities, and their names at the start.
            "src/node/",
            "src/text.rs",
        ],
        tests_too: false,
        why: "nothing of the address book leaves the node",
    },
    Restricted {
        names: &["apply_package", "apply_part", "apply_message"],
        within: &["src/"],
        except: &["src/graph/", "src/state_engine/", "src/peer/"],
        tests_too: false,
        why: "a peer's writes arrive in verified packages of a session",
    },
    Restricted {
        names: &["axum"],
        within: &[],
        except: &["src/api/", "tests/"],
        tests_too: true,
        why: "only the local API speaks HTTP",
    },
    Restricted {
        names: &["clap", "rpassword"],
        within: &["src/", "keys/", "bastion/"],
        except: &["src/cli", "src/main.rs"],
        tests_too: true,
        why: "only the command line uses the terminal",
    },
    Restricted {
        names: &[
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "env::args",
            "env::args_os",
        ],
        within: &["src/", "keys/src/", "bastion/src/"],
        // The folder of systemd's credentials; the number of a crash point of tests.
        except: &["src/cli/passphrase.rs", "keys/src/crash.rs"],
        tests_too: false,
        why: "no secret or setting comes from the environment",
    },
    Restricted {
        names: &["Passphrase::from_string"],
        within: &["src/", "bastion/src/"],
        except: &["src/cli/passphrase.rs"],
        tests_too: false,
        why: "a passphrase comes from the terminal, a private file or a credential",
    },
    Restricted {
        names: &["todo!", "unimplemented!", "dbg!"],
        within: &[],
        except: &[],
        tests_too: true,
        why: "unfinished code is not merged",
    },
];

/// Lines of `source` that break a rule.
pub(crate) fn violations(source: &Source, rule: &Restricted) -> Vec<String> {
    let begins = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
    if (!rule.within.is_empty() && !begins(rule.within)) || begins(rule.except) {
        return Vec::new();
    }
    let code = if rule.tests_too {
        source.code.clone()
    } else {
        source.production()
    };
    let found = paths(&code)
        .into_iter()
        .filter(|path| rule.names.iter().any(|word| contains(&path.text, word)));
    found
        .map(|path| {
            format!(
                "{}:{}: `{}`: {}",
                source.path, path.line, path.text, rule.why
            )
        })
        .collect()
}

/// Whether the segments of `word` are consecutive segments of `path`.
fn contains(path: &str, word: &str) -> bool {
    let (path, word): (Vec<_>, Vec<_>) = (path.split("::").collect(), word.split("::").collect());
    path.windows(word.len()).any(|window| window == word)
}

#[test]
fn every_rule_finds_its_names_outside_their_modules_only() {
    for rule in RULES {
        let wrong = rule
            .within
            .first()
            .map_or("src/nowhere.rs".to_owned(), |place| {
                format!("{place}/nowhere.rs")
            });
        for word in rule.names {
            let check = |path: &str, text: &str| violations(&Source::new(path, text), rule);
            let line = if word.ends_with('!') {
                format!("fn f() {{ {word}() }}")
            } else {
                format!("use a::{{{word}::b}};")
            };
            assert_eq!(check(&wrong, &line).len(), 1, "{word} in {wrong}");
            assert_eq!(
                check(
                    &wrong,
                    &format!(
                        "// {line}\nconst A: &str = \"{word}\"; fn x{}() {{}}",
                        &word[1..2]
                    )
                )
                .len(),
                0
            );
            let in_tests = check(&wrong, &format!("#[cfg(test)]\nmod tests {{ {line} }}"));
            assert_eq!(
                in_tests.len(),
                usize::from(rule.tests_too),
                "{word} in the tests of {wrong}"
            );
            for right in rule.except {
                assert_eq!(
                    check(&format!("{right}/somewhere.rs"), &line).len(),
                    0,
                    "{word} in {right}"
                );
            }
        }
    }
}
