//! What controller and sidecars say to each other.

use gamut_controller_api::{Key, Packed, Resource, proto};
use prost::Message as _;

/// A message of either side. What a sidecar takes comes out again as it went in: nothing that it doesn't know was dropped
/// from what it holds, and a key has one spelling.
pub(crate) fn resource(input: &[u8]) {
    if let Ok(message) = proto::FromController::decode(input) {
        for resource in message.resources {
            let Some(Ok(key)) = resource.key.map(Key::try_from) else { continue };
            taken(key, &resource.version, &resource.body);
        }
    }
    if let Ok(message) = proto::FromProxy::decode(input) {
        use proto::from_proxy::Message;
        let keys = match message.message {
            Some(Message::Hello(hello)) => hello.held.into_iter().filter_map(|held| held.key).collect(),
            Some(Message::Interest(interest)) => [interest.subscribe, interest.unsubscribe].concat(),
            Some(Message::Refusal(refusal)) => refusal.key.into_iter().collect(),
            Some(Message::Ack(_)) | None => Vec::new(),
        };
        for key in keys.into_iter().filter_map(|key| Key::try_from(key).ok()) {
            assert_eq!(Key::try_from(proto::Key::from(&key)).as_ref(), Ok(&key));
        }
    }
}

fn taken(key: Key, version: &[u8], body: &[u8]) {
    let Ok(opened) = Resource::open(key, version, body) else { return };
    let packed = Packed::new(opened.key.clone(), &opened.body);
    let key = packed.wire.key.clone().map(Key::try_from).expect("a key").expect("a key of ours");
    let again = Resource::open(key, &packed.wire.version, &packed.wire.body).expect("a body of ours");
    assert_eq!((&again.key, &again.body), (&opened.key, &opened.body));
    assert_eq!(Packed::new(again.key, &again.body).version, packed.version);
}
