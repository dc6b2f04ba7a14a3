//! Tests of the errors that the API shows.

use bastion::{DialError, HandshakeStep, Misbehaviour};
use keys::ChainError;

use super::*;

fn shown(error: HandshakeError) -> String {
    dial_error(&PeerDialError::Handshake(error)).to_string()
}

#[test]
fn dial_error_names_every_cause() {
    assert_eq!(
        shown(HandshakeError::Dial(DialError::Unreachable)),
        "could not dial: unreachable: check the address, and that the other node runs"
    );
    let source = std::io::Error::other("broken pipe");
    let step = HandshakeStep::Challenge;
    assert_eq!(
        shown(HandshakeError::Io { step, source }),
        "the stream failed while waiting for the challenge: broken pipe"
    );
    let chain = ChainError::TooLong;
    let expected = format!("peer misbehaved: the sender's key chain is invalid: {chain}");
    let misbehaviour = Misbehaviour::KeyChain(chain);
    assert_eq!(
        shown(HandshakeError::PeerMisbehaved(misbehaviour)),
        expected
    );
}
