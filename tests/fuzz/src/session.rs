//! The messages of a session, including the objects that a restored node reclaims, and the text of
//! a recovery file.
//!
//! Signatures are not verified, because other targets do that. Invariant: every accepted input is
//! the canonical form of its value.

use keys::{RecoveryKey, codec};
use postern::object::{Object, ObjectLimits};
use postern::peer::message::SessionMessage;

/// Decodes a message of a session, and each object of a recovery batch.
pub fn session(data: &[u8]) -> bool {
    let Ok(message) = SessionMessage::decode(data) else {
        return false;
    };
    assert_eq!(message.encode(), data, "a message has two forms");
    if let SessionMessage::Reclaimed(returned) = &message {
        let Ok(objects) = returned.objects() else {
            return false;
        };
        assert_eq!(
            codec::encode(&objects),
            returned.body,
            "the recovery batch has two forms"
        );
        for signed in &objects {
            if let Ok(object) = Object::from_bytes(signed.bytes(), &ObjectLimits::default()) {
                assert_eq!(object.to_bytes(), signed.bytes(), "an object has two forms");
            }
        }
    }
    true
}

/// Decodes the text of a recovery file; encoding it again must give a text with the same key.
pub fn recovery(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(read) = RecoveryKey::from_text(text) else {
        return false;
    };
    let written = read.to_text();
    let again = RecoveryKey::from_text(&written);
    let again = again.unwrap_or_else(|error| panic!("the written text is not accepted: {error}"));
    assert_eq!(
        (again.holder(), again.key_id()),
        (read.holder(), read.key_id())
    );
    assert_eq!(*again.to_text(), *written, "two texts of one key");
    true
}
