//! Where access is decided, what is synced at all, and what it costs.

use postern::acl::Denied;
use postern::graph::{Draft, SaveError};
use postern::object::Value;
use postern::schema::identities;
use postern::store::Direction;

use crate::common::forge::object;
use crate::common::sync::meet;
use crate::common::{TestNode, card, context_of, message, offer, ride};
use crate::live::{ALL_APPS, LiveNode, WITHOUT_MARKET, by_hand};
use crate::{Story, has, head, save, sync_state, window};

#[tokio::test]
async fn section_6_1_acls_at_write_time() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let before = head(a).await;

    // Only valid objects enter the domain: nobody writes as somebody who lives elsewhere, nor over another's object.
    let bob = b.identity;
    let as_bob = a.read(move |view| context_of(&view, bob, "rides")).await;
    let draft = Draft {
        app: "rides".into(),
        type_number: 1,
        oid: None,
        owner: bob,
        attrs: Some(ride("Bern", 1)),
    };
    let refused = a
        .write(move |core, now| core.write(now, |graph| graph.save_with_sync(&as_bob, draft)))
        .await;
    assert!(matches!(
        refused,
        Err(SaveError::Denied(Denied::OwnerNotHere))
    ));
    assert_eq!(head(a).await, before, "nothing was stamped");

    // What is allowed is written, and gets its change_seq and sync_flags.
    let made = save(a, "rides", 1, None, Some(ride("Bern", 1)))
        .await
        .unwrap();
    assert_eq!(head(a).await, before + 1);
    b.pull(a, "rides.offers").await;
    let over = save(b, "rides", 1, Some(made), Some(ride("Basel", 9))).await;
    assert!(
        matches!(over, Err(SaveError::Denied(Denied::OwnerChanged))),
        "{over:?}"
    );
    story.end().await;
}

#[tokio::test]
async fn section_6_2_acls_at_package_build_time() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let c = LiveNode::start(&story.net, "Carol", 3000, &ALL_APPS, by_hand()).await;
    c.meet(a).await;
    c.meet(b).await;
    a.send(b.identity, "between Alice and Bob").await;
    b.pull(a, "messages").await;
    b.send(a.identity, "and back").await;

    // Carol's node shares the domain with both; it is not a participant, so for it there is nothing.
    assert_eq!(window(&c.pull(a, "messages").await[0]), None);
    assert_eq!(window(&c.pull(b, "messages").await[0]), None);
    assert_eq!((b.inbox().await.len(), c.inbox().await.len()), (2, 0));
    // The identities domain holds public Attrs only, and no server.
    let exported = a.engine.ground().schemas.domain("identities").unwrap();
    assert_eq!(exported.types, [identities::IDENTITY]);
    story.end().await;
    c.stop().await;
}

/// Here Alice's node is a hostile one: it sends what no honest node would, over a core without a network.
#[test]
fn section_6_3_acls_at_package_apply_time() {
    let (a, b) = (
        TestNode::new("Alice", 0),
        TestNode::with_apps("Bob", 700, &WITHOUT_MARKET),
    );
    meet(&a, &b);
    let sent = a.send(b.identity, "I owe you 5").unwrap();
    let hers = a.make("rides", 1, ride("Bern", 1)).unwrap();
    let his = b.make("rides", 1, ride("Chur", 1)).unwrap();
    b.pull_everything(&a);

    // append_only: a remote cannot update or delete.
    let edited = object(
        "messages",
        2,
        sent.oid,
        a.identity,
        2,
        Some(message(sent.conversation, "You owe me 5")),
    );
    let deleted = object("messages", 2, sent.oid, a.identity, 2, None);
    for object in [edited, deleted] {
        assert_eq!(
            a.force_one(&b, "messages", a.sign(&object)).as_deref(),
            Some("mode")
        );
    }
    assert_eq!(b.inbox(), [(a.identity, "I owe you 5".to_owned())]);

    // allow_update: a remote can update its own objects, but not ours.
    let changed = object("rides", 1, hers.oid, a.identity, 2, Some(ride("Basel", 2)));
    assert_eq!(a.force_one(&b, "rides.offers", a.sign(&changed)), None);
    assert_eq!(b.object("rides", hers.oid).unwrap().0, changed);
    for attrs in [Some(ride("Basel", 9)), None] {
        let over_his = object("rides", 1, his.oid, a.identity, 9, attrs);
        assert_eq!(
            a.force_one(&b, "rides.offers", a.sign(&over_his))
                .as_deref(),
            Some("local_object")
        );
    }
    assert_eq!(
        b.object("rides", his.oid).unwrap().0.attrs,
        Some(ride("Chur", 1))
    );
}

#[tokio::test]
async fn section_7_1_install_and_domain_intersection() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let bike = save(a, "market", 1, None, Some(offer("a bike")))
        .await
        .unwrap();
    let seats = save(a, "rides", 1, None, Some(ride("Bern", 3)))
        .await
        .unwrap();

    // Even when B asks for it, the domain is not in `peer_sync_domains`: nothing is returned, and nothing is noted.
    let outcomes = b.pull(a, "market.public_offers").await;
    assert_eq!(outcomes.iter().map(window).collect::<Vec<_>>(), [None]);
    assert_eq!(
        sync_state(a, b, "market.public_offers", Direction::Out).await,
        None
    );
    assert_eq!(
        sync_state(b, a, "market.public_offers", Direction::In).await,
        None
    );
    b.pull(a, "rides.offers").await;
    assert!(has(b, "rides", seats).await && !has(b, "market", bike).await);

    // A node that has the market gets the offer.
    let c = LiveNode::start(&story.net, "Carol", 3000, &ALL_APPS, by_hand()).await;
    c.meet(a).await;
    c.pull(a, "market.public_offers").await;
    assert!(has(&c, "market", bike).await);
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_7_2_schema_and_acl_for_per_object_decisions() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    let c = LiveNode::start(&story.net, "Carol", 3000, &ALL_APPS, by_hand()).await;
    c.meet(a).await;
    // messages: only where the peer is a participant. A card: only its owner and its subject.
    a.send(c.identity, "for Carol").await;
    let of_carol = save(a, "contacts", 1, None, Some(card(c.identity, "Carol")))
        .await
        .unwrap();
    for domain in ["messages", "contacts"] {
        assert_eq!(window(&b.pull(a, domain).await[0]), None);
        c.pull(a, domain).await;
    }
    assert!(has(&c, "contacts", of_carol).await && !has(b, "contacts", of_carol).await);
    // rides.offers: a region is the frontend's to choose; the kernel sends all.
    for region in ["here", "far away"] {
        let mut attrs = ride("Bern", 1);
        attrs.insert(5, vec![Value::from(region)]);
        save(a, "rides", 1, None, Some(attrs)).await.unwrap();
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
        a.send(b.identity, &format!("word {number}")).unwrap();
    }
    b.pull_all(&a, "messages");

    // Network: only changes are shipped, not whole domains.
    let delta: Vec<_> = (0..3)
        .map(|_| a.send(b.identity, "news").unwrap().change_seq)
        .collect();
    let pulled = b.pull(&a, "messages");
    assert_eq!(
        (pulled.seqs(), pulled.objects),
        (Some((delta[0], delta[2])), 3)
    );

    // Storage: two integers per row, one small row per peer, domain and direction.
    let before = a.dump();
    a.send(b.identity, "one more").unwrap();
    let after = a.dump();
    let grown: Vec<_> = after
        .iter()
        .filter(|(table, rows)| before[*table].len() != rows.len())
        .collect();
    let grown: Vec<_> = grown
        .iter()
        .map(|(table, rows)| (table.as_str(), rows.len() - before[*table].len()))
        .collect();
    assert_eq!(
        grown,
        [("app_messages_attr", 3), ("app_messages_parent", 1)],
        "no log, no extra table"
    );
    let unchanged = after
        .iter()
        .filter(|(table, rows)| !table.starts_with("app_messages") && before[*table] != **rows);
    assert_eq!(unchanged.count(), 0);
    assert_eq!(
        after["sync_state"].len(),
        1,
        "A has sent in one domain to one peer"
    );
}
