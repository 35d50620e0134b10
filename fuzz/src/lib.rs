//! What is fuzzed, as plain functions: bytes in, a panic if something was honoured that must not be.
//!
//! | module | whose bytes |
//! |---|---|
//! | `detect`, `http1`, `http2`, `mux`, `path`, `session` | a client's or a server's, read by a sidecar |
//! | `certificates` | a peer's, and of whoever asks the CA |
//! | `resources` | the controller's and a sidecar's, to each other |
//! | `objects`, `admission`, `dns` | of whoever may write objects, or asks for names |
//!
//! libFuzzer drives them by coverage (`fuzz/run`); `tests/replay.rs` by the committed seeds and blind mutation.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod admission;
mod certificates;
mod detect;
mod dns;
mod http1;
mod http2;
mod mux;
mod objects;
mod path;
mod resources;
mod session;

/// What a target does with an input: nothing, or it panics.
pub type Target = fn(&[u8]);

/// Each target and its name, by which its seeds are found.
pub const TARGETS: [(&str, Target); 19] = [
    ("detect", detect::detect),
    ("http1_request", http1::request),
    ("http1_response", http1::response),
    ("http1_chunked", http1::chunked),
    ("http2_request", http2::request),
    ("mux_request", mux::request),
    ("path", path::path),
    ("session_token", session::token),
    ("session_request", session::request),
    ("certificate", certificates::certificate),
    ("spiffe_id", certificates::spiffe_id),
    ("csr", certificates::csr),
    ("service_token", certificates::service_token),
    ("resource", resources::resource),
    ("manifest", objects::manifest),
    ("routes", objects::routes),
    ("review", admission::review),
    ("annotations", admission::annotations),
    ("dns", dns::dns),
];

/// Runs what is asynchronous where it can't wait for anything.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
