use super::*;

fn request(version: Version, target: &str, headers: &[(&'static str, &str)]) -> request::Parts {
    let mut builder = Request::builder().version(version).uri(target);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn h1(target: &str, headers: &[(&'static str, &str)]) -> request::Parts {
    request(Version::HTTP_11, target, headers)
}

fn normalized(mut head: request::Parts) -> (request::Parts, Wishes) {
    let wishes = normalize_request(&mut head).unwrap();
    (head, wishes)
}

fn refused(mut head: request::Parts) -> BadRequest {
    normalize_request(&mut head).unwrap_err()
}

fn prepared(head: request::Parts, wishes: &Wishes, version: HttpVersion) -> Request<Body> {
    let mut request = Request::from_parts(head, Body::Empty);
    prepare_request(&mut request, version, wishes, "10.96.0.7:80").unwrap();
    request
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn what_is_about_the_connection_stays_there() {
    let (head, _) = normalized(h1(
        "/",
        &[
            ("host", "web"),
            ("connection", "keep-alive, x-secret"),
            ("connection", "x-second"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("x-second", "1"),
            ("x-kept", "1"),
        ],
    ));
    let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "x-kept"]);
}

#[test]
fn a_message_can_not_be_made_to_lose_its_host_or_its_length() {
    let (head, _) = normalized(h1(
        "/",
        &[("host", "web"), ("content-length", "5"), ("connection", "host, content-length, close")],
    ));
    assert_eq!(text(&head.headers, "host"), Some("web"));
    assert_eq!(text(&head.headers, "content-length"), Some("5"));
}

#[test]
fn an_app_can_not_speak_in_a_sidecars_name() {
    let (head, _) = normalized(h1(
        "/",
        &[("host", "web"), ("gamut-proxy-answer", "x; not-processed"), ("gamut-answer", "x")],
    ));
    assert_eq!(head.headers.len(), 1);
}

#[test]
fn trailers_are_asked_for_only_where_the_client_did() {
    let (head, wishes) = normalized(h1("/", &[("host", "web"), ("te", "gzip, Trailers")]));
    assert_eq!(text(prepared(head, &wishes, HttpVersion::H1).headers(), "te"), Some("trailers"));
    let (head, wishes) = normalized(h1("/", &[("host", "web"), ("te", "gzip")]));
    assert_eq!(text(prepared(head, &wishes, HttpVersion::H2).headers(), "te"), None);
}

#[test]
fn an_upgrade_passes_on_http_1_alone_and_h2c_never() {
    let offer = |upgrade| [("host", "web"), ("connection", "Upgrade"), ("upgrade", upgrade)];
    let (head, wishes) = normalized(h1("/", &offer("websocket")));
    let request = prepared(head, &wishes, HttpVersion::H1);
    assert_eq!(text(request.headers(), "upgrade"), Some("websocket"));
    assert_eq!(text(request.headers(), "connection"), Some("upgrade"));

    let (head, wishes) = normalized(h1("/", &offer("websocket")));
    assert_eq!(text(prepared(head, &wishes, HttpVersion::H2).headers(), "upgrade"), None);

    let (_, wishes) = normalized(h1("/", &offer("h2c")));
    assert_eq!(wishes.upgrade, None);
    let (_, wishes) = normalized(h1("/", &offer("H2C, websocket")));
    assert_eq!(wishes.upgrade.unwrap(), "websocket");

    let (_, wishes) = normalized(h1("/", &[("host", "web"), ("upgrade", "websocket")]));
    assert_eq!(wishes.upgrade, None, "not listed in Connection");
    let (_, wishes) = normalized(request_10("/", &offer("websocket")));
    assert_eq!(wishes.upgrade, None, "HTTP/1.0 has no upgrades");
}

fn request_10(target: &str, headers: &[(&'static str, &str)]) -> request::Parts {
    request(Version::HTTP_10, target, headers)
}

#[test]
fn there_is_one_host_and_every_reader_sees_the_same() {
    assert_eq!(refused(h1("/", &[])), BadRequest::NoHost);
    assert_eq!(refused(h1("/", &[("host", "web"), ("host", "other")])), BadRequest::SeveralHosts);
    for host in ["web/x", "we b", "web?x", "user@web", "web#", "web\\x"] {
        assert_eq!(refused(h1("/", &[("host", host)])), BadRequest::InvalidHost, "{host}");
    }
    for host in ["web", "web.shop:8080", "[fd00::7]:80", ""] {
        assert_eq!(text(&normalized(h1("/", &[("host", host)])).0.headers, "host"), Some(host));
    }
}

#[test]
fn an_absolute_target_names_the_host_and_becomes_a_path() {
    let (head, _) = normalized(h1("http://web.shop:8080/a?b=c", &[("host", "other")]));
    assert_eq!(text(&head.headers, "host"), Some("web.shop:8080"));
    assert_eq!(head.uri, "/a?b=c");
    let (head, _) = normalized(h1("http://web.shop?b=c", &[]));
    assert_eq!(head.uri, "/?b=c");
    assert_eq!(refused(h1("http://me@web/", &[])), BadRequest::InvalidHost);
}

#[test]
fn http_2s_authority_becomes_the_host_and_contradictions_are_refused() {
    let h2 = |headers: &[(&'static str, &str)]| request(Version::HTTP_2, "http://web.shop/a", headers);
    let (head, _) = normalized(h2(&[]));
    assert_eq!((text(&head.headers, "host"), head.uri.to_string()), (Some("web.shop"), "/a".to_owned()));
    assert_eq!(text(&normalized(h2(&[("host", "WEB.shop")])).0.headers, "host"), Some("web.shop"));
    assert_eq!(refused(h2(&[("host", "other")])), BadRequest::SeveralHosts);
}

#[test]
fn targets_without_a_path_are_refused() {
    let mut connect = h1("web:443", &[("host", "web")]);
    connect.method = Method::CONNECT;
    assert_eq!(refused(connect), BadRequest::Connect);
    assert_eq!(refused(h1("*", &[("host", "web")])), BadRequest::InvalidTarget);
    let mut options = h1("*", &[("host", "web")]);
    options.method = Method::OPTIONS;
    assert_eq!(normalized(options).0.uri, "*");
}

#[test]
fn a_path_of_http_2_begins_with_a_slash_and_is_not_a_fragment_alone() {
    // As the h2 crate makes them of `:authority` and `:path`.
    let h2 = |path: &str| {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::from_static("web.shop"));
        parts.path_and_query = Some(path.parse().unwrap());
        let mut head = request(Version::HTTP_2, "/", &[]);
        head.uri = Uri::from_parts(parts).unwrap();
        head
    };
    for path in ["#", "#admin", "#?a", "?a", "?#", "*"] {
        assert_eq!(refused(h2(path)), BadRequest::InvalidTarget, "{path}");
        let mut nameless = h2(path);
        nameless.uri = nameless.uri.path_and_query().cloned().unwrap().into();
        nameless.headers.insert("host", HeaderValue::from_static("web.shop"));
        assert_eq!(refused(nameless), BadRequest::InvalidTarget, "{path} beside a Host");
    }
    assert_eq!(normalized(h2("/a?b#c")).0.uri, "/a?b");
}

#[test]
fn cookie_crumbs_become_one_cookie() {
    let (head, _) =
        normalized(request(Version::HTTP_2, "http://web/", &[("cookie", "a=1"), ("cookie", "b=2; c=3")]));
    let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[test]
fn http_1_goes_to_http_2_with_an_authority_and_back_with_a_host() {
    let (head, wishes) = normalized(h1("/a?b", &[("host", "web.shop")]));
    let request = prepared(head, &wishes, HttpVersion::H2);
    assert_eq!(request.uri(), "http://web.shop/a?b");
    assert!(!request.headers().contains_key("host"));

    // Prepared a second time, because the connection did not come about.
    let again = prepared(request.into_parts().0, &wishes, HttpVersion::H2);
    assert_eq!(again.uri(), "http://web.shop/a?b");

    let (head, wishes) = normalized(request_10("/", &[]));
    let request = prepared(head, &wishes, HttpVersion::H1);
    assert_eq!(
        text(request.headers(), "host"),
        Some("10.96.0.7:80"),
        "HTTP/1.0 needs no host, HTTP/1.1 does"
    );
    assert_eq!(request.version(), Version::HTTP_11);
}

#[test]
fn an_answers_upgrade_is_kept_where_it_means_something() {
    for (status, kept) in [(101, true), (426, true), (200, false)] {
        let response = http::Response::builder()
            .status(status)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        let mut head = response.body(()).unwrap().into_parts().0;
        normalize_response(&mut head).unwrap();
        assert_eq!(head.headers.contains_key("upgrade"), kept, "{status}");
        assert_eq!(head.headers.contains_key("connection"), kept, "{status}");
    }
}

#[test]
fn empty_cookie_crumbs_leave_nothing_behind() {
    let crumbs = [("cookie", ""), ("cookie", "a=1"), ("cookie", ""), ("cookie", "b=2"), ("cookie", "")];
    let (head, _) = normalized(request(Version::HTTP_2, "http://web/", &crumbs));
    assert_eq!(text(&head.headers, "cookie"), Some("a=1; b=2"));
}

#[test]
fn a_value_that_the_app_would_read_without_its_blank_is_refused() {
    for value in [" admin", "admin ", "\tadmin", " "] {
        let head = |version| request(version, "http://web/", &[("x-role", value)]);
        assert_eq!(refused(head(Version::HTTP_2)), BadRequest::Blank, "{value:?}");
    }
    normalized(request(Version::HTTP_2, "http://web/", &[("x-role", "an admin"), ("x-empty", "")]));
}

#[test]
fn a_name_that_an_http_1_reader_refuses_is_refused() {
    // As the h2 crate makes it.
    let name = HeaderName::from_lowercase(b"x-\"role").unwrap();
    let mut head = request(Version::HTTP_2, "http://web/", &[]);
    head.headers.insert(name, HeaderValue::from_static("admin"));
    assert_eq!(refused(head), BadRequest::Quoted);
}
