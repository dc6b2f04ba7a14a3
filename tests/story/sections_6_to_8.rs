//! Sections 6 to 8: where access is decided, what is synced at all, and what sync costs.

use harness::{NO_MARKET, Setup, TestNode, card, meet, message, offer, ride};
use postern::acl::Denied;
use postern::graph::{SaveError, WriteRequest};
use postern::object::{Object, Value};
use postern::schema::identities;
use postern::store::Direction;

use crate::{Story, has, windows};

#[tokio::test]
async fn section_6_1_acls_at_write_time() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let before = a.head();

    // Only valid objects enter the domain: no node writes in the name of an identity that lives
    // elsewhere.
    let draft = WriteRequest {
        app: "rides".into(),
        type_number: 1,
        oid: None,
        owner: b.identity,
        attrs: Some(ride("Bern", 1)),
    };
    let refused = a.save_as(a.context(b.identity, "rides"), draft);
    let owner_lives_elsewhere = Denied::OwnerNotHere;
    assert!(matches!(refused, Err(SaveError::Denied(denied)) if denied == owner_lives_elsewhere));
    assert_eq!(a.head(), before, "no change_seq was used");

    // An allowed write gets its change_seq and sync_flags. Another owner cannot change the object.
    let made = a.make("rides", 1, ride("Bern", 1)).unwrap();
    assert_eq!(a.head(), before + 1);
    b.pull(a, "rides.offers").await;
    let refused = b.change("rides", 1, made.oid, Some(ride("Basel", 9)));
    assert!(
        matches!(refused, Err(SaveError::Denied(Denied::OwnerChanged))),
        "{refused:?}"
    );
    story.end().await;
}

#[tokio::test]
async fn section_6_2_acls_at_package_build_time() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let c = story.carol().await;
    c.meet(b).await;
    a.send(b.identity, "between Alice and Bob");
    b.pull(a, "messages").await;
    b.send(a.identity, "and back");

    // Carol's node shares the domain with both. Carol is no participant, so her node receives
    // nothing.
    assert_eq!(windows(&c.pull(a, "messages").await), [None]);
    assert_eq!(windows(&c.pull(b, "messages").await), [None]);
    assert_eq!((b.inbox().len(), c.inbox().len()), (2, 0));
    // The identities domain holds public Attrs only, and no server.
    let exported = a.schemas().domain("identities").unwrap();
    assert_eq!(exported.types, [identities::IDENTITY]);
    story.end().await;
    c.stop().await;
}

/// Alice's node is hostile: it sends packages that no honest node would send.
#[test]
fn section_6_3_acls_at_package_apply_time() {
    let a = TestNode::new("Alice", 0);
    let b = Setup::new("Bob").id_offset(700).apps(&NO_MARKET).node();
    meet(&a, &b);
    let sent = a.send(b.identity, "I owe you 5");
    let alices = a.make("rides", 1, ride("Bern", 1)).unwrap();
    let bobs = b.make("rides", 1, ride("Chur", 1)).unwrap();
    b.pull_everything(&a);

    // append_only: a remote cannot update or delete.
    let forged = message(sent.conversation, "You owe me 5");
    for attrs in [Some(forged), None] {
        let forged = Object {
            rev: 2,
            attrs,
            ..a.object("messages", sent.oid).unwrap().0
        };
        let refusal = a.force_one(&b, "messages", a.sign(&forged));
        assert_eq!(refusal.as_deref(), Some("mode"));
    }
    assert_eq!(b.texts(), [(a.identity, "I owe you 5".to_owned())]);

    // allow_update: a remote can update its own objects, but not those of this node.
    let changed = Object {
        rev: 2,
        attrs: Some(ride("Basel", 2)),
        ..a.object("rides", alices.oid).unwrap().0
    };
    assert_eq!(a.force_one(&b, "rides.offers", a.sign(&changed)), None);
    assert_eq!(b.object("rides", alices.oid).unwrap().0, changed);
    for attrs in [Some(ride("Basel", 9)), None] {
        // The oid is bound to its owner, so that the forged object does not even claim it.
        let forged = Object {
            owner: a.identity,
            rev: 9,
            attrs,
            ..b.object("rides", bobs.oid).unwrap().0
        };
        let refusal = a.force_one(&b, "rides.offers", a.sign(&forged));
        assert_eq!(refusal.as_deref(), Some("oid"));
    }
    let (kept, _) = b.object("rides", bobs.oid).unwrap();
    assert_eq!(kept.attrs, Some(ride("Chur", 1)));
}

#[tokio::test]
async fn section_7_1_install_and_domain_intersection() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let bike = a.make("market", 1, offer("a bike")).unwrap().oid;
    let seats = a.make("rides", 1, ride("Bern", 3)).unwrap().oid;

    // The domain is not in `peer_sync_domains`: a pull of it returns nothing, and neither node
    // records it.
    let domain = "market.public_offers";
    assert_eq!(windows(&b.pull(a, domain).await), [None]);
    assert_eq!(a.cursor(b, domain, Direction::Out), None);
    assert_eq!(b.cursor(a, domain, Direction::In), None);
    b.pull(a, "rides.offers").await;
    assert!(has(b, "rides", seats) && !has(b, "market", bike));

    // A node that has the market receives the offer.
    let c = story.carol().await;
    c.pull(a, domain).await;
    assert!(has(&c, "market", bike));
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_7_2_schema_and_acl_for_per_object_decisions() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let c = story.carol().await;
    // Messages go to participants only, a card to its owner and its subject only.
    a.send(c.identity, "for Carol");
    let of_carol = card(c.identity, "Carol");
    let of_carol = a.make("contacts", 1, of_carol).unwrap().oid;
    for domain in ["messages", "contacts"] {
        assert_eq!(windows(&b.pull(a, domain).await), [None]);
        c.pull(a, domain).await;
    }
    assert!(has(&c, "contacts", of_carol) && !has(b, "contacts", of_carol));
    // rides.offers: the frontend filters by region; the kernel sends all.
    for region in ["near", "far away"] {
        let mut attrs = ride("Bern", 1);
        attrs.insert(5, vec![Value::from(region)]);
        a.make("rides", 1, attrs).unwrap();
    }
    assert_eq!(b.pull(a, "rides.offers").await[0].applied.written, 2);
    story.end().await;
    c.stop().await;
}

#[test]
fn section_8_how_efficient_is_this_in_practice() {
    let (a, b) = (TestNode::new("Alice", 0), TestNode::new("Bob", 700));
    meet(&a, &b);
    for number in 0..500 {
        a.send(b.identity, &format!("message {number}"));
    }
    b.pull_all(&a, "messages");

    // Network: a package holds only changes, not the whole domain.
    let first = a.send(b.identity, "news").change_seq;
    a.send(b.identity, "news");
    let last = a.send(b.identity, "news").change_seq;
    let pulled = b.pull(&a, "messages");
    assert_eq!((pulled.seqs(), pulled.objects), (Some((first, last)), 3));

    // Storage: two integers per row; one small row per peer, domain and direction.
    let before = a.dump();
    a.send(b.identity, "one more");
    let after = a.dump();
    let growth = after
        .iter()
        .map(|(table, rows)| (table.as_str(), rows.len() - before[table].len()));
    let growth: Vec<_> = growth.filter(|(_, rows)| *rows > 0).collect();
    assert_eq!(
        growth,
        [("app_messages_attr", 3), ("app_messages_parent", 1)],
        "no log, no further table"
    );
    for (table, rows) in &after {
        assert!(table.starts_with("app_messages") || *rows == before[table]);
    }
    assert_eq!(
        after["sync_state"].len(),
        1,
        "A has sent in one domain to one peer"
    );
}
