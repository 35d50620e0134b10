//! Header maps whose message is gone, for the next one that the thread reads: its two allocations are the larger part of
//! what a head costs.

use std::cell::RefCell;

use http::HeaderMap;

/// How many are kept: as many as messages are usually between two connections at once.
const MOST_KEPT: usize = 32;
/// Larger ones aren't worth their memory.
const MOST_FIELDS: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub fn recycled(fields: usize) -> HeaderMap {
    let kept = MAPS.try_with(|maps| maps.borrow_mut().pop()).ok().flatten();
    let mut map = kept.unwrap_or_default();
    map.reserve(fields);
    map
}

/// Takes a map that nobody needs any more.
pub fn recycle(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > MOST_FIELDS {
        return;
    }
    map.clear();
    // While the thread ends there is nobody to keep it for.
    let _ = MAPS.try_with(|maps| {
        let mut maps = maps.borrow_mut();
        if maps.len() < MOST_KEPT {
            maps.push(map);
        }
    });
}
