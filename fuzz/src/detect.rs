//! What a connection's first bytes are taken for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use gamut_http1::fuzz::request_head;
use gamut_proxy::detect::{Detected, SILENCE, detect as look};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::block_on;

/// The longest method that detection knows. A longer one is another protocol's word.
const LONGEST_METHOD: usize = 32;

/// A connection that brings a few bytes at a time, and ends.
struct Pieces<'a> {
    rest: &'a [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.rest.split_at(self.step.min(self.rest.len()).min(buf.remaining()));
        buf.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// The same in pieces of any size as at once; not a byte is lost; and what an HTTP/1.1 server would answer goes to one,
/// because as bytes it would pass by routes and policy.
pub(crate) fn detect(input: &[u8]) {
    let whole = found(input, input.len().max(1));
    for step in [1, 3, 7, 64] {
        assert_eq!(found(input, step), whole, "in pieces of {step}");
    }
    if let Some((method, ..)) = request_head(&Bytes::copy_from_slice(input))
        && method.as_str().len() <= LONGEST_METHOD
    {
        assert_eq!(whole, Detected::Http1, "{method}");
    }
    match whole {
        Detected::Http2 => assert!(input.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Detected::Tls(hello) => {
            assert!(input.starts_with(&[22, 3]));
            if let Some(name) = hello.server_name {
                let is_there =
                    input.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name.as_bytes()));
                // A ClientHello in several records has their headers in its middle.
                assert!(
                    is_there || input.iter().filter(|byte| **byte == 22).count() > 1,
                    "{name} isn't in it"
                );
            }
        }
        Detected::Http1 | Detected::Opaque(_) => {}
    }
}

fn found(input: &[u8], step: usize) -> Detected {
    block_on(async {
        let (detected, mut stream) =
            look(Pieces { rest: input, step }, SILENCE).await.expect("no error in memory");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("no error in memory");
        assert_eq!(all, input, "in pieces of {step}");
        detected
    })
}
