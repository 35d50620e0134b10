//! HTTP/2 that is meant to hurt, from an app's client, from a stranger to whom a port isn't open, and from a backend: what it may cost is bounded for each
//! connection, whoever does it loses his own connection and nobody else's, and what was closed is counted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod frames;
mod mesh;

use std::time::Duration;

use caller::{App, Caller, endpoint, reason};
use frames::{Frames, Reply, exchange, flag, kind};
use gamut_controller_api::MtlsMode;
use gamut_metrics::Page;
use gamut_proxy::{
    http::{Body, HttpVersion},
    telemetry::Telemetry,
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use mesh::{Pod, listen, nobody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

const WEB: &str = "shop/web:80";

/// A sidecar with an app at each end.
struct Town {
    app: App,
    caller: Caller,
}

impl Town {
    async fn new() -> Self {
        let answer = |_| async { Response::new(Body::from("x".repeat(100_000))) };
        let app = App::speaking(HttpVersion::H2, answer).await;
        let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
        Self { app, caller }
    }

    /// What comes back for these frames.
    async fn reply(&self, hostile: &Frames) -> Reply {
        exchange(self.caller.dial().await, hostile).await
    }

    /// Such a connection is closed with this code, that is counted, and others are served as before.
    async fn closes(&self, hostile: &Frames, code: h2::Reason, label: &str) {
        let reply = self.reply(hostile).await;
        assert_eq!(reply.goaway, Some(u32::from(code)), "{reply:?}");
        let sample = format!("gamut_http2_closed_total{{code=\"{label}\",direction=\"outbound\"}} 1\n");
        let page = metrics(&self.caller.telemetry);
        assert!(page.contains(&sample), "{sample} is missing");
        self.still_serves().await;
    }

    async fn still_serves(&self) {
        let response = self.caller.h2().await.send_request(get()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 100_000);
    }
}

fn get() -> Request<Body> {
    Request::get("http://web/").body(Body::Empty).unwrap()
}

fn metrics(telemetry: &Telemetry) -> String {
    let mut page = Page::default();
    telemetry.render(&mut page);
    page.finish()
}

/// CVE-2023-44487.
fn rapid_resets() -> Frames {
    (1..8_000).step_by(2).fold(Frames::preface(), |frames, stream| {
        frames.get(stream).frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
    })
}

/// CVE-2024-27316.
fn endless_head() -> Frames {
    let begun = Frames::preface().frame(kind::HEADERS, 0, 1, &frames::GET);
    // x: y, not to be remembered
    begun.repeated(2_000, |frames| frames.frame(kind::CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']))
}

#[tokio::test]
async fn rapid_resets_end_the_connection_that_does_them() {
    Town::new().await.closes(&rapid_resets(), h2::Reason::ENHANCE_YOUR_CALM, "enhance-your-calm").await;
}

/// "Made you reset": CVE-2025-8671.
#[tokio::test]
async fn resets_that_a_client_provokes_end_its_connection() {
    let mut hostile = Frames::preface();
    for stream in (1..8_000).step_by(2) {
        // A window that overflows is an error of the stream (RFC 9113 section 6.9.1).
        let most = 0x7fff_ffff_u32.to_be_bytes();
        hostile = hostile.get(stream).frame(kind::WINDOW_UPDATE, 0, stream, &most);
    }
    Town::new().await.closes(&hostile, h2::Reason::ENHANCE_YOUR_CALM, "enhance-your-calm").await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    Town::new().await.closes(&endless_head(), h2::Reason::ENHANCE_YOUR_CALM, "enhance-your-calm").await;
}

#[tokio::test]
async fn a_stranger_that_floods_a_strict_port_loses_its_connection_which_is_counted() {
    let pod = Pod::new(MtlsMode::Strict).await;
    for (times, hostile) in [(1, rapid_resets()), (2, endless_head())] {
        let reply = exchange(pod.dial(nobody()).await, &hostile).await;
        assert_eq!(reply.goaway, Some(u32::from(h2::Reason::ENHANCE_YOUR_CALM)), "{reply:?}");
        let sample =
            format!("gamut_http2_closed_total{{code=\"enhance-your-calm\",direction=\"inbound\"}} {times}\n");
        let page = metrics(&pod.telemetry);
        assert!(page.contains(&sample), "{sample} is missing");
        let other = exchange(pod.dial(nobody()).await, &Frames::preface().get(1).goodbye()).await;
        assert_eq!(other.statuses, [403], "{other:?}");
    }
}

/// A value of 4000 bytes that is remembered, and then named a thousand times with a byte each: 4 MB of fields.
#[tokio::test]
async fn an_hpack_bomb_is_refused_without_being_unpacked() {
    let mut block = frames::GET.to_vec();
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'y'; 4000]);
    block.extend([0xbe; 1000]);
    let hostile = Frames::preface().frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, &block);
    let town = Town::new().await;
    let reply = town.reply(&hostile.goodbye()).await;
    assert!(reply.statuses == [431] || reply.goaway.is_some_and(|code| code != 0), "{reply:?}");
    assert_eq!(town.app.requests(), 0);
    town.still_serves().await;
}

#[tokio::test]
async fn a_list_of_fields_beyond_64_kib_is_answered_431() {
    let mut hostile = Frames::preface().frame(kind::HEADERS, flag::END_STREAM, 1, &frames::GET);
    for last in [false, false, false, false, true] {
        let fields = [&[0, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat().repeat(4);
        hostile = hostile.frame(kind::CONTINUATION, if last { flag::END_HEADERS } else { 0 }, 1, &fields);
    }
    let town = Town::new().await;
    let reply = town.reply(&hostile.goodbye()).await;
    assert_eq!(reply.statuses, [431], "{reply:?}");
    town.still_serves().await;
}

/// Neither is answered faster than the answers are read; whoever reads gets every one.
#[tokio::test]
async fn settings_and_pings_are_each_answered_and_cost_nobody_else_anything() {
    let mut hostile = Frames::preface();
    for number in 0..5_000_u64 {
        hostile = hostile.frame(kind::SETTINGS, 0, 0, &[]).frame(kind::PING, 0, 0, &number.to_be_bytes());
    }
    let town = Town::new().await;
    let reply = town.reply(&hostile.get(1).goodbye()).await;
    // The preface's own among them.
    assert_eq!((reply.pongs, reply.settings_acks, reply.statuses), (5_000, 5_001, vec![200]));
    town.still_serves().await;
}

#[tokio::test]
async fn whoever_pings_and_never_reads_is_not_read_either() {
    let town = Town::new().await;
    let pings = Frames::empty().repeated(100_000, |frames| frames.frame(kind::PING, 0, 0, &[0; 8]));
    let mut deaf = town.caller.dial().await;
    deaf.write_all(Frames::preface().bytes()).await.unwrap();
    let writing = async {
        loop {
            deaf.write_all(pings.bytes()).await.unwrap();
        }
    };
    // What two sockets hold is taken, and then nothing more.
    assert!(timeout(Duration::from_millis(300), writing).await.is_err());
    town.still_serves().await;
}

#[tokio::test]
async fn data_without_a_byte_is_dropped_or_ends_the_connection() {
    let post = Frames::preface().frame(kind::HEADERS, flag::END_HEADERS, 1, &frames::POST);
    let hostile = post.repeated(100_000, |frames| frames.frame(kind::DATA, 0, 1, &[]));
    let town = Town::new().await;
    let reply = town.reply(&hostile.frame(kind::DATA, flag::END_STREAM, 1, &[]).goodbye()).await;
    let calm = Some(u32::from(h2::Reason::ENHANCE_YOUR_CALM));
    assert!(reply.statuses == [200] || reply.goaway == calm, "{reply:?}");
    town.still_serves().await;
}

#[tokio::test]
async fn windows_that_overflow_end_the_connection() {
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let hostile = Frames::preface().frame(kind::WINDOW_UPDATE, 0, 0, &most);
    Town::new().await.closes(&hostile, h2::Reason::FLOW_CONTROL_ERROR, "flow-control-error").await;
}

/// CVE-2019-9517, with the window at zero: what isn't taken stays where it is, and the connection to the app has room for
/// the answers of all who share it.
#[tokio::test]
async fn a_window_of_nothing_holds_back_its_own_answers_alone() {
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut hostile = Frames::preface_with(&[0, 4, 0, 0, 0, 0]);
    for stream in (1..200).step_by(2) {
        hostile = hostile.get(stream);
    }
    let town = Town::new().await;
    let mut greedy = town.caller.dial().await;
    greedy.write_all(hostile.bytes()).await.unwrap();
    let mut heads = [0; 4096];
    let read = greedy.read(&mut heads).await.unwrap();
    assert!(read > 0);
    town.still_serves().await;
    drop(greedy);
    town.still_serves().await;
}

#[tokio::test]
async fn priorities_without_end_are_ignored() {
    let hostile =
        Frames::preface().repeated(50_000, |frames| frames.frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 9]));
    let town = Town::new().await;
    let reply = town.reply(&hostile.get(5).goodbye()).await;
    assert_eq!(reply.statuses, [200]);
}

/// A backend that speaks HTTP/2: says this for the first request on each connection.
async fn backend(listener: TcpListener, answer: Frames) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            stream.write_all(Frames::settings().bytes()).await.unwrap();
            // Its preface and the request, however they are cut.
            let mut seen = Vec::new();
            while !frames::has_headers(&seen) {
                if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let _ = stream.write_all(answer.bytes()).await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
    }
}

#[tokio::test]
async fn a_backend_that_floods_is_answered_for_and_others_go_on() {
    let endless = Frames::empty()
        .frame(kind::HEADERS, 0, 1, &[0x88])
        .repeated(5_000, |frames| frames.frame(kind::CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']));
    let bomb = [&[0x88, 0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000], &[0xbe; 1000]].concat();
    let bomb = Frames::empty().frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &bomb);
    let promise = [&[0, 0, 0, 2][..], &frames::GET].concat();
    let promise = Frames::empty().frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise);
    let upper = [&[0x88, 0, 1][..], b"X", &[1], b"y"].concat();
    let upper = Frames::empty().frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &upper);
    for (name, answer) in [("endless", endless), ("bomb", bomb), ("promise", promise), ("upper", upper)] {
        let (listener, address) = listen().await;
        tokio::spawn(backend(listener, answer.clone()));
        let good =
            App::speaking(HttpVersion::H2, |_| async { Response::new(Body::from("good".to_owned())) }).await;
        let rule = caller::rule(&[(WEB, 1)]);
        let caller = Caller::new(vec![rule], &[(WEB, vec![endpoint("web-0", address)])]).await;
        let request = Request::post("http://web/").body(Body::Empty).unwrap();
        let answering = caller.h2().await;
        caller.speak(WEB, gamut_route::table::AppProtocol::Http2, &[endpoint("web-0", address)]);
        let response = { answering }.send_request(request).await.unwrap();
        assert_eq!(response.status(), 502, "{name}");
        assert_eq!(reason(&response), Some("upstream-reset"), "{name}");

        caller.speak(WEB, gamut_route::table::AppProtocol::Http2, &[good.endpoint("web-1")]);
        let response = caller.h2().await.send_request(get()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "good", "{name}");
    }
}
