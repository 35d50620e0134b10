//! A delivery cut into messages.

use gamut_controller_api::{Key, proto, wire::MESSAGE_TARGET};

use crate::engine::Delivery;

/// The messages of a delivery: at least one, each but the last marked as not the last.
pub(super) fn split(delivery: &Delivery) -> Vec<proto::FromController> {
    let empty = || proto::FromController {
        delivery: delivery.number,
        interest: delivery.interest,
        ..proto::FromController::default()
    };
    let mut last = empty();
    last.suggested = delivery.suggested.iter().map(|address| (&Key::Address(*address)).into()).collect();
    let mut messages = Vec::new();
    let mut size = 0;
    for packed in &delivery.resources {
        let body = packed.wire.body.len();
        if size > 0 && size + body > MESSAGE_TARGET {
            last.more = true;
            messages.push(std::mem::replace(&mut last, empty()));
            size = 0;
        }
        size += body;
        // Cheap: the body's bytes are shared.
        last.resources.push(packed.wire.clone());
    }
    messages.push(last);
    messages
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gamut_controller_api::{Body, Packed, TrustBundle};

    use super::*;

    fn delivery(sizes: &[usize]) -> Delivery {
        let packed = |size: &usize| {
            let roots = vec![vec![0; *size].into()];
            Arc::new(Packed::new(Key::TrustBundle, &Body::TrustBundle(Arc::new(TrustBundle { roots }))))
        };
        Delivery {
            number: 7,
            interest: 0,
            resources: sizes.iter().map(packed).collect(),
            suggested: Vec::new(),
        }
    }

    fn shape(sizes: &[usize]) -> Vec<(usize, bool)> {
        let messages = split(&delivery(sizes));
        assert!(messages.iter().all(|message| message.delivery == 7));
        messages.iter().map(|message| (message.resources.len(), message.more)).collect()
    }

    #[test]
    fn small_resources_share_a_message_and_a_large_one_goes_alone() {
        const MIB: usize = 1 << 20;
        assert_eq!(shape(&[]), [(0, false)]);
        assert_eq!(shape(&[10, 20, 30]), [(3, false)]);
        assert_eq!(shape(&[10, 3 * MIB, 10]), [(1, true), (1, true), (1, false)]);
        assert_eq!(shape(&[MIB / 2, MIB / 4, MIB / 2]), [(2, true), (1, false)]);
    }
}
