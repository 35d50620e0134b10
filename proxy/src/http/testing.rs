//! What tests of bodies and connections need: a body that really comes over a connection, part by part, and a server's
//! eye for what it is sent.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use super::{Body, HttpVersion};

/// A client in the middle of a chunked POST.
pub(crate) struct Uploading(DuplexStream);

impl Uploading {
    /// The client, and its request's body as the server has it.
    pub(crate) async fn begin() -> (Self, Body) {
        let (mut client, server) = duplex(1024 * 1024);
        client
            .write_all(b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let (sender, mut requests) = mpsc::channel(1);
        let service = move |request: http::Request<Body>| {
            let sender = sender.clone();
            async move {
                sender.send(request.into_body()).await.unwrap();
                // Answered never: the body is what the test is about.
                std::future::pending::<http::Response<Body>>().await
            }
        };
        tokio::spawn(super::server::serve(server, HttpVersion::H1, service, std::future::pending()));
        let body = requests.recv().await.unwrap();
        (Self(client), body)
    }

    pub(crate) async fn say(&mut self, part: &[u8]) {
        self.0.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
        self.0.write_all(part).await.unwrap();
        self.0.write_all(b"\r\n").await.unwrap();
    }

    pub(crate) async fn end(&mut self) {
        self.0.write_all(b"0\r\nx-sum: 7\r\n\r\n").await.unwrap();
    }

    /// Goes away without an end.
    pub(crate) fn break_off(self) {}
}

/// Reads a message's head, up to and with its empty line.
pub(crate) async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
