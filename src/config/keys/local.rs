//! The keys about this node itself: files, apps, API, admission, quotas, log, named peers.
//!
//! Plain data for `keys.rs`.

use keys::protocol::PACKAGE_BYTES_MAX;

use super::key::{INTEGER_MAX, Key, KeyType, Table};

pub(super) const NODE: Table = Table {
    name: "node",
    about: "This node: its name, files and apps. A change takes effect at the next start.",
    keys: &[
        Key {
            name: "name",
            kind: KeyType::Other {
                kind: "text",
                range: "at most 64 bytes; no hidden characters or outer spaces",
            },
            default: Some("\"\""),
            about: "Name shown in `postern status` and the console; never sent to peers.",
            reason: "the peer id identifies a node",
            in_new_file: Some("Name shown in `postern status`; never sent to peers."),
        },
        Key {
            name: "data_dir",
            kind: KeyType::Other {
                kind: "path",
                range: "not empty",
            },
            default: Some("\".\""),
            about: "Folder of the vault, the database and Tor's state, relative to this file.",
            reason: "one folder holds the whole node",
            in_new_file: None,
        },
        Key {
            name: "apps",
            kind: KeyType::Other {
                kind: "list of names",
                range: "each once; `identities` among them",
            },
            default: Some("[\"identities\", \"contacts\", \"messages\", \"rides\", \"market\"]"),
            about: "Apps that the local API offers and that peers may sync.",
            reason: "all built-in apps",
            in_new_file: None,
        },
        Key {
            name: "schema_dir",
            kind: KeyType::Other {
                kind: "path",
                range: "",
            },
            default: None,
            about: "Folder of the schema files (`*.toml`) of further apps, relative to this file.",
            reason: "the built-in apps need no files",
            in_new_file: None,
        },
        Key {
            name: "passphrase_file",
            kind: KeyType::Other {
                kind: "path",
                range: "a file of mode 0600",
            },
            default: None,
            about: "File with the passphrase of the vault, relative to this file. Without it, \
                    `postern run` asks at the terminal. Prefer a systemd credential.",
            reason: "a passphrase on the same disk does not protect the keys",
            in_new_file: Some(
                "File of mode 0600 with the passphrase; otherwise `run` asks for it.",
            ),
        },
        Key {
            name: "recovery_hours",
            kind: KeyType::Integer {
                unit: "hours",
                min: 1,
                max: 1440,
            },
            default: Some("72"),
            about: "After a restore, time in which the node waits for its peers to return its \
                    objects before it changes existing ones. `postern recovery finish` ends the \
                    wait.",
            reason: "a peer that is offline over a weekend is back by then",
            in_new_file: None,
        },
    ],
};

pub(super) const API: Table = Table {
    name: "api",
    about: "The local HTTP API. A change takes effect at the next start.",
    keys: &[Key {
        name: "listen",
        kind: KeyType::Other {
            kind: "IP address and port",
            range: "loopback addresses",
        },
        default: Some("\"127.0.0.1:8470\""),
        about: "Address of the API. Port 0 takes any free port; the file `api.addr` names it.",
        reason: "no other machine can connect",
        in_new_file: Some("Address of the local HTTP API."),
    }],
};

pub(super) const ADMISSION: Table = Table {
    name: "admission",
    about: "Which peers are admitted after the puzzle. `SIGHUP` puts a change into effect.",
    keys: &[
        Key {
            name: "policy",
            kind: KeyType::OneOf(&["open", "approve", "allowlist"]),
            default: Some("\"open\""),
            about: "\"open\" admits every peer that solves the puzzle, with the untrusted quota. \
                    \"approve\" keeps its request until `postern peer approve`. \"allowlist\" \
                    admits only peers in `allow`, approved peers, and peers that this node \
                    dials. `postern policy` overrides the key until the next start or `SIGHUP`.",
            reason: "an onion service exists to be reached",
            in_new_file: Some("Which peers are admitted: \"open\", \"approve\" or \"allowlist\"."),
        },
        Key {
            name: "allow",
            kind: KeyType::Other {
                kind: "list of peer ids",
                range: "64 hexadecimal digits each, at most 10000",
            },
            default: Some("[]"),
            about: "Peers that are admitted under every policy, and trusted.",
            reason: "trust is the operator's decision",
            in_new_file: None,
        },
        Key {
            name: "untrusted_idle_days",
            kind: KeyType::Integer {
                unit: "days",
                min: 0,
                max: 3650,
            },
            default: Some("30"),
            about: "Time after which an absent untrusted peer is forgotten: its claims, cursors, \
                    waiting objects, and identities of which nothing is kept. Its stored objects \
                    stay. 0 forgets no peer.",
            reason: "a peer that connects once a month loses nothing",
            in_new_file: None,
        },
    ],
};

/// The smallest quota: a peer with an empty account must be able to send one package.
const STORED_BYTES: KeyType = KeyType::Integer {
    unit: "bytes",
    min: PACKAGE_BYTES_MAX as u64,
    max: INTEGER_MAX,
};

pub(super) const QUOTA_UNTRUSTED: Table = Table {
    name: "quota.untrusted",
    about: "Quota of peers that are admitted by proof of work only. The number of objects is \
            limited too, to one for each 1638 bytes and at least 4096. A change takes effect at \
            the next start.",
    keys: &[
        Key {
            name: "stored_bytes_max",
            kind: STORED_BYTES,
            default: Some("16777216"),
            about: "Bytes that one peer may store, waiting objects included.",
            reason: "10,000 long messages",
            in_new_file: None,
        },
        Key {
            name: "total_bytes_max",
            kind: STORED_BYTES,
            default: Some("536870912"),
            about: "Bytes that all untrusted peers may store together; at least \
                    `stored_bytes_max`.",
            reason: "32 peers at their quota do not fill a disk",
            in_new_file: None,
        },
    ],
};

pub(super) const QUOTA_TRUSTED: Table = Table {
    name: "quota.trusted",
    about: "Quota of peers that the operator approved, listed or dials. The number of objects is \
            limited too, to one for each 1638 bytes and at least 4096. A change takes effect at \
            the next start.",
    keys: &[
        Key {
            name: "stored_bytes_max",
            kind: STORED_BYTES,
            default: Some("17179869184"),
            about: "Bytes that one peer may store, waiting objects included.",
            reason: "a faulty node of a trusted peer is stopped before the disk is full",
            in_new_file: None,
        },
        Key {
            name: "total_bytes_max",
            kind: STORED_BYTES,
            default: Some("68719476736"),
            about: "Bytes that all trusted peers may store together; at least \
                    `stored_bytes_max`. Set it to what the disk can spare.",
            reason: "4 peers at their quota",
            in_new_file: Some("Bytes that all trusted peers may store together."),
        },
    ],
};

pub(super) const LOG: Table = Table {
    name: "log",
    about: "The log on standard error. A change takes effect at the next start.",
    keys: &[
        Key {
            name: "format",
            kind: KeyType::OneOf(&["human", "json"]),
            default: Some("\"human\""),
            about: "\"human\" for terminals, \"json\" for programs: one object per line.",
            reason: "people read the log first",
            in_new_file: None,
        },
        Key {
            name: "filter",
            kind: KeyType::Other {
                kind: "text",
                range: "directives of `tracing-subscriber`",
            },
            default: Some("\"info\""),
            about: "Events to log: a level, or levels by module, such as \
                    \"info,postern::peer=debug\".",
            reason: "starts, stops, peers and refusals, but no line per request",
            in_new_file: Some("Events to log: a level, or levels by module."),
        },
    ],
};

pub(super) const PEER: Table = Table {
    name: "peer",
    about: "A peer that this node dials and keeps a session with; write one `[[peer]]` table for \
            each, at most 10,000. Dialled peers are trusted. A change takes effect at the next \
            start.",
    keys: &[
        Key {
            name: "onion",
            kind: KeyType::Other {
                kind: "onion address",
                range: "version 3; required, each once",
            },
            default: None,
            about: "Onion address of the peer. `postern run` warns about this node's own address \
                    and does not dial it; `postern check` cannot know it, because it is sealed.",
            reason: "an address has no default",
            in_new_file: Some(""),
        },
        Key {
            name: "name",
            kind: KeyType::Other {
                kind: "text",
                range: "at most 64 bytes; no hidden characters or outer spaces",
            },
            default: Some("\"\""),
            about: "Name of the peer for the operator; never sent to peers.",
            reason: "the onion address identifies a peer",
            in_new_file: Some(""),
        },
        Key {
            name: "push_domains",
            kind: KeyType::Other {
                kind: "list of texts",
                range: "sync domains of enabled apps, each once",
            },
            default: Some("[]"),
            about: "Domains of which a change is pushed to this peer at once, for peers whose \
                    pulls do not wait. At most 64 peers may have such domains.",
            reason: "pulls that wait bring changes as fast",
            in_new_file: None,
        },
    ],
};
