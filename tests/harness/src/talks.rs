//! Conversations of a node's identity.

use keys::Oid;
use postern::object::Rights;
use postern::services::conversation_cards::{self, ConversationCard, Standing};
use postern::services::conversations::{self, Addition, ConversationError};
use postern::services::identities;
use postern::services::rights::{self, RightsError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::TestNode;

impl TestNode {
    /// Adds another identity, with keys from a seed.
    pub fn another(&self, name: &str, seed: u64) -> Oid {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let identity = self.keys.add_identity(rng).unwrap();
        let name = name.to_owned();
        self.graph(move |graph| identities::publish(graph, identity, Some(&name)))
            .unwrap();
        identity
    }

    /// Founds a conversation.
    pub fn try_found(
        &self,
        founder: Oid,
        others: &[Oid],
        title: Option<&str>,
    ) -> Result<Oid, ConversationError> {
        let (others, title) = (others.to_vec(), title.map(str::to_owned));
        self.graph(move |graph| conversations::found(graph, founder, &others, title.as_deref()))
            .map(|saved| saved.oid)
    }

    /// Founds a conversation of the node's identity, which must succeed.
    pub fn found(&self, others: &[Oid], title: &str) -> Oid {
        self.try_found(self.identity, others, Some(title)).unwrap()
    }

    /// Adds a member to a conversation.
    pub fn add_member(&self, talk: Oid, who: Oid) -> Result<Addition, ConversationError> {
        self.graph(move |graph| conversations::add(graph, talk, who))
    }

    /// Removes a member from a conversation.
    pub fn remove_member(&self, talk: Oid, who: Oid) -> Result<(), ConversationError> {
        self.graph(move |graph| conversations::remove(graph, talk, who).map(drop))
    }

    /// Lets an identity leave a conversation.
    pub fn leave_talk(&self, talk: Oid, who: Oid) -> Result<(), ConversationError> {
        self.graph(move |graph| conversations::leave(graph, talk, who).map(drop))
    }

    /// Sends a message of the node's identity into a conversation.
    pub fn say(&self, talk: Oid, body: &str) -> Result<Oid, ConversationError> {
        let (sender, body) = (self.identity, body.to_owned());
        self.graph(move |graph| conversations::send(graph, talk, sender, &body))
            .map(|sent| sent.oid)
    }

    /// Changes the rights of an identity in a conversation.
    pub fn change_rights(
        &self,
        talk: Oid,
        who: Oid,
        to: Option<Rights>,
    ) -> Result<(), RightsError> {
        self.graph(move |graph| rights::change(graph, "messages", talk, &[(who, to)]).map(drop))
    }

    /// A conversation as the node shows it.
    pub fn card(&self, talk: Oid) -> Option<ConversationCard> {
        self.read(move |view| conversation_cards::show(&view, talk))
    }

    /// Oid and standing of the members as the node shows them, sorted by oid.
    pub fn standings(&self, talk: Oid) -> Vec<(Oid, Standing)> {
        let members = self.card(talk).unwrap().members.into_iter();
        let mut standings: Vec<_> = members.map(|it| (it.person.oid, it.standing)).collect();
        standings.sort_by_key(|(oid, _)| *oid);
        standings
    }

    /// The texts that the node's identity can read, oldest first.
    pub fn bodies(&self) -> Vec<String> {
        let texts = self.texts().into_iter();
        texts.map(|(_, body)| body).collect()
    }
}
