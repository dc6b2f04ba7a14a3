//! The reply to a `fetch` (docs/PROTOCOL.md 5.7).

use keys::codec;
use tokio::sync::Semaphore;

use super::{RequestServer, ServerReply, internal, refused};
use crate::peer::handle::SessionInfo;
use crate::peer::message::{Fetch, FetchedBatch, RequestRefusal, SessionMessage};
use crate::state_engine::FetchRequest;

impl RequestServer {
    /// Sends a peer the objects that it lacks. One reply is built at a time, as with packages, and
    /// is charged to the peer's processor time. Without time left the reply is `busy`.
    pub(super) async fn fetch<'b>(
        &self,
        session: &SessionInfo,
        fetch: Fetch,
        build_permit: &'b Semaphore,
    ) -> Result<ServerReply<'b>, RequestRefusal> {
        let (id, peer) = (fetch.id, session.peer);
        let request = FetchRequest {
            peer,
            domain: fetch.domain,
            oids: fetch.oids,
            records: fetch.records,
        };
        let permit = build_permit.acquire().await;
        let permit = permit.map_err(|_| refused(id, "internal"))?;
        if !self.budget.has_time(&peer) {
            return Err(refused(id, "busy"));
        }
        let mut charge = self.budget.begin(&peer, session.tier, 0);
        let fetched = self.core.read(move |view| view.fetch(&request)).await;
        let fetched = fetched.map_err(|error| internal(id, &error))?;
        charge.set_objects(fetched.cost);
        drop(charge);
        Ok(ServerReply {
            message: SessionMessage::Fetched(FetchedBatch {
                id,
                body: codec::encode(&fetched.objects),
                looked_up: u32::try_from(fetched.looked_up).unwrap_or(u32::MAX),
            }),
            build_permit: Some(permit),
            is_news: false,
        })
    }
}
