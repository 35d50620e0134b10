//! Authorities: the host and port of a request (`Host` of HTTP/1.1, `:authority` of HTTP/2), taken apart and
//! compared.

use smallvec::SmallVec;

/// The host and, if there is one, the port behind the last colon; digits of the port aren't checked. The user
/// information that RFC 9110 §4.2.4 forbids is dropped. An IPv6 address keeps its brackets.
pub fn split(authority: &str) -> (&str, Option<&str>) {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    match authority.rsplit_once(':') {
        // A colon inside of brackets belongs to the address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The form in which a header match on `host` sees an authority: lower case, without the dot at a name's end,
/// and without port 80, which is the default of what a sidecar can read (RFC 3986 §6.2.2.1, §6.2.3). Other
/// ports stay.
pub fn canonical(authority: &str) -> SmallVec<[u8; 256]> {
    let (host, port) = split(authority);
    let mut output: SmallVec<[u8; 256]> =
        SmallVec::from_slice(host.strip_suffix('.').unwrap_or(host).as_bytes());
    if let Some(port) = port.filter(|port| !matches!(*port, "" | "80")) {
        output.push(b':');
        output.extend_from_slice(port.as_bytes());
    }
    output.make_ascii_lowercase();
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_come_apart() {
        assert_eq!(split("web.shop"), ("web.shop", None));
        assert_eq!(split("web.shop:8080"), ("web.shop", Some("8080")));
        assert_eq!(split("[::1]"), ("[::1]", None));
        assert_eq!(split("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split("user:pw@web:80"), ("web", Some("80")));
        assert_eq!(split(""), ("", None));
    }

    #[test]
    fn spellings_of_one_authority_are_equal_and_other_ports_are_not() {
        let text = |authority: &str| String::from_utf8(canonical(authority).to_vec()).unwrap();
        for same in
            ["web.shop", "WEB.shop", "web.shop.", "web.shop:80", "web.shop.:80", "web.shop:", "me@web.shop"]
        {
            assert_eq!(text(same), "web.shop", "{same}");
        }
        assert_eq!(text("Web.Shop.:8080"), "web.shop:8080");
        assert_eq!(text("[::1]:80"), "[::1]");
        assert_eq!(text("[FE80::1]:8080"), "[fe80::1]:8080");
    }
}
