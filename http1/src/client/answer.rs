//! An answer's body, and the connection that it comes over.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Connection,
    upload::{Upload, UploadError},
};
use crate::{Error, body::Decoded};

/// An answer's body. Whoever polls it polls the connection, and what is left of the request's body. Dropping it before
/// its end closes the connection.
pub struct Answer<IO, B> {
    /// Gone when it was given back, or broke.
    connection: Option<Box<Connection<IO>>>,
    /// What of the request is still to be sent.
    upload: Option<Box<Upload<B>>>,
    switched: bool,
}

impl<IO, B> Answer<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(
        connection: Box<Connection<IO>>,
        upload: Option<Box<Upload<B>>>,
        switched: bool,
    ) -> Self {
        Self { connection: Some(connection), upload, switched }
    }

    /// The body, if all of it is here already and nothing is left to be sent.
    pub fn whole(&mut self) -> Option<Bytes> {
        let connection = self.connection.as_mut().filter(|_| self.upload.is_none())?;
        let remaining = usize::try_from(connection.decoder.remaining()?).ok()?;
        let input = &mut connection.wire.input.rest;
        if remaining == 0 {
            return Some(Bytes::new());
        }
        if input.len() < remaining {
            return None;
        }
        match connection.decoder.decode(input) {
            Ok(Decoded::Data(data)) => Some(data),
            _ => None,
        }
    }

    /// Whether a part of the request is still to be sent.
    pub fn is_uploading(&self) -> bool {
        self.upload.is_some()
    }

    /// Sends what can be sent of the request; ready when nothing is left of it.
    ///
    /// # Errors
    /// [`Error::Source`] if the request's body broke off, which leaves nothing to expect of the answer.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (Some(connection), Some(upload)) = (&mut self.connection, &mut self.upload) else {
            return Poll::Ready(Ok(()));
        };
        let sent = ready!(upload.poll(&mut connection.wire, cx));
        self.upload = None;
        match sent {
            Ok(()) => Poll::Ready(Ok(())),
            // The server has closed its side; it may have done so because it needs no more for its answer.
            Err(UploadError::Io(_)) => {
                connection.keeps_alive = false;
                connection.wire.output.clear();
                Poll::Ready(Ok(()))
            }
            Err(UploadError::Body(_)) => Poll::Ready(Err(Error::Source)),
            Err(UploadError::Length) => Poll::Ready(Err(Error::WrongLength)),
        }
    }

    /// The connection, if the answer is at its end, nothing is left to be sent, and another request may follow. Whether
    /// the server has closed meanwhile is to be asked before that ([`Connection::is_usable`]).
    pub fn take_idle(&mut self) -> Option<Box<Connection<IO>>> {
        if !self.is_end_stream() || self.upload.is_some() || self.switched {
            return None;
        }
        let mut connection = self.connection.take()?;
        connection.wire.input.settle();
        connection.is_idle().then_some(connection)
    }

    /// The byte stream behind a 101, and what of it was read with the head.
    pub fn into_upgraded(self) -> Option<(IO, Bytes)> {
        let connection = self.connection.filter(|_| self.switched)?;
        Some((connection.wire.io, connection.wire.input.rest))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        // The request goes on while its answer comes.
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(error));
        }
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        let Connection { wire, decoder, keeps_alive, .. } = &mut **connection;
        loop {
            match decoder.decode(&mut wire.input.rest)? {
                Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Decoded::End => return Poll::Ready(Ok(None)),
                Decoded::More => {}
            }
            if ready!(wire.poll_read_body(decoder.remaining(), cx))? == 0 {
                *keeps_alive = false;
                let ends = decoder.ends_here();
                return Poll::Ready(if ends { Ok(None) } else { Err(Error::Incomplete) });
            }
        }
    }
}

impl<IO, B> Body for Answer<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = ready!(this.poll_read(cx));
        if polled.is_err() {
            this.connection = None;
        }
        Poll::Ready(polled.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.decoder.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = self.connection.as_ref().map_or(Some(0), |connection| connection.decoder.remaining());
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
