//! The list of seeds, and the messages that several of them contain.

use bastion::messages::{HandshakeMessage, Hello, Refusal, Welcome};
use bastion::{Features, RefusalCode};
use keys::Signature;
use serde_bytes::ByteBuf;

use crate::claims::in_common;
use crate::fixture::Fixture;

/// An input by target and name.
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// The list that the seeds are added to.
#[derive(Default)]
pub(crate) struct Seeds(pub(crate) Vec<Seed>);

impl Seeds {
    pub(crate) fn add(&mut self, target: &'static str, name: &str, parts: &[&[u8]]) {
        let (name, bytes) = (name.to_owned(), parts.concat());
        self.0.push(Seed {
            target,
            name,
            bytes,
        });
    }
}

pub(crate) fn hello(ticket: Option<&[u8]>, versions: &[u64]) -> Vec<u8> {
    HandshakeMessage::Hello(Hello {
        ticket: ticket.map(ByteBuf::from),
        features: Features::none(),
        versions: versions.to_vec(),
    })
    .encode()
}

pub(crate) fn welcome(fixture: &Fixture, ticket: Option<&[u8]>) -> Vec<u8> {
    HandshakeMessage::Welcome(Welcome {
        claims: fixture.alice_claims.clone().into(),
        ticket: ticket.map(ByteBuf::from),
        domains: in_common(
            &fixture.bob.profile.sync_domains,
            &fixture.alice.profile.sync_domains,
        ),
        features: Features::none(),
        signature: Signature::from_bytes([0; 64]),
    })
    .encode()
}

pub(crate) fn refused(code: RefusalCode, retry_s: Option<u32>) -> Vec<u8> {
    HandshakeMessage::Refused(Refusal {
        code,
        retry_s,
        versions: None,
    })
    .encode()
}
