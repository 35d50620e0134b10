//! What a secret would look like in a log, whoever had printed it and how. Tests of several crates use this file (`#[path]`), because the
//! logs that they look at are theirs.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// How much of a secret has to be seen: enough to be nothing else's, and little enough to stand in one line of a PEM file.
const ENOUGH: usize = 12;

/// Fails if a log has a secret's beginning: as text, as `{:?}` prints bytes, in hexadecimal, or in base64, alone or inside something longer.
pub(crate) fn assert_absent(name: &str, secret: &[u8], log: &str) {
    for form in forms(&secret[..ENOUGH]) {
        let line = log.lines().find(|line| line.contains(&form));
        assert!(line.is_none(), "{name} is in the log, as {form}: {}", line.unwrap_or_default());
    }
}

/// What is secret of a key on the curve P-256, PEM (RFC 5958, RFC 5915): of the rest certificates tell too.
pub(crate) fn private_part(pem: &str) -> Vec<u8> {
    /// Version 1, and an octet string of 32 bytes.
    const BEFORE: [u8; 5] = [2, 1, 1, 4, 32];
    let content: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(content).unwrap();
    let at = der.windows(BEFORE.len()).position(|bytes| bytes == BEFORE).unwrap() + BEFORE.len();
    der[at..at + 32].to_vec()
}

/// What is secret of a token: of its first parts audit logs tell too.
pub(crate) fn signature(token: &str) -> &[u8] {
    token.trim().rsplit('.').next().unwrap().as_bytes()
}

fn forms(secret: &[u8]) -> Vec<String> {
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    let hexadecimal: Vec<String> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        list.join(", "),
        hexadecimal.concat(),
        hexadecimal.join(":"),
        hexadecimal.concat().to_uppercase(),
        hexadecimal.join(":").to_uppercase(),
    ];
    forms.extend(String::from_utf8(secret.to_vec()));
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // A byte's letters depend on how many bytes are before it, by threes; the first and the last letter are its neighbours' too.
        forms.extend((0..3).map(|before| {
            let encoded = engine.encode([&vec![0; before], secret].concat());
            encoded[(before * 4).div_ceil(3)..encoded.len() - 1].to_owned()
        }));
    }
    forms
}

#[test]
fn a_secret_is_found_in_every_form() {
    let secret: Vec<u8> = (100..132).map(|number: u8| number.wrapping_mul(7)).collect();
    let inside = [b"not secret", secret.as_slice()].concat();
    for log in [
        format!("{secret:?}"),
        format!("{inside:02x?}").replace(", ", ""),
        format!("{inside:02X?}").replace(", ", ":"),
        STANDARD.encode(&inside),
        STANDARD.encode(&inside[1..]),
        URL_SAFE_NO_PAD.encode(&inside[2..]),
    ] {
        assert!(forms(&secret[..ENOUGH]).iter().any(|form| log.contains(form)), "{log}");
    }
    assert_absent("it", &secret, "certificates, tokens and keys");
}
