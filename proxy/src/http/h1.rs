//! One HTTP/1.1 connection to an upstream, polled by whoever uses it.
//!
//! It lies in the pool unpolled, and the task of the request that took it out polls it: first while it waits for the
//! answer's head, then through the [`Driven`] body. That saves waking a second task twice per request, which measured
//! as a quarter of the processor time at low load. What it asks for in return:
//! - a connection that lay in the pool is polled once before its use, to learn whether the server closed it
//!   meanwhile;
//! - where the answer's head comes before the request's body was sent to its end, nobody would send the rest
//!   while the client doesn't read; such an exchange does get a task ([`super::relay`]).

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use gamut_http1::client::{Answer, Connection, Failed};
use http::{Request, Response, StatusCode};
use http_body::SizeHint;

use super::{
    body::{Body, BodyError, FramePoll},
    io::Io,
    pool::Pool,
    relay::relay,
    upgrade::Upgraded,
};

/// An upstream connection with nothing in flight.
pub type H1 = Connection<Io>;

/// The body of an answer, and the connection that it comes over.
pub struct Driven {
    answer: Answer<Io, Body>,
    /// Where the connection goes at the body's end.
    home: Weak<Pool>,
}

/// The body of a request that kernels take at once as they are usually set, whether or not the app reads.
const SHORT_BYTES: u64 = 16 * 1024;

/// Sends a request (origin-form URI, `Host` header) and waits for the answer's head. The connection goes back to `home`
/// at the end of the answer's body, if it can be used again. Dropping this future closes the connection.
pub(super) async fn send(
    connection: Box<H1>,
    request: Request<Body>,
    home: &Arc<Pool>,
) -> Result<Response<Body>, Failed<Body>> {
    if http_body::Body::size_hint(request.body()).exact().is_none_or(|length| length > SHORT_BYTES) {
        connection.stream().allow_pauses();
    }
    let (head, mut answer) = connection.send(request).await?.into_parts();
    let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.into_upgraded().map_or(Body::Empty, |(io, read)| {
            io.allow_pauses();
            Body::Upgraded(Box::new(Upgraded::new(io, read)))
        })
    } else if let Some(body) = answer.whole() {
        give_back(&mut answer, home);
        Body::from(body)
    } else if answer.is_uploading() {
        relay(answer, Arc::downgrade(home))
    } else {
        Body::Driven(Driven { answer, home: Arc::downgrade(home) })
    };
    Ok(Response::from_parts(head, body))
}

/// Puts the connection of an answer that has ended back, if it can be used again.
pub(super) fn give_back(answer: &mut Answer<Io, Body>, home: &Arc<Pool>) {
    if let Some(connection) = answer.take_idle() {
        home.put(connection);
    }
}

impl Driven {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.answer), cx);
        if matches!(&polled, Poll::Ready(Some(Ok(_)) | None))
            && self.is_end_stream()
            && let Some(home) = self.home.upgrade()
        {
            give_back(&mut self.answer, &home);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::from)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.answer)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt, duplex},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        http::{PoolLimits, testing::read_head},
        tcp::{ANSWER_TIMEOUT, USER_TIMEOUT, expect_answers},
    };

    fn connection() -> (Box<H1>, tokio::io::DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (H1::new(Io::Local(near)), far)
    }

    fn request() -> Request<Body> {
        Request::get("/").header("host", "web").body(Body::Empty).unwrap()
    }

    /// What `kill -9` of a server under load does now and then.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_closes_between_the_last_look_at_it_and_the_request_gives_the_request_back() {
        let pool = Pool::new(PoolLimits::APP);
        let (connection, mut server) = connection();
        let answering = async {
            read_head(&mut server).await;
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(send(connection, request(), &pool), answering);
        assert_eq!(answer.ok().unwrap().status(), 200);

        let kept = pool.take().unwrap();
        drop(server);
        let sent =
            tokio::time::timeout(std::time::Duration::from_secs(60), send(kept, request(), &pool)).await;
        let failed = sent.expect("an answer or an error, not silence").err().unwrap();
        let Failed::Unsent { request, .. } = failed else { panic!("{failed}") };
        assert_eq!(request.uri(), "/");
    }

    /// Sends a request to a server that answers so, and says what the connection's limit is then, and after how long a silence it is asked.
    async fn limits_after(request: Request<Body>, answer: &str) -> (Option<Duration>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        expect_answers(&stream);
        let socket = SockRef::from(&stream).try_clone().unwrap();
        let answering = async {
            let (mut server, _) = listener.accept().await.unwrap();
            server.read_u8().await.unwrap();
            server.write_all(answer.as_bytes()).await.unwrap();
            server
        };
        let pool = Pool::new(PoolLimits::APP);
        let (answered, _server) = tokio::join!(send(H1::new(Io::Tcp(stream)), request, &pool), answering);
        assert!(answered.is_ok());
        (socket.tcp_user_timeout().unwrap(), socket.tcp_keepalive_time().unwrap())
    }

    #[tokio::test]
    async fn an_app_that_may_pause_in_the_middle_of_a_body_or_behind_an_upgrade_has_more_time() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let post =
            |length| Request::post("/").header("host", "web").body(Body::from("a".repeat(length))).unwrap();
        let upgrade =
            Request::get("/").header("host", "web").header("connection", "upgrade").header("upgrade", "echo");
        for (request, answer, limit) in [
            (request(), ok, ANSWER_TIMEOUT),
            (post(SHORT_BYTES as usize), ok, ANSWER_TIMEOUT),
            (post(SHORT_BYTES as usize + 1), ok, USER_TIMEOUT),
            (
                upgrade.body(Body::Empty).unwrap(),
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
                USER_TIMEOUT,
            ),
        ] {
            let silence = Duration::from_secs(if limit == USER_TIMEOUT { 60 } else { 5 });
            assert_eq!(limits_after(request, answer).await, (Some(limit), silence), "{answer}");
        }
    }
}
