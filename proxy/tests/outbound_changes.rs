//! Tables that change under requests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use caller::{App, Caller, rule, split, table};
use gamut_controller_api::Endpoint;
use gamut_route::{RouteTable, table::AppProtocol};
use mesh::{read_rest, say};

const BLUE: &str = "shop/blue:80";
const GREEN: &str = "shop/green:80";

/// A table that leads to one backend, whatever the connection speaks.
fn to(backend: &'static str, protocol: AppProtocol) -> RouteTable {
    RouteTable { protocol, tcp: split(&[(backend, 1)]), ..table(vec![rule(&[(backend, 1)])]) }
}

/// Everything moves from blue to green and back without a pause, each move in the order in which the parts of a delivery
/// are applied: who takes over first, then the table, then who leaves.
struct Moving {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Moving {
    fn start(caller: &Arc<Caller>, endpoint: Endpoint, protocol: AppProtocol) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (caller, until) = (caller.clone(), done.clone());
        let thread = thread::spawn(move || {
            for (from, next) in [(BLUE, GREEN), (GREEN, BLUE)].into_iter().cycle() {
                caller.update(next, std::slice::from_ref(&endpoint));
                caller.replace_with(to(next, protocol));
                caller.update(from, &[]);
                if until.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self { done, thread }
    }

    fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_request_that_loaded_its_table_just_before_the_next_one_is_answered_by_the_next_one() {
    let app = App::named("here").await;
    let endpoint = app.endpoint("web-0");
    let backends = [(BLUE, vec![endpoint.clone()]), (GREEN, Vec::new())];
    let caller = Arc::new(Caller::with(to(BLUE, AppProtocol::Detect), &backends).await);
    let moving = Moving::start(&caller, endpoint, AppProtocol::Detect);
    for _ in 0..500 {
        let (response, body) = caller.get("/").await;
        assert_eq!((response.status().as_u16(), body.as_str()), (200, "here"));
    }
    moving.stop();
}

#[tokio::test]
async fn so_is_a_connection_of_other_bytes() {
    let app = App::named("here").await;
    let endpoint = app.endpoint("web-0");
    let backends = [(BLUE, vec![endpoint.clone()]), (GREEN, Vec::new())];
    let caller = Arc::new(Caller::with(to(BLUE, AppProtocol::Opaque), &backends).await);
    let moving = Moving::start(&caller, endpoint, AppProtocol::Opaque);
    for _ in 0..500 {
        let mut client = caller.dial().await;
        say(&mut client, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;
        let answer = read_rest(&mut client).await;
        assert!(answer.ends_with("here"), "{answer}");
    }
    moving.stop();
}
