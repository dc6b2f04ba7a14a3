//! A hostile peer with Bob's real keys. Alice's node admits it as Bob's node.
//!
//! The peer pushes a package with an edit of a message that was written on Alice's node. The
//! package and its signatures are valid; only the edit of a remote object is forbidden
//! (docs/STORY.md 6.3).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bastion::transport::tor::{TorConfig, TorNode};
use bastion::{AppClaim, Connector, Features, GateConfig, Internal, LocalProfile, NodeProfile};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, Oid, OnionAddr, Passphrase, PeerId, SchemaDigest};
use postern::data_dir::DataDir;
use postern::object::{Attrs, Object, OidParts, Place, Value};
use postern::peer::message::{PackageBody, SessionMessage};
use postern::services::messages;
use postern::state_engine::Package;

/// The parameters of the hostile peer.
pub(crate) struct Attack<'p> {
    /// Bob's data directory, which holds his keys.
    pub(crate) folder: &'p Path,
    /// The file with Bob's passphrase.
    pub(crate) passphrase: &'p Path,
    /// The epoch of Bob's database.
    pub(crate) epoch: Epoch,
    /// The peer id and onion address of Alice's node.
    pub(crate) victim: (PeerId, OnionAddr),
    /// A message that Alice wrote.
    pub(crate) message: Oid,
    /// The conversation of the message.
    pub(crate) conversation: Oid,
    /// The `[tor]` table of the network.
    pub(crate) tor: toml::Table,
}

struct BobProfile {
    epoch: Epoch,
}

impl LocalProfile for BobProfile {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let profile = NodeProfile {
            apps: ["identities", "contacts", "messages", "rides"]
                .map(|slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16])))
                .to_vec(),
            sync_domains: names(&["identities", "contacts", "messages", "rides.offers"]),
            epoch: self.epoch,
            boot_id: BootId::from_bytes([0xbb; 16]),
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }
}

/// Dials Alice's node as Bob's node, pushes the forged package, and returns a description of the
/// reply.
pub(crate) async fn push_forged_edit(attack: &Attack<'_>, tor_folder: &Path) -> Result<String> {
    let passphrase = Passphrase::from_file(attack.passphrase)?;
    let data = DataDir::at(attack.folder);
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase)?);
    let bob = *keys.identities().first().context("Bob has an identity")?;
    let mut config = TorConfig::new(tor_folder.join("state"), tor_folder.join("cache"));
    config.arti = attack.tor.clone();
    let tor = TorNode::bootstrap(config, |_| {}).await?;
    let profile = Arc::new(BobProfile {
        epoch: attack.epoch,
    });
    let connector = Connector::new(GateConfig::default(), keys.clone(), profile);
    let (mut session, _admitted) = connector
        .dial(&tor.transport(), &attack.victim.1, None, &|_| {})
        .await?;
    let parts = OidParts {
        owner: &bob,
        app: messages::APP,
        type_number: messages::MESSAGE,
        place: &Place::In(attack.conversation),
    };
    let edit = Object {
        oid: attack.message,
        rev: 2,
        attrs: Some(Attrs::from([
            (
                messages::IN_CONVERSATION,
                vec![Value::from(&attack.conversation)],
            ),
            (messages::BODY, vec![Value::from("A forged edit")]),
            (messages::SENT_AT, vec![Value::from(0)]),
        ])),
        ..Object::create(&parts, 0, [0; 8])
    };
    let package = Package {
        stubs: None,
        scopes: Some(Vec::new()),
        more: false,
        epoch: attack.epoch,
        domain: "messages".into(),
        sender: keys.peer_id(),
        to_seq: 1,
        objects: vec![keys.sign_object(bob, edit.to_bytes())?],
        version: 1,
        from_seq: 0,
        recipient: attack.victim.0,
    };
    let push = SessionMessage::Push(PackageBody {
        id: 1,
        body: package.sign(&keys, &Features::none()),
    });
    session.writer.write(&push.encode()).await?;
    loop {
        let frame = session
            .reader
            .read()
            .await?
            .context("Alice's node closed the session")?;
        match SessionMessage::decode(&frame)? {
            SessionMessage::Ack(ack) => return Ok(format!("acknowledged up to {}", ack.last_seq)),
            SessionMessage::Refused(refused) => {
                bail!("the whole package was refused: {}", refused.code)
            }
            // Requests of Alice's node are ignored.
            _ => {}
        }
    }
}
