//! WebSocket and its like through the outbound half.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use caller::{Caller, endpoint};
use mesh::{listen, read_head, read_rest, say};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const WEB: &str = "shop/web:80";
const OFFER: &str = "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

async fn to_script() -> (Caller, TcpListener) {
    let (listener, address) = listen().await;
    (Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await, listener)
}

/// A client and an app whose connection was upgraded.
async fn upgraded(caller: &Caller, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = caller.dial().await;
    say(&mut client, OFFER).await;
    let (mut app, _) = listener.accept().await.unwrap();
    let head = read_head(&mut app).await;
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    say(&mut app, SWITCHING).await;
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    (client, app)
}

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

#[tokio::test]
async fn after_a_101_bytes_go_both_ways_until_both_sides_have_ended() {
    let (caller, listener) = to_script().await;
    let (mut client, mut app) = upgraded(&caller, &listener).await;
    say(&mut client, "ping").await;
    hear(&mut app, "ping").await;
    say(&mut app, "pong").await;
    hear(&mut client, "pong").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut app).await, "");
    say(&mut app, "one more").await;
    hear(&mut client, "one more").await;
    drop(app);
    assert_eq!(read_rest(&mut client).await, "");
}

#[tokio::test]
async fn bytes_right_behind_the_heads_are_not_lost() {
    let (caller, listener) = to_script().await;
    let mut client = caller.dial().await;
    say(&mut client, &format!("{OFFER}early client")).await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, &format!("{SWITCHING}early app")).await;
    read_head(&mut client).await;
    hear(&mut client, "early app").await;
    hear(&mut app, "early client").await;
}

#[tokio::test]
async fn a_200_is_no_upgrade_and_what_the_client_says_next_is_a_request() {
    let (caller, listener) = to_script().await;
    let mut client = caller.dial().await;
    say(&mut client, OFFER).await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
    read_head(&mut client).await;
    hear(&mut client, "no").await;
    say(&mut client, "GET /next HTTP/1.1\r\nhost: web\r\n\r\n").await;
    assert!(read_head(&mut app).await.starts_with("GET /next HTTP/1.1"));
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_no_answer() {
    let (caller, listener) = to_script().await;
    let mut client = caller.dial().await;
    say(&mut client, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, &format!("{SWITCHING}smuggled")).await;
    let answer = read_rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("gamut-answer: upstream-reset"),
        "{answer}"
    );
    assert!(!answer.contains("smuggled"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_offered_to_the_app() {
    let (caller, listener) = to_script().await;
    let mut client = caller.dial().await;
    say(
        &mut client,
        "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings\r\n\
         upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    )
    .await;
    let (mut app, _) = listener.accept().await.unwrap();
    let head = read_head(&mut app).await;
    assert_eq!(head, "GET / HTTP/1.1\r\nhost: web\r\n\r\n");
}
