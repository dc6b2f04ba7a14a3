//! Which word may stand where: the arrows of docs/ARCHITECTURE.md, as a table.

use crate::paths::paths;
use crate::source::Source;

/// Words with a place of their own.
pub(crate) struct Words {
    /// Paths or parts of paths; with `!`, a macro.
    pub(crate) words: &'static [&'static str],
    /// Where the rule holds; everywhere when empty.
    pub(crate) within: &'static [&'static str],
    /// Where the words belong.
    pub(crate) except: &'static [&'static str],
    /// Whether tests must keep to it too.
    pub(crate) tests_too: bool,
    pub(crate) why: &'static str,
}

/// The modules that run inside the engine's one writer, or in its readers.
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

pub(crate) const RULES: &[Words] = &[
    Words {
        words: &["rusqlite"],
        within: &[],
        except: &["src/store/", "tests/"],
        tests_too: true,
        why: "all SQL is in src/store",
    },
    Words {
        words: &["serde_cbor", "serde_cbor_2", "ciborium"],
        within: &[],
        except: &["keys/src/codec.rs"],
        tests_too: true,
        why: "every decoder stands behind the scan of keys::codec",
    },
    Words {
        words: &[
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
        why: "arti stays behind one folder, so that all else builds without it",
    },
    Words {
        words: &[
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
        why: "below the engine everything is a plain function",
    },
    Words {
        words: &[
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
        why: "time and chance are arguments below the engine",
    },
    Words {
        words: &["HashMap", "HashSet"],
        within: BELOW_ENGINE,
        except: &[],
        tests_too: false,
        why: "no order of a hash map may reach what is sent or stored: BTreeMap",
    },
    Words {
        words: &[
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
        why: "keys has no runtime, no SQL, no sockets, and logs nothing",
    },
    Words {
        words: &[
            "SystemTime",
            "Instant",
            "rand::rng",
            "rand::random",
            "SysRng",
        ],
        within: &["keys/src/"],
        except: &[],
        tests_too: false,
        why: "time and chance are arguments in keys",
    },
    Words {
        words: &["rusqlite", "postern"],
        within: &["bastion/"],
        except: &[],
        tests_too: true,
        why: "the Bastion knows no graph and no SQL",
    },
    Words {
        words: &[
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
        why: "the handshake is values; streams, clocks and chance are the gate's",
    },
    Words {
        words: &["ed25519_dalek", "chacha20poly1305", "zeroize", "subtle"],
        within: &[],
        except: &["keys/src/"],
        tests_too: false,
        why: "the only code that touches a secret byte is keys",
    },
    Words {
        words: &["from_seed", "with_seed", "expose_secret"],
        within: &[],
        except: &["keys/src/"],
        tests_too: false,
        why: "a secret enters and leaves only through the vault",
    },
    Words {
        words: &["with_onion_secret"],
        within: &[],
        // The flooded node of the benchmark is none of the library's, and has keys that nobody uses.
        except: &["keys/src/", "src/node/", "tests/bench/src/flood/reach.rs"],
        tests_too: false,
        why: "the onion's key is handed to the transport by the node, and to nobody else",
    },
    Words {
        words: &["verify_batch"],
        within: &[],
        except: &[],
        tests_too: true,
        why: "it accepts weak keys that verify_strict refuses",
    },
    Words {
        words: &[
            "insert_parent",
            "update_parent",
            "put_reader",
            "put_identity",
        ],
        within: &["src/", "tests/"],
        except: &["src/store/", "src/graph/"],
        tests_too: false,
        why: "GraphManager alone writes objects and what is derived from them",
    },
    Words {
        words: &["put_sync_state", "put_reject", "unpark"],
        within: &["src/", "tests/"],
        except: &["src/store/", "src/state_engine/"],
        tests_too: false,
        why: "cursors move with the rows: StateEngine alone moves them",
    },
    Words {
        words: &["apply_package", "apply_message"],
        within: &["src/"],
        except: &["src/graph/", "src/state_engine/", "src/peer/"],
        tests_too: false,
        why: "a peer's writes come through the verified packages of a session",
    },
    Words {
        words: &["axum"],
        within: &[],
        except: &["src/api/", "tests/"],
        tests_too: true,
        why: "HTTP is the local API's business",
    },
    Words {
        words: &["clap", "rpassword"],
        within: &["src/", "keys/", "bastion/"],
        except: &["src/cli", "src/main.rs"],
        tests_too: true,
        why: "the terminal is the command line's business",
    },
    Words {
        words: &["todo!", "unimplemented!", "dbg!"],
        within: &[],
        except: &[],
        tests_too: true,
        why: "what is unfinished is not merged",
    },
];

/// Lines of `source` that break a rule.
pub(crate) fn violations(source: &Source, rule: &Words) -> Vec<String> {
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
        .filter(|path| rule.words.iter().any(|word| contains(&path.text, word)));
    found
        .map(|path| {
            format!(
                "{}:{}: `{}`: {}",
                source.path, path.line, path.text, rule.why
            )
        })
        .collect()
}

/// Whether the segments of `word` follow one another in `path`.
fn contains(path: &str, word: &str) -> bool {
    let (path, word): (Vec<_>, Vec<_>) = (path.split("::").collect(), word.split("::").collect());
    path.windows(word.len()).any(|window| window == word)
}

#[test]
fn every_rule_finds_its_words_where_they_do_not_belong_and_only_there() {
    for rule in RULES {
        let wrong = rule
            .within
            .first()
            .map_or("src/nowhere.rs".to_owned(), |place| {
                format!("{place}/nowhere.rs")
            });
        for word in rule.words {
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
