//! Serving requests on a connection.
//!
//! ```text
//! head -> Request<Incoming> -> the service -> Response -> head and body out -> the rest of the request's body -> next
//! ```
//!
//! While the service is at work and the request's body has been read, the connection is read on, so that a client that
//! goes away is noticed: the service's future is dropped. (Who closes its sending side before it has its answer has
//! gone away too, as for most servers.) What comes of a next request waits for its turn.

mod connection;
mod incoming;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header::TE};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use self::connection::Connection;
pub use self::incoming::Incoming;
use crate::{
    BadHead, Error,
    head::{Asked, RequestHead, lists, recycle, write_response},
};

/// How serving came to its end.
#[derive(Debug)]
pub enum Ended<IO, B> {
    /// The connection is closed.
    Closed,
    /// The service has answered 101, and the connection isn't HTTP any more.
    Upgraded {
        /// The byte stream.
        io: IO,
        /// What of it was read already.
        read: Bytes,
        /// The body of the 101, of which nothing was sent.
        body: B,
    },
}

/// Serves requests until the connection ends. A request's head has `head_time` from its first byte on; an idle connection may
/// stay as long as it likes. When `drain` is ready, the connection closes: at once if it is idle, else
/// behind the answer that is due. Dropping the future closes the connection and cancels the request.
///
/// A 101 may be answered to a request with `Upgrade` alone; no other 1xx is.
///
/// # Errors
/// How the connection ended, if not well. A head that was refused has been answered.
pub async fn serve<IO, S, F, B>(
    io: IO,
    head_time: Duration,
    mut service: S,
    drain: impl Future<Output = ()>,
) -> Result<Ended<IO, B>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: FnMut(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    let connection = Connection::new(io);
    let mut drain = Drain { waiting: pin!(drain), is_due: false };
    loop {
        let head = match connection.read_head(head_time, &mut drain).await {
            Ok(Some(head)) => head,
            Ok(None) => {
                connection.close().await;
                return Ok(Ended::Closed);
            }
            Err(Error::Head(bad)) => {
                refuse(&connection, bad).await;
                return Err(bad.into());
            }
            Err(error) => return Err(error),
        };
        let (upgrades, mut keeps_alive) = (head.upgrades, head.keeps_alive);
        let asked = Asked {
            method: head.parts.method.clone(),
            version: head.parts.version,
            trailers: lists(&head.parts.headers, &TE, "trailers"),
        };
        let request = connection.begin(head);
        let mut answering = pin!(service(request));
        let answered = poll_fn(|cx| {
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            drain.poll(cx);
            connection.poll_gone(cx).map(Err)
        });
        let response = answered.await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && upgrades {
            let (head, body) = response.into_parts();
            let (io, read) = connection.switch(&head, &asked).await?;
            return Ok(Ended::Upgraded { io, read, body });
        }
        keeps_alive &= !drain.is_due && !connection.leaves_waiting();
        respond(&connection, response, &asked, &mut keeps_alive, &mut drain).await?;
        if !keeps_alive || !connection.settle().await? {
            connection.close().await;
            return Ok(Ended::Closed);
        }
    }
}

/// Writes an answer to its end.
async fn respond<IO, B>(
    connection: &Connection<IO>,
    response: Response<B>,
    asked: &Asked,
    keeps_alive: &mut bool,
    drain: &mut Drain<'_, impl Future<Output = ()>>,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Unpin,
{
    let (mut head, mut body) = response.into_parts();
    if head.status.is_informational() {
        // A mistake of the service's: such an answer would leave the client waiting.
        head.status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let mut encoder =
        connection.write_head(|out| write_response(&head, &body.size_hint(), asked, keeps_alive, out))?;
    recycle(head.headers);
    let mut is_over = encoder.is_over() || body.is_end_stream();
    if is_over {
        connection.write(|out| encoder.end(None, out))?;
    }
    poll_fn(|cx| {
        loop {
            let mut waits = false;
            if !is_over && !connection.is_full() {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        let frame = match frame.into_data() {
                            Ok(data) => {
                                connection.write(|out| encoder.data(data, out))?;
                                is_over = encoder.is_over();
                                if body.is_end_stream() {
                                    is_over = true;
                                    connection.write(|out| encoder.end(None, out))?;
                                }
                                continue;
                            }
                            Err(frame) => frame,
                        };
                        connection.write(|out| encoder.end(frame.trailers_ref(), out))?;
                        is_over = true;
                    }
                    Poll::Ready(None) => {
                        connection.write(|out| encoder.end(None, out))?;
                        is_over = true;
                    }
                    // What was written before is sent; its missing end tells the client.
                    Poll::Ready(Some(Err(_))) => {
                        return connection.poll_flush(cx).map(|_| Err(Error::Source));
                    }
                    Poll::Pending => waits = true,
                }
            }
            match connection.poll_flush(cx)? {
                Poll::Ready(()) if is_over => return Poll::Ready(Ok(())),
                Poll::Ready(()) if !waits => {}
                _ => {
                    drain.poll(cx);
                    return connection.poll_gone(cx).map(Err);
                }
            }
        }
    })
    .await?;
    *keeps_alive &= !drain.is_due;
    Ok(())
}

/// Answers a head that was refused; what comes behind it isn't looked at.
async fn refuse<IO>(connection: &Connection<IO>, bad: BadHead)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = bad.status();
    let asked = Asked { method: http::Method::GET, version: Version::HTTP_11, trailers: false };
    let none = http_body::SizeHint::with_exact(0);
    // It has no content-length that could be wrong.
    let _ = connection.write_head(|out| write_response(&head, &none, &asked, &mut false, out));
    connection.close().await;
}

/// A wish to end the connection.
struct Drain<'a, F> {
    waiting: Pin<&'a mut F>,
    is_due: bool,
}

impl<F: Future<Output = ()>> Drain<'_, F> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        self.is_due = self.is_due || self.waiting.as_mut().poll(cx).is_ready();
        self.is_due
    }
}

impl RequestHead {
    fn into_request(self, body: Incoming) -> Request<Incoming> {
        Request::from_parts(self.parts, body)
    }
}

#[cfg(test)]
mod tests;
