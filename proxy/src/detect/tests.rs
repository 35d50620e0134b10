use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// The first flight of a real client that offers an ML-KEM key share.
fn client_hello(server_name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut client =
        ClientConnection::new(config.into(), server_name.to_owned().try_into().unwrap()).unwrap();
    let mut flight = Vec::new();
    client.write_tls(&mut flight).unwrap();
    flight
}

fn tls(server_name: &str, alpn: &[&str]) -> Detected {
    let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Detected::Tls(ClientHello { server_name: Some(server_name.to_owned()), alpn })
}

/// What is decided by which length of these bytes, given one by one.
fn decided(bytes: &[u8]) -> Option<(usize, Detected)> {
    let mut hello = Hello::default();
    (1..=bytes.len()).find_map(|length| Some((length, look(&bytes[..length], &mut hello)?)))
}

#[test]
fn http_is_known_by_its_version_and_not_before() {
    for (request, length) in [
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", 13),
        ("POST /a?b=c HTTP/1.0\r\n\r\n", 19),
        ("M-SEARCH * HTTP/1.1\r\n", 18),
        ("OPTIONS http://web/ HTTP/1.1\r\n", 27),
        ("\r\n\r\nGET / HTTP/1.1\r\n", 17),
    ] {
        assert_eq!(decided(request.as_bytes()), Some((length, Detected::Http1)), "{request:?}");
    }
}

#[test]
fn http2_is_known_by_its_whole_preface() {
    let mut connection = PREFACE.to_vec();
    connection.extend(b"\0\0\0\x04\0\0\0\0\0");
    assert_eq!(decided(&connection), Some((PREFACE.len(), Detected::Http2)));
    assert_eq!(decided(b"PRI / HTTP/1.1\r\n"), Some((13, Detected::Http1)));
}

#[test]
fn everything_else_is_opaque_at_the_first_byte_that_tells() {
    for (bytes, length) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], 3),  // Redis
        (b"PING\r\n", 5),                   // Redis, inline
        (b"GET key\r\n", 8),                // memcached
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1), // PostgreSQL's SSLRequest
        (b"SSH-2.0-OpenSSH_9.9\r\n", 20),   // a client that doesn't wait
        (b"DESCRIBE rtsp://cam/1 RTSP/1.0\r\n", 23),
        (b"INVITE sip:bob@b SIP/2.0\r\n", 18),
        (b"GET / HTTP/2.0\r\n", 12),
        (b"GET /\r\n", 6), // HTTP/0.9
        (b" / HTTP/1.1", 1),
        (b"\x16\x02\x00", 2),
        (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 33),
    ] {
        let other = Detected::Opaque(Why::OtherBytes);
        assert_eq!(decided(bytes), Some((length, other)), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_client_hello_is_waited_for_to_its_last_byte() {
    let hello = client_hello("x.pod.gamut.mesh", &["gamut/1-mux-h2", "gamut/1-h1"]);
    assert!(hello.len() > 1400, "with ML-KEM it spans segments: {} bytes", hello.len());
    let known = tls("x.pod.gamut.mesh", &["gamut/1-mux-h2", "gamut/1-h1"]);
    assert_eq!(decided(&hello), Some((hello.len(), known)));
}

#[test]
fn a_client_hello_may_be_cut_into_records() {
    let hello = client_hello("web", &["h2"]);
    let message = &hello[5..];
    let records = message.chunks(100).flat_map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    });
    let records: Vec<u8> = records.collect();
    assert_eq!(decided(&records), Some((records.len(), tls("web", &["h2"]))));
}

#[test]
fn broken_tls_is_opaque_and_says_so() {
    let broken = Detected::Opaque(Why::BrokenTls);
    // An empty handshake record; a record of a length that TLS forbids; a ServerHello; a hello whose session id
    // is longer than TLS allows.
    let mut lying = client_hello("web", &[]);
    lying[43] = 255;
    for bytes in [
        &b"\x16\x03\x01\x00\x00\x16\x03\x01"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        &lying,
    ] {
        assert_eq!(decided(bytes).map(|(_, detected)| detected), Some(broken.clone()), "{bytes:?}");
    }
}

#[test]
fn garbage_never_gets_far() {
    // Deterministic noise: whatever it is, it is decided, and never panics.
    let mut state = 0x9e37_79b9_u32;
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..MOST_BYTES / 64)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_le_bytes()[0]
            })
            .collect();
        decided(&noise);
        decided(&[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &noise[..]].concat());
    }
}

/// What becomes of the connection's first bytes.
type Detecting = tokio::task::JoinHandle<io::Result<(Detected, Prefixed<DuplexStream>)>>;

/// A client whose bytes arrive when the test says so, and what its connection is taken for.
struct Client(DuplexStream);

impl Client {
    fn connect() -> (Self, Detecting) {
        let (client, server) = duplex(MOST_BYTES * 2);
        (Self(client), tokio::spawn(detect(server, SILENCE)))
    }

    async fn sends(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_at_is_read_again_with_what_follows() {
    let (mut client, detecting) = Client::connect();
    client.sends(b"GET / HTTP/1.1\r\n").await;
    let (detected, mut stream) = detecting.await.unwrap().unwrap();
    assert_eq!(detected, Detected::Http1);
    client.sends(b"Host: web\r\n\r\n").await;
    drop(client);
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "GET / HTTP/1.1\r\nHost: web\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn silence_is_opaque_after_a_second() {
    let begin = Instant::now();
    let (_client, detecting) = Client::connect();
    assert_eq!(detecting.await.unwrap().unwrap().0, Detected::Opaque(Why::Silent));
    assert_eq!(begin.elapsed(), SILENCE);
}

#[tokio::test(start_paused = true)]
async fn whoever_dribbles_is_waited_for_five_seconds_in_all() {
    let hello = client_hello("web", &[]);
    for (bytes, expected) in [
        (&hello[..], Detected::Opaque(Why::BrokenTls)),
        (b"GET /a/very/long/path/that/never/comes/to/an/end", Detected::Opaque(Why::SlowHttp)),
        (b"AAAAAAAAAAAAAAAAAAAA", Detected::Opaque(Why::OtherBytes)),
    ] {
        let begin = Instant::now();
        let (mut client, detecting) = Client::connect();
        let dribbling = async {
            for byte in bytes {
                client.sends(&[*byte]).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            std::future::pending::<()>().await;
        };
        let (detected, _) = tokio::select! {
            () = dribbling => unreachable!(),
            detected = detecting => detected.unwrap().unwrap(),
        };
        assert_eq!(detected, expected);
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_honest_client_is_still_understood() {
    let hello = client_hello("web", &["h2"]);
    let (mut client, detecting) = Client::connect();
    let (first, second) = hello.split_at(700);
    for part in [first, second] {
        tokio::time::sleep(Duration::from_millis(900)).await;
        client.sends(part).await;
    }
    assert_eq!(detecting.await.unwrap().unwrap().0, tls("web", &["h2"]));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_decided_at_once() {
    for (sent, expected) in
        [("", Why::Silent), ("GET / HT", Why::SlowHttp), ("\u{16}", Why::BrokenTls), ("AB", Why::OtherBytes)]
    {
        let begin = Instant::now();
        let (mut client, detecting) = Client::connect();
        client.sends(sent.as_bytes()).await;
        client.0.shutdown().await.unwrap();
        let (detected, mut stream) = detecting.await.unwrap().unwrap();
        assert_eq!(detected, Detected::Opaque(expected));
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!((all.as_str(), begin.elapsed()), (sent, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_target_stays_http_and_an_endless_hello_does_not_fill_memory() {
    let (mut client, detecting) = Client::connect();
    client.sends(format!("GET /{}", "a".repeat(MOST_BYTES)).as_bytes()).await;
    assert_eq!(detecting.await.unwrap().unwrap().0, Detected::Http1);

    let (mut client, detecting) = Client::connect();
    // Announces a ClientHello of 64 KiB - 1, in records that are in order.
    let mut endless = b"\x16\x03\x01\x40\x00\x01\x00\xff\xff".to_vec();
    endless.resize(5 + 0x4000, 0);
    endless.extend(b"\x16\x03\x01\x40\x00");
    endless.resize(MOST_BYTES + 100, 0);
    client.sends(&endless).await;
    assert_eq!(detecting.await.unwrap().unwrap().0, Detected::Opaque(Why::BrokenTls));
}
