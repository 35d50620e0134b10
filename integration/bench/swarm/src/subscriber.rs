//! A sidecar's subscription, as the sidecar makes it, without what the sidecar does with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use gamut_controller_api::{Key, Version, proto, wire};
use gamut_identity::{Clock, Identity, explain, grpc};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::{
    cluster::{self, POPULAR},
    plane::{CONTROLLER, Plane},
    tracker::Tracker,
};

/// A sidecar with a certificate, connected or not. It keeps what it holds over connections.
pub(crate) struct Subscriber {
    number: usize,
    namespace: String,
    identity: Identity,
    held: HashMap<Key, Version>,
    tracker: Arc<Mutex<Tracker>>,
}

impl Subscriber {
    /// Gets a certificate.
    pub(crate) async fn new(
        plane: &Plane,
        number: usize,
        namespace: String,
        tracker: Arc<Mutex<Tracker>>,
    ) -> anyhow::Result<Self> {
        let (id, ca) = plane.certificates(&namespace, &cluster::subscriber(number))?;
        let identity = Identity::start(id, ca, Clock::system());
        identity.ready().await;
        Ok(Self { number, namespace, identity, held: HashMap::new(), tracker })
    }

    /// Subscribes once, and follows until the stream ends or `stop` changes.
    pub(crate) async fn connect(&mut self, mut stop: watch::Receiver<u64>) -> anyhow::Result<()> {
        let (outbox, messages) = mpsc::unbounded_channel();
        let say = |message| {
            outbox.send(proto::FromProxy { message: Some(message) }).context("the stream has ended")
        };
        let pod = cluster::subscriber(self.number);
        let held = self.held.iter();
        let held = held
            .map(|(key, version)| proto::Held { key: Some(key.into()), version: version.to_wire().to_vec() });
        say(proto::from_proxy::Message::Hello(proto::Hello {
            pod_uid: cluster::uid(&pod),
            namespace: self.namespace.clone(),
            pod_name: pod.clone(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held: held.collect(),
        }))?;
        let config = self.identity.client_config_to(&Plane::controller_id()?, grpc::ALPN)?;
        let channel = grpc::connect(grpc::endpoint(CONTROLLER)?, config).await;
        let channel = channel.map_err(|error| anyhow::anyhow!("{}", explain(&error)))?;
        let mut client = proto::controller_client::ControllerClient::new(channel)
            .max_decoding_message_size(wire::MAX_MESSAGE_FROM_CONTROLLER);
        let mut stream: Streaming<proto::FromController> =
            client.subscribe(UnboundedReceiverStream::new(messages)).await?.into_inner();

        let mut interests = 0;
        loop {
            let message = tokio::select! {
                message = stream.message() => message?,
                _ = stop.changed() => return Ok(()),
            };
            let Some(message) = message else { anyhow::bail!("the controller has ended the stream") };
            let (delivery, interest, more) = (message.delivery, message.interest, message.more);
            let mut wanted = self.take(message)?;
            if interests == 0 {
                let popular =
                    (0..POPULAR).map(|service| Key::Address((cluster::cluster_ip(service), 80).into()));
                wanted.extend([
                    Key::TrustBundle,
                    Key::InboundPolicy(gamut_route::Uid::of(&cluster::uid(&pod))),
                ]);
                wanted.extend(popular);
                wanted.retain(|key| !self.held.contains_key(key));
                interests = 1;
                let subscribe: Vec<proto::Key> = wanted.iter().map(Into::into).collect();
                if subscribe.is_empty() {
                    self.tracker().loaded();
                }
                say(proto::from_proxy::Message::Interest(proto::Interest {
                    subscribe,
                    number: 1,
                    ..Default::default()
                }))?;
            } else if interest == interests && !more {
                self.tracker().loaded();
                interests = 2;
            }
            if !more {
                say(proto::from_proxy::Message::Ack(proto::Ack { delivery }))?;
            }
        }
    }

    /// Notes what a message brings; returns the addresses that it suggests.
    fn take(&mut self, message: proto::FromController) -> anyhow::Result<Vec<Key>> {
        let mut changes = Vec::new();
        let bytes = message.encoded_len();
        for resource in message.resources {
            let key = Key::try_from(resource.key.context("a resource without key")?)?;
            let version = Version::from_wire(&resource.version)?;
            if let Key::EndpointSet(_) = key {
                let body = proto::Body::decode(resource.body)?;
                if let Some(proto::body::Body::EndpointSet(set)) = body.body {
                    let pods = set.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref());
                    changes.extend(
                        pods.filter_map(|pod| cluster::change_of(&pod.name))
                            .max_by_key(|(_, change)| *change),
                    );
                }
            }
            self.held.insert(key, version);
        }
        let mut tracker = self.tracker();
        tracker.received(bytes);
        for (service, change) in changes {
            tracker.seen(self.number, service, change);
        }
        drop(tracker);
        Ok(message.suggested.into_iter().filter_map(|key| Key::try_from(key).ok()).collect())
    }

    fn tracker(&self) -> std::sync::MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
