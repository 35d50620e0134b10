//! Subscriptions over gRPC: one stream for each sidecar, between the [`engine`](crate::engine) and the wire.
//!
//! ```text
//! Hello ─ who is it, by its certificate? ─► Engine ─ deliveries ─► messages of about a MiB ─► the sidecar
//! Interest ─ may it read that? ─► Engine          Ack, Refusal ─► Engine
//! ```
//!
//! Whoever is at the other end has a certificate of the mesh, or there would be no connection. What it may read is
//! in `access`.

mod access;
mod message;

use std::{collections::HashMap, time::Duration};

use gamut_controller_api::{Key, Version, proto, wire};
use gamut_identity::grpc::Caller;
use gamut_route::Uid;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

pub use self::access::Denied;
use crate::engine::{CutOff, Delivery, Handle, Interest, Subscribed, SubscriberId, Who};

/// How long a stranger may take to say Hello.
const HELLO: Duration = Duration::from_secs(10);
/// How many messages wait for the connection, beside what HTTP/2 buffers.
const MESSAGES: usize = 2;

/// The gRPC service.
#[derive(Clone, Debug)]
pub struct Service {
    engine: Handle,
}

/// One sidecar's stream.
struct Stream {
    engine: Handle,
    id: SubscriberId,
    who: Who,
    to_sidecar: mpsc::Sender<Result<proto::FromController, Status>>,
}

impl Service {
    /// A service over an engine.
    pub fn new(engine: Handle) -> Self {
        Self { engine }
    }

    /// The service as tonic serves it.
    pub fn into_server(self) -> proto::controller_server::ControllerServer<Self> {
        proto::controller_server::ControllerServer::new(self)
            .max_decoding_message_size(wire::MAX_MESSAGE_FROM_PROXY)
            .max_encoding_message_size(wire::MAX_MESSAGE_FROM_CONTROLLER)
    }
}

#[tonic::async_trait]
impl proto::controller_server::Controller for Service {
    type SubscribeStream = ReceiverStream<Result<proto::FromController, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::FromProxy>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the connection has no caller"))?;
        let mut from_sidecar = request.into_inner();
        let first = timeout(HELLO, from_sidecar.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
        let Some(proto::from_proxy::Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let (who, held) = read_hello(hello)?;
        access::identify(caller.peer.as_ref(), &who)?;
        for key in held.keys() {
            access::may_read(&who, key)?;
        }

        let subscribed = self.engine.subscribe(who.clone(), held).await;
        let Subscribed { id, deliveries, cut_off } = subscribed.ok_or_else(shutting_down)?;
        info!(address = %caller.address, "{}/{} has subscribed", who.namespace, who.pod);
        let (to_sidecar, messages) = mpsc::channel(MESSAGES);
        let stream = Stream { engine: self.engine.clone(), id, who, to_sidecar };
        tokio::spawn(async move {
            tokio::select! {
                () = stream.send(deliveries) => {}
                ended = stream.receive(from_sidecar) => stream.end(ended.err()).await,
                reason = cut_off => stream.end(reason.ok().map(status_of)).await,
                () = stream.to_sidecar.closed() => {}
            }
            debug!("the stream of {}/{} has ended", stream.who.namespace, stream.who.pod);
            stream.engine.gone(stream.id).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

impl Stream {
    /// Sends deliveries until there are none any more.
    async fn send(&self, mut deliveries: mpsc::Receiver<Delivery>) {
        while let Some(delivery) = deliveries.recv().await {
            for message in message::split(&delivery) {
                if self.to_sidecar.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
        // The engine has let us go; `cut_off` says why.
        std::future::pending().await
    }

    /// Takes in what the sidecar says until it ends the stream.
    async fn receive(&self, mut from_sidecar: Streaming<proto::FromProxy>) -> Result<(), Status> {
        while let Some(message) = from_sidecar.message().await? {
            match message.message {
                Some(proto::from_proxy::Message::Interest(interest)) => self.interest(interest).await?,
                Some(proto::from_proxy::Message::Ack(ack)) => {
                    self.engine.acknowledged(self.id, ack.delivery).await;
                }
                Some(proto::from_proxy::Message::Refusal(refusal)) => self.refusal(refusal).await,
                Some(proto::from_proxy::Message::Hello(_)) => {
                    return Err(Status::invalid_argument("Hello is said once"));
                }
                // A newer sidecar's: it has to get by without an answer.
                None => debug!("{}/{} said something unknown", self.who.namespace, self.who.pod),
            }
        }
        Ok(())
    }

    async fn interest(&self, interest: proto::Interest) -> Result<(), Status> {
        let subscribe = read_keys(interest.subscribe)?;
        let unsubscribe = read_keys(interest.unsubscribe)?;
        for key in &subscribe {
            access::may_read(&self.who, key)?;
        }
        let interest = Interest { number: interest.number, subscribe, unsubscribe };
        self.engine.interest(self.id, interest).await;
        Ok(())
    }

    async fn refusal(&self, refusal: proto::Refusal) {
        // A key that can't be read is one that we never sent.
        if let Some(Ok(key)) = refusal.key.map(Key::try_from) {
            self.engine.refused(self.id, refusal.delivery, key, refusal.reason).await;
        }
    }

    /// Ends the stream with a reason, if the connection takes it.
    async fn end(&self, reason: Option<Status>) {
        if let Some(reason) = reason {
            debug!("{}/{}: {}", self.who.namespace, self.who.pod, reason.message());
            // Nobody waits for a sidecar that doesn't read.
            let _ = self.to_sidecar.try_send(Err(reason));
        }
    }
}

fn read_hello(hello: proto::Hello) -> Result<(Who, HashMap<Key, Version>), Status> {
    if hello.held.len() > wire::MAX_KEYS {
        return Err(status_of(CutOff::TooManyKeys(wire::MAX_KEYS)));
    }
    let read = |held: proto::Held| {
        let key = held.key.ok_or_else(|| wire::WireError::missing("key")).and_then(Key::try_from)?;
        Ok((key, Version::from_wire(&held.version)?))
    };
    let held = hello.held.into_iter().map(read).collect::<Result<_, _>>().map_err(bad_request)?;
    let who = Who {
        namespace: hello.namespace,
        pod: hello.pod_name,
        uid: Uid::of(&hello.pod_uid),
        proxy_version: hello.proxy_version,
    };
    Ok((who, held))
}

fn read_keys(keys: Vec<proto::Key>) -> Result<Vec<Key>, Status> {
    keys.into_iter().map(Key::try_from).collect::<Result<_, _>>().map_err(bad_request)
}

fn bad_request(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn status_of(reason: CutOff) -> Status {
    match reason {
        CutOff::Slow | CutOff::TooManyKeys(_) => Status::resource_exhausted(reason.to_string()),
        CutOff::ShuttingDown => Status::unavailable(reason.to_string()),
    }
}

fn shutting_down() -> Status {
    status_of(CutOff::ShuttingDown)
}
