//! One request at a time on a connection that is polled by whoever waits for the answer.
//!
//! A connection needs no task. [`Connection::send`] writes the request and reads the answer's head; the answer's body
//! ([`Answer`]) then holds the connection, is polled for more, and gives it back at its end. An answer may come before
//! the request's body was sent: then the [`Answer`] also sends the rest, as long as somebody polls it.
//!
//! `Expect: 100-continue` is the server's to answer (RFC 9110 section 10.1.1): the body is not touched before it has
//! said 100, or nothing for [`PATIENCE`], as servers may that don't know the field.

mod answer;
mod upload;

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::answer::Answer;
use self::upload::{Upload, UploadError};
use crate::{
    Error,
    body::Decoder,
    head::{ResponseHead, parse_response, recycle, write_request},
    wire::Wire,
};

/// How long a server may say nothing to `Expect: 100-continue` before the body is sent all the same. curl waits as long.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Up to so many bytes of a request leave in one piece also through TLS: all of them, or none that the server could
/// make anything of.
const ONE_RECORD_BYTES: usize = 16 * 1024;

/// A connection with nothing in flight.
pub struct Connection<IO> {
    wire: Wire<IO>,
    /// It has carried a request before.
    used: bool,
    /// It can carry another when this one is over.
    keeps_alive: bool,
    /// What of the answer's body is still to come.
    decoder: Decoder,
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum Failed<B: Body> {
    /// The connection had ended before anything was written; the request is unharmed.
    #[error("the connection closed before the request was sent: {error}")]
    Unsent {
        /// Why.
        error: Error,
        /// The request.
        request: Box<Request<B>>,
    },
    /// The connection ended without a byte of an answer.
    #[error("the connection ended without an answer: {error}")]
    Silent {
        /// How.
        error: Error,
        /// It had carried other requests before.
        reused: bool,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("{0}")]
    Broken(Error),
    /// The request's own body broke off.
    #[error("the request's body broke off")]
    Body(B::Error),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// A connection over a byte stream. Nothing is sent yet.
    pub fn new(io: IO) -> Box<Self> {
        Box::new(Self { wire: Wire::new(io), used: false, keeps_alive: true, decoder: Decoder::End })
    }

    /// The byte stream below, for its socket's sake.
    pub fn stream(&self) -> &IO {
        &self.wire.io
    }

    /// Whether the last answer is over, and another request may follow.
    fn is_idle(&self) -> bool {
        self.keeps_alive
            && self.decoder.is_over()
            && self.wire.output.is_empty()
            && self.wire.input.rest.is_empty()
    }

    /// Whether another request can be sent: the server has said nothing since the last answer, and hasn't closed.
    pub fn is_usable(&mut self) -> bool {
        self.is_idle() && self.wire.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request and waits for the answer's head. Interim answers are read over, but for what `100 Continue`
    /// means; a 101 ends with [`Answer::into_upgraded`]. Dropping this future closes the connection.
    ///
    /// # Errors
    /// [`Failed`], which gives the request back where that is possible.
    pub async fn send<B>(
        mut self: Box<Self>,
        request: Request<B>,
    ) -> Result<Response<Answer<IO, B>>, Failed<B>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let reused = std::mem::replace(&mut self.used, true);
        let (head, body) = request.into_parts();
        let front = self.wire.output.front();
        let encoder = match write_request(&head, &body.size_hint(), front) {
            Ok(encoder) => encoder,
            Err(error) => return Err(Failed::Broken(error)),
        };
        let method = head.method.clone();
        let mut sending = Sending {
            upload: Upload::new(body, encoder, &head.headers),
            head: Some(head),
            heard: false,
            broken: None,
            reused,
        };
        let answered = poll_fn(|cx| sending.poll(&mut self, &method, cx)).await;
        let Sending { upload, broken, .. } = &mut sending;
        match answered {
            Ok(head) => {
                // Without its end, the request can't be followed by another.
                self.keeps_alive =
                    head.keeps_alive && broken.is_none() && !upload.is_refused() && method != Method::CONNECT;
                let upload =
                    Some(sending.upload).filter(|upload| sending.broken.is_none() && upload.is_under_way());
                self.decoder = Decoder::new(head.framing);
                let switched = head.parts.status == StatusCode::SWITCHING_PROTOCOLS;
                let answer = Answer::new(self, upload.map(Box::new), switched);
                Ok(Response::from_parts(head.parts, answer))
            }
            Err(NoAnswer::Unsent(error)) => match sending.head.take() {
                Some(head) => {
                    let request = Box::new(Request::from_parts(head, sending.upload.into_body()));
                    Err(Failed::Unsent { error, request })
                }
                None => Err(Failed::Broken(error)),
            },
            Err(NoAnswer::Ended(error)) if sending.heard => Err(Failed::Broken(error)),
            Err(NoAnswer::Ended(error)) => Err(Failed::Silent { error, reused: sending.reused }),
            Err(NoAnswer::Broken(error)) => Err(Failed::Broken(error)),
            Err(NoAnswer::Body(error)) => Err(Failed::Body(error)),
        }
    }
}

/// A request on its way.
struct Sending<B> {
    upload: Upload<B>,
    /// Until something of it is written.
    head: Option<http::request::Parts>,
    /// Something has come back.
    heard: bool,
    /// Writing has failed. There may be an answer all the same: servers close behind one that came early.
    broken: Option<io::Error>,
    reused: bool,
}

enum NoAnswer<E> {
    Unsent(Error),
    /// The connection has ended.
    Ended(Error),
    Broken(Error),
    Body(E),
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut Connection<IO>,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, NoAnswer<B::Error>>> {
        let wire = &mut connection.wire;
        if self.broken.is_none() {
            match self.upload.poll(wire, cx) {
                Poll::Ready(Err(UploadError::Body(error))) => return Poll::Ready(Err(NoAnswer::Body(error))),
                Poll::Ready(Err(UploadError::Length)) => {
                    return Poll::Ready(Err(NoAnswer::Broken(Error::WrongLength)));
                }
                Poll::Ready(Err(UploadError::Io(error))) => {
                    let is_whole = self.head.is_some() && self.upload.is_untouched();
                    if is_whole && wire.output.is_untouched() && wire.output.unsent() <= ONE_RECORD_BYTES {
                        return Poll::Ready(Err(NoAnswer::Unsent(error.into())));
                    }
                    self.broken = Some(error);
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if !wire.output.is_untouched()
                && let Some(head) = self.head.take()
            {
                recycle(head.headers);
            }
        }
        loop {
            if !wire.input.rest.is_empty() {
                self.heard = true;
                match parse_response(&mut wire.input.rest, method) {
                    Ok(Some(head)) if is_interim(head.parts.status) => {
                        if head.parts.status == StatusCode::CONTINUE {
                            self.upload.go_on();
                            cx.waker().wake_by_ref();
                        }
                        continue;
                    }
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(bad) => return Poll::Ready(Err(NoAnswer::Broken(bad.into()))),
                }
            }
            match std::task::ready!(wire.poll_read(cx)) {
                Ok(0) => {
                    let error = self.broken.take().map_or(Error::Incomplete, Error::from);
                    return Poll::Ready(Err(NoAnswer::Ended(error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(NoAnswer::Ended(error.into()))),
            }
        }
    }
}

/// Another answer follows. (101 is the last.)
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

#[cfg(test)]
mod tests;
