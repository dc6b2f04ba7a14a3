//! Invitations: a scope of three or more is hidden from an identity until it accepts
//! (docs/DECISIONS.md 10).

use harness::pull::meet;
use harness::rights::core_object;
use harness::{Setup, TestNode, conversation, message};
use keys::Oid;
use keys::protocol::ACCEPT_TYPE;
use postern::graph::{AcceptPolicy, SaveError};
use postern::object::{Attrs, Place};
use postern::services::contacts::{self, ContactNote};
use postern::services::invitations::{
    self, InvitationCard, InvitationError, InvitationFilter, InvitationPage,
};
use postern::services::{conversation_cards, messages, rights};
use postern::state_engine::CoreLimits;
use postern::store::{
    Account, EpochReason, FeedCursor, Invitation, InvitationState, Onlooker, SeqOrder,
};

use crate::conversations::sync;
use crate::rights::BOTH;
use crate::stubs::MESSAGES;

/// Alice, Bob and Carol are peers of each other. Bob founds a conversation of all three.
pub(crate) struct Scene {
    pub(crate) alice: TestNode,
    pub(crate) bob: TestNode,
    pub(crate) carol: TestNode,
    pub(crate) talk: Oid,
}

fn limits(accept: AcceptPolicy) -> CoreLimits {
    let mut limits = CoreLimits::default();
    limits.graph.accept = accept;
    limits
}

fn node(name: &str, id_offset: i64, limits: CoreLimits) -> TestNode {
    Setup::new(name).id_offset(id_offset).limits(limits).node()
}

impl Scene {
    /// Carol's node has the given policy. The other nodes accept all.
    pub(crate) fn new(policy: AcceptPolicy) -> Self {
        Self::with(limits(policy))
    }

    /// The same, with these limits of Carol's node.
    pub(crate) fn with(limits: CoreLimits) -> Self {
        Self::with_both(limits, CoreLimits::default())
    }

    /// The same, with these limits of Bob's node too.
    pub(crate) fn with_both(carols: CoreLimits, bobs: CoreLimits) -> Self {
        let scene = Self::unfounded_with(carols, bobs);
        let Self {
            alice, bob, carol, ..
        } = &scene;
        let people = [bob.identity, alice.identity, carol.identity];
        let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
        let scene = Self { talk, ..scene };
        scene.say(&scene.bob, "welcome").unwrap();
        scene.sync();
        scene
    }

    pub(crate) fn unfounded(policy: AcceptPolicy) -> Self {
        Self::unfounded_with(limits(policy), CoreLimits::default())
    }

    fn unfounded_with(carols: CoreLimits, bobs: CoreLimits) -> Self {
        let alice = node("alice", 0, CoreLimits::default());
        let bob = node("bob", 300, bobs);
        let carol = node("carol", 600, carols);
        let talk = alice.identity;
        let scene = Self {
            alice,
            bob,
            carol,
            talk,
        };
        scene.sync();
        scene
    }

    pub(crate) fn sync(&self) {
        let Self {
            alice, bob, carol, ..
        } = self;
        for (one, other) in [(alice, bob), (bob, carol), (alice, carol)] {
            meet(one, other);
        }
        sync(&[alice, bob, carol]);
        work(carol);
    }

    pub(crate) fn say(&self, member: &TestNode, body: &str) -> Result<Oid, SaveError> {
        let said = member.make(MESSAGES, 2, message(self.talk, body));
        said.map(|saved| saved.oid)
    }

    pub(crate) fn accept(&self) -> Result<Option<u64>, InvitationError> {
        let talk = self.talk;
        let accepted = self
            .carol
            .graph(move |graph| invitations::accept(graph, MESSAGES, talk, None))?;
        Ok(accepted.saved.map(|saved| saved.change_seq))
    }

    pub(crate) fn decline(&self) -> Result<Oid, InvitationError> {
        let talk = self.talk;
        self.carol
            .graph(move |graph| invitations::decline(graph, MESSAGES, talk, None))
    }

    pub(crate) fn leave(&self) {
        let (talk, carol) = (self.talk, self.carol.identity);
        self.carol
            .graph(move |graph| rights::leave(graph, MESSAGES, talk, carol))
            .unwrap();
    }

    pub(crate) fn state(&self) -> Option<InvitationState> {
        self.row().map(|row| row.state)
    }

    pub(crate) fn row(&self) -> Option<Invitation> {
        let (carol, scope) = (self.carol.identity, self.scope(&self.carol));
        self.carol
            .read(move |view| view.rows.invitation(scope, &carol))
    }

    pub(crate) fn scope(&self, at: &TestNode) -> postern::store::ScopeId {
        at.parent(MESSAGES, self.talk).unwrap().scope_id
    }

    /// Whether a node knows that Carol takes part.
    pub(crate) fn knows(&self, node: &TestNode) -> bool {
        let (carol, scope) = (self.carol.identity, self.scope(node));
        node.read(move |view| view.rows.has_accepted(scope, &carol))
    }

    pub(crate) fn carol_reads(&self) -> Vec<String> {
        let texts = self.carol.texts().into_iter();
        texts.map(|(_, text)| text).collect()
    }

    pub(crate) fn contact(&self, of: &TestNode, name: &str) {
        let (identity, name) = (of.identity, name.to_owned());
        self.carol
            .graph(move |graph| contacts::add(graph, identity, &name, &ContactNote::default()))
            .unwrap();
    }
}

/// Drops what is to be dropped.
pub(crate) fn work(node: &TestNode) {
    while node.write(|core, now| core.drop_ended_step(now)).unwrap() {}
}

pub(crate) fn invitations_at(node: &TestNode, is_declined: bool) -> Vec<InvitationCard> {
    let filter = InvitationFilter {
        is_declined,
        app: Some(MESSAGES.to_owned()),
        suffix: String::new(),
    };
    let InvitationPage { cards, more, .. } =
        node.read(move |view| invitations::list(&view, &filter, 0, 100));
    assert!(!more);
    cards
}

/// The oids of the conversations that a node shows.
pub(crate) fn shown(node: &TestNode) -> Vec<Oid> {
    let onlooker = Onlooker::AnyAt(node.peer_id());
    let page = node.read(move |view| conversation_cards::list(&view, onlooker, 0, 100, ""));
    page.cards.into_iter().map(|card| card.oid).collect()
}

#[test]
fn conversation_of_three_is_hidden_until_its_member_accepts() {
    let scene = Scene::new(AcceptPolicy::Ask);
    assert_eq!(scene.carol_reads(), [""; 0]);
    assert_eq!(shown(&scene.carol), []);
    let [invitation] = invitations_at(&scene.carol, false).try_into().unwrap();
    assert_eq!(invitation.oid, scene.talk);
    assert_eq!(invitation.owner.oid, scene.bob.identity);
    assert_eq!(invitation.identity.oid, scene.carol.identity);
    assert_eq!((invitation.member_count, invitation.members.len()), (3, 3));
    let refused = scene.say(&scene.carol, "may I");
    assert!(
        matches!(refused, Err(SaveError::NotAccepted(oid)) if oid == scene.talk),
        "{refused:?}"
    );
    let head = scene.carol.head();
    assert_eq!(scene.accept().unwrap(), Some(head + 1));
    assert_eq!(scene.carol_reads(), ["welcome"]);
    assert_eq!(shown(&scene.carol), [scene.talk]);
    assert_eq!(invitations_at(&scene.carol, false), []);
    assert!(!scene.knows(&scene.bob));
    scene.sync();
    assert!(scene.knows(&scene.bob) && scene.knows(&scene.alice));
    scene.say(&scene.carol, "thanks").unwrap();
    assert_eq!(scene.accept().unwrap(), None, "already");
}

#[test]
fn member_that_accepts_gets_the_history_at_that_place_of_its_feeds() {
    let scene = Scene::new(AcceptPolicy::Ask);
    let carol = &scene.carol;
    let (reader, this_node) = (carol.identity, carol.peer_id());
    let inbox = |after| carol.read(move |view| messages::inbox(&view, &reader, after, 100));
    let all = |after: FeedCursor| {
        carol.read(move |view| {
            let app = view.rows.apps().get(MESSAGES).unwrap();
            let mut sight = view.rows.sight(Onlooker::AnyAt(this_node));
            sight.feed(app, (2, SeqOrder::Created), after, 100)
        })
    };
    let (own, of_all) = (inbox(FeedCursor::default()), all(FeedCursor::default()));
    assert_eq!((own.messages.len(), of_all.objects.len()), (0, 0));
    let opened = scene.accept().unwrap();
    let (own, of_all) = (inbox(own.after), all(of_all.after));
    assert_eq!(own.messages.len(), 1);
    let seqs: Vec<_> = of_all.objects.iter().map(|it| Some(it.seq)).collect();
    assert_eq!(seqs, [opened]);
    assert_eq!(inbox(own.after).messages.len(), 0);
    assert_eq!(all(of_all.after).objects.len(), 0);
}

#[test]
fn invitation_of_a_contact_is_accepted_for_one_identity() {
    let scene = Scene::unfounded(AcceptPolicy::Contacts);
    let (bob, carol) = (&scene.bob, &scene.carol);
    let other = carol.another("Cleo", 1);
    scene.sync();
    scene.contact(bob, "Bob");
    let people = [bob.identity, carol.identity, other];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let scene = Scene { talk, ..scene };
    scene.sync();
    let scope = scene.scope(&scene.carol);
    let states = [scene.carol.identity, other].map(|identity| {
        let row = scene
            .carol
            .read(move |view| view.rows.invitation(scope, &identity));
        row.unwrap().state
    });
    assert!(states.contains(&InvitationState::Accepted), "{states:?}");
    assert!(states.contains(&InvitationState::Open), "{states:?}");
}

#[test]
fn contact_does_not_bring_an_identity_back_that_left() {
    let scene = Scene::unfounded(AcceptPolicy::Contacts);
    scene.contact(&scene.bob, "Bob");
    let people = [
        scene.bob.identity,
        scene.alice.identity,
        scene.carol.identity,
    ];
    let talk = scene.bob.make(MESSAGES, 1, conversation(&people));
    let scene = Scene {
        talk: talk.unwrap().oid,
        ..scene
    };
    scene.say(&scene.bob, "welcome").unwrap();
    scene.sync();
    assert_eq!(scene.state(), Some(InvitationState::Accepted));
    assert_eq!(scene.carol_reads(), ["welcome"]);
    scene.leave();
    scene.sync();
    assert!(!scene.knows(&scene.bob));
    scene.say(&scene.bob, "without her").unwrap();
    scene
        .bob
        .set_rights(MESSAGES, scene.talk, &[(scene.carol.identity, BOTH)])
        .unwrap();
    scene.sync();
    assert_eq!(scene.state(), Some(InvitationState::Open));
    assert!(
        !scene.knows(&scene.bob),
        "the accept is older than the leave"
    );
    assert_eq!(
        scene.carol_reads(),
        ["welcome"],
        "what she saw before stays"
    );
    scene.accept().unwrap();
    scene.sync();
    assert!(scene.knows(&scene.bob));
    assert_eq!(scene.carol_reads(), ["welcome", "without her"]);
}

#[test]
fn contact_does_not_bring_an_identity_back_by_asking_twice() {
    let scene = Scene::unfounded(AcceptPolicy::Contacts);
    scene.contact(&scene.bob, "Bob");
    let people = [&scene.bob, &scene.alice, &scene.carol].map(|it| it.identity);
    let talk = scene.bob.make(MESSAGES, 1, conversation(&people));
    let scene = Scene {
        talk: talk.unwrap().oid,
        ..scene
    };
    scene.sync();
    assert!(scene.knows(&scene.bob));
    scene.leave();
    scene.sync();
    for rights in [BOTH, None, BOTH] {
        scene
            .bob
            .set_rights(MESSAGES, scene.talk, &[(scene.carol.identity, rights)])
            .unwrap();
        scene.sync();
    }
    assert_eq!(scene.state(), Some(InvitationState::Open));
    assert!(!scene.knows(&scene.bob));
}

#[test]
fn conversation_of_two_needs_no_decision_also_when_it_grows() {
    let scene = Scene::unfounded(AcceptPolicy::Ask);
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    let talk = bob.send(carol.identity, "hello").conversation;
    scene.sync();
    bob.set_rights(MESSAGES, talk, &[(alice.identity, BOTH)])
        .unwrap();
    let scene = Scene { talk, ..scene };
    scene.sync();
    assert_eq!(scene.state(), None);
    assert_eq!(scene.carol_reads(), ["hello"]);
    assert!(!scene.knows(&scene.bob), "nothing accepts implicitly");
    scene.say(&scene.carol, "an answer").unwrap();
    scene.sync();
    assert!(!scene.knows(&scene.bob));
    let carol = scene.carol.identity;
    let talk = scene.talk;
    let accepted = scene
        .carol
        .graph(move |graph| invitations::accept(graph, MESSAGES, talk, Some(carol)));
    assert!(accepted.unwrap().saved.is_some());
    scene.sync();
    assert!(scene.knows(&scene.bob));
}

#[test]
fn member_that_a_later_list_adds_is_invited_beside_others() {
    for (others, expected) in [(BOTH, Some(InvitationState::Open)), (None, None)] {
        let scene = Scene::unfounded(AcceptPolicy::Ask);
        let Scene {
            alice, bob, carol, ..
        } = &scene;
        let people = [bob.identity, alice.identity];
        let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
        let change = [(alice.identity, others), (carol.identity, BOTH)];
        bob.set_rights(MESSAGES, talk, &change).unwrap();
        let scene = Scene { talk, ..scene };
        scene.sync();
        assert_eq!(scene.state(), expected);
    }
}

#[test]
fn identity_that_accepted_is_not_asked_again_when_it_is_removed_and_added() {
    let scene = Scene::new(AcceptPolicy::Ask);
    scene.accept().unwrap();
    scene.sync();
    let carol = scene.carol.identity;
    for rights in [None, BOTH] {
        scene
            .bob
            .set_rights(MESSAGES, scene.talk, &[(carol, rights)])
            .unwrap();
        scene.sync();
    }
    assert_eq!(scene.state(), Some(InvitationState::Accepted));
    assert!(scene.knows(&scene.bob));
    assert_eq!(scene.carol_reads(), ["welcome"]);
}

#[test]
fn accept_is_refused_from_an_outsider_and_from_the_owner() {
    let scene = Scene::new(AcceptPolicy::Ask);
    let (bob, carol) = (&scene.bob, &scene.carol);
    let dora = bob.another("Dora", 1);
    scene.sync();
    for (author, code) in [
        (dora, "not_participant"),
        (bob.identity, "scope_owner_stays"),
    ] {
        let kind = (MESSAGES, ACCEPT_TYPE);
        let object = core_object(kind, 1, author, Place::In(scene.talk), Attrs::new());
        let signed = bob
            .engine
            .context()
            .keys
            .sign_object(author, object.to_bytes());
        let applied = bob.force(carol, MESSAGES, vec![signed.unwrap()]).unwrap();
        assert_eq!(applied.rejected, 1);
        assert_eq!(carol.rejects()[0], code);
    }
}

#[test]
fn relayed_content_of_an_open_invitation_counts_in_the_shared_account() {
    let scene = Scene::new(AcceptPolicy::Ask);
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    let one = scene.say(alice, "one").unwrap();
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    let account = |oid| carol.parent(MESSAGES, oid).unwrap().account;
    assert_eq!(account(one), Account::Shared);
    scene.accept().unwrap();
    let two = scene.say(alice, "two").unwrap();
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    assert_eq!(account(two), Account::Author(alice.identity));
}

#[test]
fn invitation_that_comes_during_a_recovery_is_accepted_when_it_ends() {
    let scene = Scene::unfounded(AcceptPolicy::All);
    let (bob, carol) = (&scene.bob, &scene.carol);
    carol
        .write(|core, now| core.start_recovery(EpochReason::Restored, now))
        .unwrap();
    let people = [bob.identity, scene.alice.identity, carol.identity];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    carol.pull_all(bob, MESSAGES);
    let (scope, identity) = (
        carol.parent(MESSAGES, talk).unwrap().scope_id,
        carol.identity,
    );
    let has_accepted = || carol.read(move |view| view.rows.has_accepted(scope, &identity));
    assert!(!has_accepted());
    carol
        .write(|core, now| core.end_recovery(now).map(drop))
        .unwrap();
    assert!(has_accepted());
}
