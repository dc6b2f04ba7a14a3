//! The keys about other nodes: handshakes, sync, transport and Tor.
//!
//! Plain data for `keys.rs`.

use keys::protocol::PULL_WAIT_S_MAX;

use super::key::{Key, KeyType, Table};

/// Largest number of things that are held in memory.
const COUNT_MAX: u64 = 1_000_000;
/// Longest interval: a day.
const SECONDS_MAX: u64 = 24 * 60 * 60;
/// Highest effort: no machine solves a puzzle of 2^40 evaluations.
const EFFORT_MAX: u64 = 1 << 40;

pub(super) const BASTION: Table = Table {
    name: "bastion",
    about: "The puzzle and the handshake, as server and as client. A change takes effect at the \
            next start.",
    keys: &[
        Key {
            name: "effort_max",
            kind: KeyType::Integer {
                unit: "evaluations",
                min: 1,
                max: EFFORT_MAX,
            },
            default: Some("131072"),
            about: "Highest effort of a challenge under load, in expected evaluations of the work \
                    function. Clients refuse more than their `effort_accept_max`.",
            reason: "a default client accepts it; one core takes about 110 s",
            in_new_file: None,
        },
        Key {
            name: "effort_accept_max",
            kind: KeyType::Integer {
                unit: "evaluations",
                min: 0,
                max: EFFORT_MAX,
            },
            default: Some("131072"),
            about: "Highest effort that this node solves to be admitted by a peer. One dial may \
                    take two such puzzles, or three if its ticket was void.",
            reason: "about 110 s of one core for each puzzle",
            in_new_file: None,
        },
        Key {
            name: "open_handshakes_max",
            kind: KeyType::Integer {
                unit: "",
                min: 1,
                max: COUNT_MAX,
            },
            default: Some("512"),
            about: "Handshakes at the same time with clients that have no ticket. Clients with a \
                    ticket have further slots: an eighth of this number for each tier.",
            reason: "about 10 MiB of memory",
            in_new_file: None,
        },
        Key {
            name: "verify_workers",
            kind: KeyType::Integer {
                unit: "threads",
                min: 1,
                max: 1024,
            },
            default: Some("2"),
            about: "Threads that verify solutions.",
            reason: "the other cores are left to sessions",
            in_new_file: None,
        },
        Key {
            name: "solver_threads",
            kind: KeyType::Integer {
                unit: "threads",
                min: 0,
                max: 1024,
            },
            default: Some("0"),
            about: "Threads that solve the puzzles of other nodes; 0 uses all cores.",
            reason: "a dial takes the shortest time",
            in_new_file: None,
        },
    ],
};

pub(super) const SYNC: Table = Table {
    name: "sync",
    about: "When data is exchanged, and with how many peers. A change takes effect at the next \
            start.",
    keys: &[
        Key {
            name: "pull_interval_s",
            kind: KeyType::Integer {
                unit: "seconds",
                min: 0,
                max: SECONDS_MAX,
            },
            default: Some("30"),
            about: "Interval between two pulls of one domain from one peer. 0 turns them off. \
                    `postern sync` still pulls, and so does what is to be pulled again.",
            reason: "changes arrive within half a minute even without waiting pulls",
            in_new_file: None,
        },
        Key {
            name: "push_interval_s",
            kind: KeyType::Integer {
                unit: "seconds",
                min: 0,
                max: SECONDS_MAX,
            },
            default: Some("0"),
            about: "Interval between two pushes of one domain to one peer. 0 turns pushes off.",
            reason: "a waiting pull is as fast",
            in_new_file: None,
        },
        Key {
            name: "pull_wait_s",
            kind: KeyType::Integer {
                unit: "seconds",
                min: 0,
                max: PULL_WAIT_S_MAX,
            },
            default: Some("30"),
            about: "Time that a pull or watch waits for changes. 0 turns waiting and watches off.",
            reason: "a change arrives within one round trip",
            in_new_file: None,
        },
        Key {
            name: "accept",
            kind: KeyType::OneOf(&["contacts", "ask", "all"]),
            default: Some("\"contacts\""),
            about: "Which invitations to conversations of three or more, and to scopes of other \
                    apps, are accepted without asking. \"contacts\" accepts those of identities \
                    that the address book names, for one identity of this node. \"ask\" accepts \
                    none: `postern conversation invitations` lists them. \"all\" accepts all.",
            reason: "members of an accepted conversation may learn the onion address",
            in_new_file: None,
        },
        Key {
            name: "introduce",
            kind: KeyType::OneOf(&["members", "never"]),
            default: Some("\"members\""),
            about: "Whether this node becomes known to the nodes of other members. \"members\": \
                    members of a scope of three or more that accepted learn each other's onion \
                    addresses. Their nodes dial each other if the policy is \"open\". \
                    \"never\": this node neither asks for addresses nor gives its own, and gets \
                    messages by other members' nodes.",
            reason: "two members whose common peers are offline still reach each other",
            in_new_file: None,
        },
        Key {
            name: "sessions_max",
            kind: KeyType::Integer {
                unit: "",
                min: 2,
                max: COUNT_MAX,
            },
            default: Some("256"),
            about: "Sessions at the same time. Untrusted peers get at most half of them.",
            reason: "at two frames of 1 MiB each, half a GiB in the worst case",
            in_new_file: None,
        },
        Key {
            name: "dials_max",
            kind: KeyType::Integer {
                unit: "",
                min: 1,
                max: COUNT_MAX,
            },
            default: Some("4"),
            about: "Dials at the same time.",
            reason: "Tor builds three circuits for each",
            in_new_file: None,
        },
    ],
};

pub(super) const TRANSPORT: Table = Table {
    name: "transport",
    about: "How peers are reached, and the onion service's protection. A change takes effect at \
            the next start.",
    keys: &[
        Key {
            name: "kind",
            kind: KeyType::OneOf(&["tor", "loopback"]),
            default: Some("\"tor\""),
            about: "\"tor\" uses onion services. \"loopback\" uses TCP on this machine, for tests \
                    and demonstrations only.",
            reason: "only Tor hides where a node is",
            in_new_file: None,
        },
        Key {
            name: "intro_points",
            kind: KeyType::Integer {
                unit: "",
                min: 3,
                max: 20,
            },
            default: Some("3"),
            about: "Introduction points of the onion service. Each costs one circuit, and lets \
                    `intro_rate_per_s` further requests through.",
            reason: "Tor's own default",
            in_new_file: None,
        },
        Key {
            name: "intro_rate_per_s",
            kind: KeyType::Integer {
                unit: "requests per second",
                min: 0,
                max: 1_000_000,
            },
            default: Some("10"),
            about: "Requests that each introduction point lets through. 0 sets no limit.",
            reason: "this node can build circuits for about 30 requests per second",
            in_new_file: None,
        },
        Key {
            name: "vanguards",
            kind: KeyType::OneOf(&["lite", "full"]),
            default: Some("\"lite\""),
            about: "\"lite\" keeps second hops for long, so that circuits that clients cause do \
                    not reveal the guard. \"full\" keeps third hops too, against attackers that \
                    run relays for weeks; circuits are one hop longer.",
            reason: "most attackers do not run relays for weeks",
            in_new_file: None,
        },
        Key {
            name: "tor_pow",
            kind: KeyType::Boolean,
            default: Some("false"),
            about: "Tor's own proof of work: under load, introduction requests with more effort \
                    are served first. Only in builds with the feature `tor-pow`.",
            reason: "its code is LGPL-3.0, and the gate has a puzzle of its own",
            in_new_file: None,
        },
        Key {
            name: "loopback_listen",
            kind: KeyType::Other {
                kind: "IP address and port",
                range: "loopback addresses",
            },
            default: Some("\"127.0.0.1:0\""),
            about: "Address to listen on with kind = \"loopback\".",
            reason: "any free port",
            in_new_file: None,
        },
        Key {
            name: "loopback_directory",
            kind: KeyType::Other {
                kind: "table",
                range: "onion address = loopback address and port",
            },
            default: Some("{}"),
            about: "Addresses of peers with kind = \"loopback\".",
            reason: "no peer can be dialled",
            in_new_file: None,
        },
    ],
};

pub(super) const TOR: Table = Table {
    name: "tor",
    about: "Passed to arti, the Tor client, unchanged; arti's documentation names the keys. Its \
            folders and keys are the node's own and cannot be set. A change takes effect at \
            the next start.",
    keys: &[],
};
