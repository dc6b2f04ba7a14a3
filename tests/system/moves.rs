//! Identities that move between nodes that are connected over loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::loopback::Nodes;

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// The nodes of Alice, Bob and Carol, which all know each other. Alice is a contact of Carol.
fn three_nodes() -> Nodes {
    let nodes = Nodes::start(&["Alice", "Bob", "Carol"]);
    for (node, other, name) in [
        (CAROL, ALICE, " --as Alice"),
        (BOB, ALICE, ""),
        (BOB, CAROL, ""),
    ] {
        nodes.ok(node, &format!("peer add {}{name}", nodes.onions[other]));
    }
    nodes
}

/// A conversation that Carol founds, and to which Alice is invited. Returns its oid.
fn carols_talk(nodes: &mut Nodes) -> String {
    nodes.ok(CAROL, "identity new Dora");
    let line = "conversation new --from Carol --to Alice --to Dora --title Carols";
    let founded = nodes.json(CAROL, line);
    let talk = founded["oid"].as_str().unwrap().to_owned();
    nodes.until(ALICE, "conversation invitations", "Carols");
    nodes.ok(ALICE, &format!("conversation accept {}", &talk[24..]));
    nodes.until(ALICE, "conversation list", "Carols");
    talk
}

/// A conversation that Alice founds with Carol. Returns its oid.
fn alices_talk(nodes: &mut Nodes) -> String {
    let carol = nodes.identity(CAROL);
    nodes.until(ALICE, "identity list", &carol);
    let line = format!("conversation new --from Alice --to {carol} --title Alices");
    let founded = nodes.json(ALICE, &line);
    nodes.until(CAROL, "conversation list", "Alices");
    founded["oid"].as_str().unwrap().to_owned()
}

fn send(nodes: &Nodes, node: usize, (talk, from): (&str, &str), body: &str) {
    nodes.ok(
        node,
        &format!("send --conversation {talk} --from {from} {body}"),
    );
}

fn leave(nodes: &Nodes, file: &str) -> String {
    let (onion, file) = (&nodes.onions[BOB], nodes.at(file));
    format!("identity move Alice --to {onion} --file {file}")
}

/// The command that receives a file of Alice's node.
fn receive(nodes: &Nodes, file: &str) -> String {
    let (file, passphrase) = (nodes.at(file), nodes.passphrase(ALICE));
    format!("identity receive {file} --passphrase-file {passphrase}")
}

/// Writes a file that only its owner reads.
fn write_private(path: &str, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn count_in(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn moved_identity_goes_on_with_its_conversations() {
    let mut nodes = three_nodes();
    let oid = nodes.identity(ALICE);
    let alices = alices_talk(&mut nodes);
    let carols = carols_talk(&mut nodes);
    for talk in [&carols, &alices] {
        send(&nodes, CAROL, (talk, "Carol"), "asked-before");
        send(&nodes, ALICE, (talk, "Alice"), "said-before");
    }
    nodes.until(ALICE, "inbox --identity Alice", "asked-before");
    nodes.until(CAROL, "inbox --identity Carol", "said-before");

    let unknown = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
    let line = format!(
        "identity move Alice --to {unknown} --file {}",
        nodes.at("x")
    );
    nodes.refused(ALICE, &line, "no peer is known");
    let left = nodes.ok(ALICE, &leave(&nodes, "moved"));
    assert!(left.contains("writes nothing here any more"), "{left}");
    nodes.refused(ALICE, &leave(&nodes, "moved"), "exists");
    nodes.ok(ALICE, &leave(&nodes, "again"));
    let line = format!("send --conversation {carols} --from Alice never");
    nodes.refused(ALICE, &line, "moves to another node");
    nodes.refused(ALICE, "identity rotate Alice", "moves to another node");
    nodes.refused(
        ALICE,
        "identity rename Alice Other",
        "moves to another node",
    );
    let done = "identity move Alice --done";
    nodes.refused(ALICE, done, "has not heard from the new home");
    let listed = nodes.ok(ALICE, "identity list");
    assert_eq!(count_in(&listed, "moves to peer"), 1, "{listed}");
    send(&nodes, CAROL, (&carols, "Carol"), "asked-meanwhile");

    let received = nodes.ok(BOB, &receive(&nodes, "moved"));
    assert!(received.contains("lives on this node now"), "{received}");
    nodes.ok(BOB, &receive(&nodes, "again"));
    nodes.until(BOB, "inbox --identity Alice", "asked-meanwhile");
    let inbox = nodes.until(BOB, "inbox --identity Alice", "asked-before");
    assert_eq!(count_in(&inbox, "asked-meanwhile"), 1, "{inbox}");
    for (talk, word) in [(&carols, "one"), (&alices, "two")] {
        send(&nodes, BOB, (talk, "Alice"), &format!("said-after-{word}"));
        send(
            &nodes,
            CAROL,
            (talk, "Carol"),
            &format!("asked-after-{word}"),
        );
        nodes.until(
            BOB,
            "inbox --identity Alice",
            &format!("asked-after-{word}"),
        );
        let inbox = nodes.until(
            CAROL,
            "inbox --identity Carol",
            &format!("said-after-{word}"),
        );
        assert_eq!(count_in(&inbox, "said-before"), 2, "{inbox}");
    }

    let kept = nodes.until(ALICE, "identity list", "on peer");
    assert!(!kept.contains("FROZEN"), "{kept}");
    let removed = nodes.ok(ALICE, done);
    assert!(removed.contains("are removed"), "{removed}");
    nodes.refused(ALICE, &line, "does not live on this node");
    assert!(nodes.ok(BOB, "identity list").contains(&oid[..12]));
}

#[test]
fn file_that_moves_nothing_here_is_refused_with_its_reason() {
    let nodes = three_nodes();
    nodes.ok(ALICE, &leave(&nodes, "moved"));
    let receive = |file| receive(&nodes, file);
    nodes.refused(CAROL, &receive("moved"), "the file is for the node");
    nodes.refused(BOB, &receive("none"), "No such file");

    let wrong = nodes.at("wrong");
    write_private(&wrong, b"another passphrase");
    let line = format!(
        "identity receive {} --passphrase-file {wrong}",
        nodes.at("moved")
    );
    nodes.refused(BOB, &line, "wrong passphrase");

    let whole = fs::read(nodes.at("moved")).unwrap();
    let damage = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        write_private(&nodes.at(name), &bytes);
    };
    damage("damaged", &|bytes| *bytes.last_mut().unwrap() ^= 1);
    damage("cut", &|bytes| bytes.truncate(bytes.len() - 40));
    damage("head", &|bytes| bytes.truncate(20));
    damage("text", &|bytes| *bytes = b"some text".repeat(40));
    for name in ["damaged", "cut"] {
        nodes.refused(BOB, &receive(name), "damaged");
    }
    nodes.refused(BOB, &receive("head"), "truncated");
    nodes.refused(BOB, &receive("text"), "does not move an identity");
    let backup = nodes.at("backup");
    nodes.ok(ALICE, &format!("backup --out {backup}"));
    nodes.refused(BOB, &receive("backup"), "does not move an identity");
    assert!(Path::new(&backup).exists());

    // Nothing of these was stored.
    assert_eq!(count_in(&nodes.ok(BOB, "identity list"), "on this node"), 1);
    nodes.ok(BOB, &receive("moved"));
}

/// A process that ends at any step of a move loses nothing, and the command is repeated.
#[cfg(debug_assertions)]
#[test]
fn crashed_move_is_repeated() {
    let mut nodes = three_nodes();
    let talk = alices_talk(&mut nodes);
    for body in ["one", "two", "three"] {
        send(&nodes, ALICE, (&talk, "Alice"), body);
    }
    let steps = ["move: begun", "move: file written", "move: file named"];
    for (number, step) in steps.iter().enumerate() {
        nodes.restart_crashing_at(ALICE, step);
        nodes.refused(ALICE, &leave(&nodes, &format!("moved{number}")), "");
        nodes.restart_crashed(ALICE);
        let line = format!("send --conversation {talk} --from Alice never");
        nodes.refused(ALICE, &line, "moves to another node");
        let is_named = *step == "move: file named";
        let file = nodes.at(&format!("moved{number}"));
        assert_eq!(Path::new(&file).exists(), is_named, "{step}");
    }
    let steps = [
        "move: a portion stored",
        "move: objects stored",
        "move: keys stored",
    ];
    for step in steps {
        nodes.restart_crashing_at(BOB, step);
        nodes.refused(BOB, &receive(&nodes, "moved2"), "");
        nodes.restart_crashed(BOB);
        let lives = nodes.ok(BOB, "identity list");
        if step == "move: keys stored" {
            send(&nodes, BOB, (&talk, "Alice"), &step.replace(' ', "-"));
        } else {
            assert!(
                !lives.contains("Alice                on this node"),
                "{step}: {lives}"
            );
        }
    }
    nodes.ok(BOB, &receive(&nodes, "moved2"));
    send(&nodes, BOB, (&talk, "Alice"), "four");
    let inbox = nodes.until(CAROL, "inbox", "four");
    for body in ["one", "two", "three", "keys-stored"] {
        assert!(inbox.contains(body), "{body}: {inbox}");
    }
}
