//! What a request is made of, part by part.
//!
//! | module | parts |
//! |---|---|
//! | `routing` | match, split, session, headers: calls into `route` |
//! | `sidecar` | the look-up of a destination, an endpoint, metrics |
//! | `pair` | a whole request: app, outbound, mTLS, inbound, app, all in this thread |
//!
//! The executable goes through them for callgrind (`integration/bench/instructions`) and by the clock; `benches/` looks at
//! each with divan.

mod pair;
mod routing;
mod sidecar;

use std::hint::black_box;

/// A part, made ready.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// How often it is gone through for counting.
    pub times: u32,
    /// Goes through it once.
    pub once: Box<dyn FnMut() -> anyhow::Result<()>>,
}

/// All parts, in order.
///
/// # Errors
/// If one can't be set up: a table that isn't valid, a socket that can't be had.
pub fn all() -> anyhow::Result<Vec<Part>> {
    let mut parts = routing::parts()?;
    parts.extend(sidecar::parts()?);
    parts.extend(pair::parts()?);
    Ok(parts)
}

impl Part {
    /// A part that can't fail. What it returns is looked at, so that it isn't optimized away.
    fn new<T>(name: &'static str, times: u32, mut once: impl FnMut() -> T + 'static) -> Self {
        let once = move || {
            black_box(once());
            Ok(())
        };
        Self { name, times, once: Box::new(once) }
    }
}
