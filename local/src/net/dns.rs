//! What the cluster's name server answers: a pure function from zone and question to answer.
//!
//! Every question is answered at once and with authority: the cluster has no way out, so there is nobody else to ask. Names
//! follow the Kubernetes DNS specification 1.1.0 (`<service>.<namespace>.svc.cluster.local`); SRV and PTR records are left
//! out.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    str::FromStr as _,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
};

/// The cluster's domain, which search lists end with.
pub(crate) const DOMAIN: &str = "cluster.local";

/// Short, in seconds: a change of a manifest shall be seen at once by who caches.
const TTL: u32 = 5;

/// A chain of aliases ends after this many.
const MAX_ALIASES: usize = 8;

/// The largest message taken over UDP: what fits into one packet everywhere (as `dnsflagday.net/2020` settled it).
const MAX_UDP: u16 = 1232;

/// All names of the cluster, lower case, without the last dot.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    records: HashMap<String, Records>,
    /// Names that exist only because longer ones do: they have no records, but they aren't unknown (RFC 8020).
    ancestors: HashSet<String>,
}

#[derive(Debug)]
enum Records {
    Addresses(Vec<IpAddr>),
    Alias(String),
}

impl Zone {
    /// A Service with its cluster IPs, or a headless one with the addresses of its pods.
    pub(crate) fn add_service(&mut self, namespace: &str, name: &str, addresses: Vec<IpAddr>) {
        self.add(service_name(namespace, name), Records::Addresses(addresses));
    }

    /// A pod by its host name below a headless Service.
    pub(crate) fn add_pod(&mut self, namespace: &str, service: &str, host: &str, addresses: Vec<IpAddr>) {
        self.add(format!("{host}.{}", service_name(namespace, service)), Records::Addresses(addresses));
    }

    /// An ExternalName Service.
    pub(crate) fn add_alias(&mut self, namespace: &str, name: &str, target: &str) {
        self.add(service_name(namespace, name), Records::Alias(target.trim_end_matches('.').to_lowercase()));
    }

    fn add(&mut self, name: String, records: Records) {
        let name = name.to_lowercase();
        let parents = name.match_indices('.').map(|(dot, _)| name[dot + 1..].to_owned());
        self.ancestors.extend(parents.filter(|parent| parent != "local"));
        self.records.insert(name, records);
    }

    /// The answer to a message in wire form, in wire form; `None` for what isn't a question. Over UDP it fits into
    /// what the client can take, or says that it doesn't. `turn` rotates addresses, so that callers that take the first
    /// one spread out.
    pub(crate) fn answer(&self, question: &[u8], udp: bool, turn: usize) -> Option<Vec<u8>> {
        let Ok(request) = Message::from_vec(question) else {
            // What begins with an ID can be told that the rest makes no sense.
            let id = u16::from_be_bytes([*question.first()?, *question.get(1)?]);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let response = self.respond(&request, turn);
        let bytes = response.to_vec().ok()?;
        let limit = if udp { request.max_payload().clamp(512, MAX_UDP) } else { u16::MAX };
        match bytes.len() <= usize::from(limit) {
            true => Some(bytes),
            false => response.truncate().to_vec().ok(),
        }
    }

    fn respond(&self, request: &Message, turn: usize) -> Message {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.add_queries(request.queries.iter().cloned());
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.authoritative = true;
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP);
            response.set_edns(edns);
        }
        response.metadata.response_code = match request.queries.as_slice() {
            _ if request.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
            [query] if query.query_class() == DNSClass::IN => self.resolve(query, turn, &mut response),
            [_] => ResponseCode::Refused,
            _ => ResponseCode::FormErr,
        };
        response
    }

    fn resolve(&self, query: &Query, turn: usize, response: &mut Message) -> ResponseCode {
        let mut owner = query.name().clone();
        for _ in 0..MAX_ALIASES {
            let name = owner.to_lowercase().to_ascii();
            let name = name.trim_end_matches('.');
            match self.records.get(name) {
                Some(Records::Addresses(addresses)) => {
                    let wanted =
                        addresses.iter().filter_map(|address| record_data(*address, query.query_type()));
                    let mut wanted: Vec<RData> = wanted.collect();
                    if !wanted.is_empty() {
                        let by = turn % wanted.len();
                        wanted.rotate_left(by);
                    }
                    response.add_answers(
                        wanted.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL, data)),
                    );
                    return ResponseCode::NoError;
                }
                Some(Records::Alias(target)) => {
                    // A target that can't be written as a name can't be asked for either.
                    let Ok(target) = Name::from_str(&format!("{target}.")) else {
                        return ResponseCode::ServFail;
                    };
                    let alias = RData::CNAME(rdata::CNAME(target.clone()));
                    response.add_answer(Record::from_rdata(owner, TTL, alias));
                    if query.query_type() == RecordType::CNAME {
                        return ResponseCode::NoError;
                    }
                    owner = target;
                }
                None if self.ancestors.contains(name) => return ResponseCode::NoError,
                // The alias itself was found; that its target is nobody's is the answer for that name (RFC 6604).
                None => return ResponseCode::NXDomain,
            }
        }
        ResponseCode::ServFail
    }
}

fn service_name(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.svc.{DOMAIN}")
}

fn record_data(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => Some(RData::A(rdata::A(address))),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(rdata::AAAA(address))),
        _ => None,
    }
}

/// A pod's `/etc/resolv.conf`: short names reach its own namespace first, then the others (`ndots:5` as kubelet sets it).
pub(crate) fn resolv_conf(server: IpAddr, namespace: &str) -> String {
    format!("nameserver {server}\nsearch {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        zone.add_service("demo", "web", vec![ip("10.96.0.20")]);
        zone.add_service("demo", "dual", vec![ip("10.96.0.21"), ip("fd00:10:96::21")]);
        zone.add_service("demo", "db", vec![ip("10.244.0.20"), ip("10.244.0.21")]);
        zone.add_pod("demo", "db", "db-0", vec![ip("10.244.0.20")]);
        zone.add_alias("demo", "alias", "WEB.demo.svc.cluster.local.");
        zone.add_alias("demo", "outside", "example.com");
        zone.add_alias("demo", "loop", "loop.demo.svc.cluster.local");
        zone
    }

    fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        let bytes = zone().answer(&request.to_vec().unwrap(), true, 0).unwrap();
        let response = Message::from_vec(&bytes).unwrap();
        assert_eq!(response.metadata.id, request.metadata.id);
        let answers = response.answers.iter().map(|record| record.data.to_string());
        (response.metadata.response_code, answers.collect())
    }

    #[test]
    fn a_service_has_its_cluster_ip_whatever_the_case() {
        for name in ["web.demo.svc.cluster.local.", "WEB.Demo.svc.cluster.local."] {
            assert_eq!(ask(name, RecordType::A), (ResponseCode::NoError, vec!["10.96.0.20".to_owned()]));
        }
    }

    #[test]
    fn a_family_that_a_service_lacks_is_an_empty_answer_and_not_an_unknown_name() {
        assert_eq!(ask("web.demo.svc.cluster.local.", RecordType::AAAA), (ResponseCode::NoError, vec![]));
        assert_eq!(
            ask("dual.demo.svc.cluster.local.", RecordType::AAAA),
            (ResponseCode::NoError, vec!["fd00:10:96::21".to_owned()])
        );
    }

    #[test]
    fn names_that_search_lists_try_in_vain_are_unknown_at_once() {
        for name in [
            "web.demo.demo.svc.cluster.local.",
            "example.com.",
            "example.com.cluster.local.",
            "web.",
            "20.0.96.10.in-addr.arpa.",
        ] {
            assert_eq!(ask(name, RecordType::A), (ResponseCode::NXDomain, vec![]), "{name}");
        }
        assert_eq!(ask("20.0.96.10.in-addr.arpa.", RecordType::PTR), (ResponseCode::NXDomain, vec![]));
    }

    #[test]
    fn names_above_services_exist_without_records() {
        for name in ["demo.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
            assert_eq!(ask(name, RecordType::A), (ResponseCode::NoError, vec![]), "{name}");
        }
    }

    #[test]
    fn headless_services_answer_with_pods_and_pods_have_names() {
        let all = ask("db.demo.svc.cluster.local.", RecordType::A).1;
        assert_eq!(all, ["10.244.0.20", "10.244.0.21"]);
        assert_eq!(ask("db-0.db.demo.svc.cluster.local.", RecordType::A).1, ["10.244.0.20"]);
    }

    #[test]
    fn addresses_take_turns_at_being_first() {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_str("db.demo.svc.cluster.local.").unwrap(), RecordType::A));
        let first = |turn| {
            let bytes = zone().answer(&request.to_vec().unwrap(), true, turn).unwrap();
            Message::from_vec(&bytes).unwrap().answers.remove(0).data.to_string()
        };
        assert_eq!([first(0), first(1), first(2)], ["10.244.0.20", "10.244.0.21", "10.244.0.20"]);
    }

    #[test]
    fn aliases_are_followed_inside_and_named_outside() {
        assert_eq!(
            ask("alias.demo.svc.cluster.local.", RecordType::A),
            (ResponseCode::NoError, vec!["web.demo.svc.cluster.local.".to_owned(), "10.96.0.20".to_owned()])
        );
        let outside = ask("outside.demo.svc.cluster.local.", RecordType::A);
        assert_eq!(outside, (ResponseCode::NXDomain, vec!["example.com.".to_owned()]));
        assert_eq!(ask("loop.demo.svc.cluster.local.", RecordType::A).0, ResponseCode::ServFail);
    }

    #[test]
    fn an_answer_too_long_for_udp_says_so_and_fits_over_tcp() {
        let mut zone = Zone::default();
        zone.add_service("demo", "many", (1..=100).map(|n| IpAddr::from([10, 244, 1, n])).collect());
        let mut request = Message::query();
        request
            .add_query(Query::query(Name::from_str("many.demo.svc.cluster.local.").unwrap(), RecordType::A));
        let question = request.to_vec().unwrap();
        let over_udp = zone.answer(&question, true, 0).unwrap();
        assert!(over_udp.len() <= 512);
        assert!(Message::from_vec(&over_udp).unwrap().metadata.truncation);
        let over_tcp = Message::from_vec(&zone.answer(&question, false, 0).unwrap()).unwrap();
        assert_eq!((over_tcp.answers.len(), over_tcp.metadata.truncation), (100, false));
    }

    #[test]
    fn garbage_is_refused_and_answers_are_never_answered() {
        let zone = zone();
        let refused = Message::from_vec(&zone.answer(&[7, 7, 1], true, 0).unwrap()).unwrap();
        assert_eq!((refused.metadata.id, refused.metadata.response_code), (0x0707, ResponseCode::FormErr));
        assert_eq!(zone.answer(&[], true, 0), None);
        let answer = Message::response(1, OpCode::Query).to_vec().unwrap();
        assert_eq!(zone.answer(&answer, true, 0), None);
    }

    #[test]
    fn a_pods_short_names_search_its_own_namespace_first() {
        assert_eq!(
            resolv_conf(IpAddr::from([10, 96, 0, 10]), "demo"),
            "nameserver 10.96.0.10\nsearch demo.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
    }
}
