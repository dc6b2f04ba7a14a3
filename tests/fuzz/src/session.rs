//! What an admitted peer says, and what a restored node gets back from one; and the text of a recovery file.
//!
//! Never asks whether what was read is true: signatures are other targets'. Invariant: what is read has one form.

use keys::{RecoveryKey, codec};
use postern::object::{Object, ObjectLimits};
use postern::peer::message::Message;

/// A message of a session, of any kind; of objects that a peer gives back, each.
pub fn session(data: &[u8]) -> bool {
    let Ok(message) = Message::decode(data) else {
        return false;
    };
    assert_eq!(message.encode(), data, "a message has two forms");
    if let Message::Returned(returned) = &message {
        let Ok(objects) = returned.objects() else {
            return false;
        };
        assert_eq!(
            codec::encode(&objects),
            returned.body,
            "what came back has two forms"
        );
        for signed in &objects {
            if let Ok(object) = Object::from_bytes(signed.bytes(), &ObjectLimits::default()) {
                assert_eq!(object.to_bytes(), signed.bytes(), "an object has two forms");
            }
        }
    }
    true
}

/// A recovery file's text: what is read is what was written, however it was typed.
pub fn recovery(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(read) = RecoveryKey::from_text(text) else {
        return false;
    };
    let written = read.to_text();
    let again = RecoveryKey::from_text(&written);
    let again = again.unwrap_or_else(|error| panic!("what was written is not read: {error}"));
    assert_eq!(
        (again.holder(), again.key_id()),
        (read.holder(), read.key_id())
    );
    assert_eq!(*again.to_text(), *written, "two texts of one key");
    true
}
