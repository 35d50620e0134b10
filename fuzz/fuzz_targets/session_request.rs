//! See `gamut_fuzz::session_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gamut_fuzz::session_request(data));
