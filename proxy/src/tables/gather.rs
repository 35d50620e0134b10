//! From messages to a delivery: keys read, bodies opened, what can't be read set aside with the reason.

use gamut_controller_api::{Key, Resource, proto, wire};

use super::view::Delivery;

/// The messages of one delivery as they come in.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) delivery: Delivery,
}

impl Gathered {
    /// Opens a message's resources. Returns refusals for those whose keys can't be read.
    pub(super) fn add(&mut self, message: proto::FromController) -> Vec<proto::Refusal> {
        let delivery = &mut self.delivery;
        delivery.number = message.delivery;
        delivery.interest = message.interest;
        let mut unnamed = Vec::new();
        for resource in message.resources {
            let wire_key = resource.key.clone();
            let key = resource.key.ok_or_else(|| wire::WireError::missing("key")).and_then(Key::try_from);
            match key {
                Ok(key) => match Resource::open(key.clone(), &resource.version, &resource.body) {
                    Ok(resource) => delivery.resources.push(resource),
                    Err(error) => delivery.unreadable.push((key, error.to_string())),
                },
                Err(error) => unnamed.push(proto::Refusal {
                    delivery: message.delivery,
                    key: wire_key,
                    reason: error.to_string(),
                }),
            }
        }
        // A suggestion of another kind is a newer controller's: there is nothing wrong with not following it.
        let suggested = message.suggested.into_iter().filter_map(|key| match Key::try_from(key) {
            Ok(Key::Address(address)) => Some(address),
            _ => None,
        });
        delivery.suggested.extend(suggested);
        unnamed
    }
}
