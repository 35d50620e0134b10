//! The outbound listener, called by somebody who was not redirected to it, and by an app that says nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::io::ErrorKind;

use caller::{Caller, endpoint};
use mesh::{LOCALHOST, listen, say};
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

#[tokio::test]
async fn an_app_whose_server_speaks_first_hears_it_after_a_silence_which_is_counted() {
    let (server, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[("shop/web:80", vec![endpoint("web-0", address)])]).await;
    let mut app = caller.dial().await;
    let (mut server, _) = server.accept().await.unwrap();
    say(&mut server, "220 mail\r\n").await;
    let mut heard = [0; 10];
    app.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, caller.telemetry.detect_timeouts()), (b"220 mail\r\n", 1));
}
