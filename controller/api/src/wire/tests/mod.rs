//! Round trips of arbitrary content, and what a reader does with what it doesn't know.

mod arbitrary;

use bytes::{BufMut, BytesMut};
use gamut_route::{
    RouteTable, ServicePort,
    table::{AppProtocol, HttpRules, Split},
};
use proptest::prelude::*;

use super::*;
use crate::{AddressAnswer, SessionKeys, TrustBundle};

fn table_key() -> Key {
    Key::RouteTable { client_namespace: "shop".to_owned(), service: ServicePort::new("shop", "web", 80) }
}

fn empty_table() -> RouteTable {
    RouteTable {
        parent: ServicePort::new("shop", "web", 80),
        protocol: AppProtocol::Detect,
        http: HttpRules::default(),
        tls: Vec::new(),
        tcp: Split::default(),
    }
}

/// A body's wire form after an edit that no writer of this version would make.
fn edited(table: &RouteTable, edit: impl FnOnce(&mut proto::RouteTable)) -> Vec<u8> {
    let mut table: proto::RouteTable = table.into();
    edit(&mut table);
    proto::Body { body: Some(proto::body::Body::RouteTable(table)) }.encode_to_vec()
}

fn open_table(body: &[u8]) -> Result<Resource, WireError> {
    Resource::open(table_key(), &[0; 16], body)
}

fn one_rule(edit: impl FnOnce(&mut proto::Rule)) -> Vec<u8> {
    let mut rule = proto::Rule {
        outcome: Some(proto::Outcome { outcome: Some(proto::outcome::Outcome::Fail("no".to_owned())) }),
        timeouts: Some(proto::Timeouts::default()),
        ..proto::Rule::default()
    };
    edit(&mut rule);
    edited(&empty_table(), |table| {
        table.http = Some(proto::HttpRules { rules: vec![rule], matches: Vec::new() });
    })
}

proptest! {
    #[test]
    fn every_resource_comes_out_as_it_went_in((key, body) in arbitrary::resource()) {
        let packed = Packed::new(key.clone(), &body);
        let wire = proto::Resource::decode(packed.wire.encode_to_vec().as_slice()).unwrap();
        let opened_key = Key::try_from(wire.key.unwrap()).unwrap();
        let opened = Resource::open(opened_key, &wire.version, &wire.body).unwrap();
        prop_assert_eq!(&opened, &Resource::new(key, body));
        prop_assert_eq!(opened.version, packed.version);
    }

    #[test]
    fn equal_content_has_equal_versions_and_other_content_others(
        (key, a) in arbitrary::resource(),
        (_, b) in arbitrary::resource(),
    ) {
        let version = |body: &Body| Packed::new(key.clone(), body).version;
        prop_assert_eq!(version(&a), version(&a.clone()));
        prop_assert_eq!(version(&a) == version(&b), a == b);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_and_never_crash(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_table(&garbage);
    }
}

#[test]
fn a_field_of_a_newer_controller_is_tolerated() {
    let mut body = BytesMut::from(edited(&empty_table(), |_| {}).as_slice());
    // Field 999, varint 1.
    body.put_slice(&[0xb8, 0x3e, 0x01]);
    assert_eq!(open_table(&body).unwrap().body, Body::RouteTable(Arc::new(empty_table())));
}

#[test]
fn a_filter_of_a_newer_controller_is_refused_where_it_stands() {
    // What a reader sees of a variant that it doesn't know is an empty oneof.
    let body = one_rule(|rule| rule.filters.push(proto::Filter { filter: None }));
    let error = open_table(&body).unwrap_err();
    assert_eq!(error.path, "http.rules[0].filters[0].filter");
    assert_eq!(error.problem, Problem::MissingOrUnknown);
}

#[test]
fn a_condition_of_a_newer_controller_is_refused_and_doesnt_widen_the_match() {
    let body = edited(&empty_table(), |table| {
        let when = proto::Match {
            path: Some(proto::PathMatch { path: Some(proto::path_match::Path::Exact("/".to_owned())) }),
            conditions: vec![proto::Condition { condition: None }],
        };
        let ranked = proto::RankedMatch { when: Some(when), rule: 0 };
        table.http = Some(proto::HttpRules { rules: Vec::new(), matches: vec![ranked] });
    });
    assert_eq!(open_table(&body).unwrap_err().path, "http.matches[0].when.conditions[0].condition");
}

#[test]
fn a_protocol_of_a_newer_controller_is_refused() {
    for value in [0, 77] {
        let body = edited(&empty_table(), |table| table.protocol = value);
        let error = open_table(&body).unwrap_err();
        assert_eq!((error.path.as_str(), error.problem), ("protocol", Problem::UnknownValue(value)));
    }
}

#[test]
fn values_out_of_range_are_refused_with_their_field() {
    let stray = edited(&empty_table(), |table| {
        let when = Some((&gamut_route::table::Match::default()).into());
        table.http =
            Some(proto::HttpRules { rules: Vec::new(), matches: vec![proto::RankedMatch { when, rule: 0 }] });
    });
    assert_eq!(open_table(&stray).unwrap_err().path, "http.matches[0].rule");

    let mirror = proto::Mirror { backend: "service/shop/web:80".to_owned(), numerator: 1, denominator: 0 };
    let mirror = proto::Filter { filter: Some(proto::filter::Filter::Mirror(mirror)) };
    let body = one_rule(|rule| rule.filters.push(mirror));
    assert_eq!(open_table(&body).unwrap_err().path, "http.rules[0].filters[0].mirror.denominator");

    let body = one_rule(|rule| {
        let request = Some(proto::Duration { seconds: u64::MAX, nanos: u32::MAX });
        rule.timeouts = Some(proto::Timeouts { request, backend_request: None });
    });
    assert_eq!(open_table(&body).unwrap_err().path, "http.rules[0].timeouts.request.nanos");

    let body = edited(&empty_table(), |table| table.parent = "web".to_owned());
    assert_eq!(
        open_table(&body).unwrap_err().to_string(),
        "parent: \"web\" is not of the form namespace/name:port"
    );
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let body = Packed::new(Key::TrustBundle, &Body::TrustBundle(Arc::new(TrustBundle { roots: Vec::new() })));
    assert!(open_table(&body.wire.body).is_err());

    let other = RouteTable { parent: ServicePort::new("shop", "api", 80), ..empty_table() };
    let body = Packed::new(table_key(), &Body::RouteTable(Arc::new(other)));
    assert!(
        open_table(&body.wire.body)
            .unwrap_err()
            .to_string()
            .contains("doesn't answer RouteTable shop/web:80")
    );
}

#[test]
fn session_keys_are_in_no_debug_output() {
    let keys = SessionKeys { scope: "route/x".to_owned(), keys: vec![(7, [0xab; 32])] };
    let key = Key::SessionKeys { client_namespace: "shop".to_owned(), scope: "route/x".to_owned() };
    let body = Body::SessionKeys(Arc::new(keys.clone()));
    let packed = Packed::new(key.clone(), &body);
    let wire_keys = proto::SessionKeys::from(&keys);
    let wire_body = proto::Body::from(&body);
    let message = proto::FromController { resources: vec![packed.wire.clone()], ..Default::default() };
    let resource = Resource::new(key, body);
    for output in [
        format!("{keys:?}"),
        format!("{packed:?}"),
        format!("{wire_keys:?}"),
        format!("{wire_body:?}"),
        format!("{message:?}"),
        format!("{resource:?}"),
    ] {
        assert!(!output.contains("171") && !output.contains("xab"), "{output}");
    }
}

#[test]
fn a_version_is_the_same_on_every_replica_and_after_every_restart() {
    // A changed encoding would make every sidecar take everything anew at an upgrade; this says so.
    let body = Body::Address(AddressAnswer::Service(ServicePort::new("shop", "web", 80)));
    let packed = Packed::new(Key::Address("10.96.0.7:80".parse().unwrap()), &body);
    assert_eq!(packed.version.to_string(), "13642cacef7d34eb9404410a4315d38f");
}
