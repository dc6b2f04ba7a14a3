//! A peer that does what no honest node does: with Bob's real keys it is admitted like Bob, and pushes a package that
//! holds an "edit" of a message that was written on Alice's node.
//!
//! Everything about the package is right, signatures included, but the one thing that the story forbids (docs/STORY.md 6.3).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bastion::transport::tor::{TorConfig, TorNode};
use bastion::{Connector, GateConfig, Internal, LocalProfile, NodeProfile};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, Oid, OnionAddr, Passphrase, PeerId};
use postern::data_dir::DataDir;
use postern::object::{Attrs, Object, Value};
use postern::peer::message::{Message, PackageBody};
use postern::services::messages;
use postern::state_engine::Package;

/// What the hostile peer needs to know.
pub(crate) struct Plot<'p> {
    /// Bob's folder: his keys.
    pub(crate) folder: &'p Path,
    /// Bob's passphrase.
    pub(crate) passphrase: &'p Path,
    /// Bob's epoch.
    pub(crate) epoch: Epoch,
    /// Alice's node.
    pub(crate) victim: (PeerId, OnionAddr),
    /// A message that Alice wrote, and its conversation.
    pub(crate) message: Oid,
    /// The conversation that it is in.
    pub(crate) conversation: Oid,
    /// How to join the network.
    pub(crate) tor: toml::Table,
}

struct Mask {
    epoch: Epoch,
}

impl LocalProfile for Mask {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let profile = NodeProfile {
            apps: names(&["identities", "contacts", "messages", "rides"]),
            sync_domains: names(&["identities", "contacts", "messages", "rides.offers"]),
            epoch: self.epoch,
            boot_id: BootId::from_bytes([0xbb; 16]),
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }
}

/// Is admitted by Alice's node as Bob's, pushes the forged package, and returns what the node answered.
pub(crate) async fn push_a_forged_edit(plot: &Plot<'_>, tor_folder: &Path) -> Result<String> {
    let passphrase = Passphrase::from_file(plot.passphrase)?;
    let data = DataDir::at(plot.folder);
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase)?);
    let bob = *keys.identities().first().context("Bob has an identity")?;
    let mut config = TorConfig::new(tor_folder.join("state"), tor_folder.join("cache"));
    config.arti = plot.tor.clone();
    let tor = TorNode::bootstrap(config, |_| {}).await?;
    let mask = Arc::new(Mask { epoch: plot.epoch });
    let connector = Connector::new(GateConfig::default(), keys.clone(), mask);
    let (mut session, _admitted) = connector
        .dial(&tor.transport(), &plot.victim.1, None, &|_| {})
        .await?;
    let edit = Object {
        app: messages::APP.into(),
        type_number: messages::MESSAGE,
        oid: plot.message,
        owner: bob,
        rev: 2,
        attrs: Some(Attrs::from([
            (
                messages::IN_CONVERSATION,
                vec![Value::from(&plot.conversation)],
            ),
            (messages::BODY, vec![Value::from("I never said that")]),
            (messages::SENT_AT, vec![Value::from(0)]),
        ])),
    };
    let package = Package {
        more: false,
        epoch: plot.epoch,
        domain: "messages".into(),
        sender: keys.peer_id(),
        to_seq: 1,
        objects: vec![keys.sign_object(bob, edit.to_bytes())?],
        version: 1,
        from_seq: 0,
        recipient: plot.victim.0,
    };
    let push = Message::Push(PackageBody {
        id: 1,
        body: package.sign(&keys),
    });
    session.writer.write(&push.encode()).await?;
    loop {
        let frame = session
            .reader
            .read()
            .await?
            .context("Alice's node hung up")?;
        match Message::decode(&frame)? {
            Message::Ack(ack) => return Ok(format!("acknowledged up to {}", ack.last_seq)),
            Message::Refused(refused) => bail!("the whole package was refused: {}", refused.code),
            // Alice's node may ask for things of its own meanwhile.
            _ => {}
        }
    }
}
