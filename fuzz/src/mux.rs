//! What another sidecar says on a connection of many requests.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use gamut_proxy::http::{Body, mux::server::serve};
use http::{Request, Response};
use tokio::{
    io::{AsyncWriteExt, duplex},
    task::yield_now,
};

use crate::{block_on, http2::leaves_as_one};

/// How much a connection may say, and how much of the answers is read.
const MOST_BYTES: usize = 64 * 1024;

/// Frames. Each request that comes of them leaves as one message of HTTP/1.1, and is read there as it was matched.
pub(crate) fn request(input: &[u8]) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let answer = move |request: Request<Body>| {
        let (head, body) = request.into_parts();
        seen.lock().expect("no panic").push(head);
        async move { Response::new(body) }
    };
    block_on(async {
        let (mut near, far) = duplex(MOST_BYTES);
        let serving = tokio::spawn(serve(far, true, answer, pending()));
        near.write_all(&input[..input.len().min(MOST_BYTES)]).await.expect("room for it");
        // Those who answer have their turns before the connection ends.
        for _ in 0..4 {
            yield_now().await;
        }
        drop(near);
        // How it ends is the peer's business.
        let _ = serving.await.expect("no panic");
    });
    for head in heads.lock().expect("no panic").drain(..) {
        leaves_as_one(Request::from_parts(head, Body::Empty));
    }
}
