//! The outbound listener, called by somebody who was not redirected to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::io::ErrorKind;

use caller::Caller;
use mesh::LOCALHOST;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn whoever_dials_the_listener_itself_is_reset_and_nothing_loops() {
    let caller = Caller::new(Vec::new(), &[]).await;
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { caller.outbound.serve(&listener).await });
    for _ in 0..3 {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
