//! The reply to an `introduce` (docs/PROTOCOL.md 5.8).

use keys::codec;

use super::{RequestServer, ServerReply, internal, refused};
use crate::peer::handle::SessionInfo;
use crate::peer::message::{Introduce, Introduced, RequestRefusal, SessionMessage};
use crate::state_engine::AddressRequest;

impl RequestServer {
    /// Sends a peer the address records that it may have. The reply is charged to the peer's
    /// processor time. Without time left the reply is `busy`.
    pub(super) async fn introduce<'b>(
        &self,
        session: &SessionInfo,
        introduce: Introduce,
    ) -> Result<ServerReply<'b>, RequestRefusal> {
        let (id, peer) = (introduce.id, session.peer);
        let request = AddressRequest {
            peer,
            scope: introduce.scope,
            domain: introduce.domain,
            after: introduce.after,
        };
        if !self.budget.has_time(&peer) {
            return Err(refused(id, "busy"));
        }
        let mut charge = self.budget.begin(&peer, session.tier, 0);
        let now = self.core.now();
        let found = self.core.read(move |view| view.addresses(&request, now));
        let found = found.await.map_err(|error| internal(id, &error))?;
        charge.set_objects(found.cost);
        drop(charge);
        let (body, next) = (codec::encode(&found.records), found.next);
        Ok(SessionMessage::Introduced(Introduced { id, body, next }).into())
    }
}
