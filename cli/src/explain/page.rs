//! The answer as a page: what becomes of the request first, and below that why.

use super::{decision::Applied, question::Answer, remark::Remark};
use crate::output::{Cell, Page, Tone};

/// `world` is who answered, in one line.
pub(super) fn page(answer: &Answer, world: &str) -> Page {
    let decision = &answer.decision;
    let mut page = Page::default();
    page.say(world, Tone::Faint);
    page.gap();
    page.say(&answer.request, Tone::Faint);
    for note in &answer.notes {
        page.say(note, Tone::Doubtful);
    }
    page.line([Cell::from(&answer.service), ": ".into(), Cell::new(&decision.outcome, Tone::Strong)]);
    for line in &decision.answer {
        page.say(format!("  {line}"), Tone::Plain);
    }
    for remark in &answer.remarks {
        let Remark { kind, name, condition, reason, message } = remark;
        let tone = if remark.is_note() { Tone::Doubtful } else { Tone::Bad };
        page.say(format!("  {kind} {name}: {condition}: {reason}: {message}"), tone);
    }
    for candidate in &decision.backends {
        let mut line = vec![Cell::from(format!("  {}% {}", candidate.share, candidate.backend))];
        line.extend(candidate.nobody.iter().map(|why| Cell::new(format!(" ({why})"), Tone::Bad)));
        page.line(line);
        for Applied { to, of, does } in &candidate.filters {
            page.say(format!("      filter of the {of}, on the {to}: {does}"), Tone::Plain);
        }
        for change in &candidate.changes {
            page.say(format!("      {change}"), Tone::Faint);
        }
    }
    for line in &decision.limits {
        page.say(format!("  {line}"), Tone::Plain);
    }
    for session in &answer.sessions {
        page.gap();
        let tone = if session.decides { Tone::Strong } else { Tone::Plain };
        let of = format!("session of {} in {}: ", session.of, session.carrier);
        page.line([Cell::from(of), Cell::new(&session.effect, tone)]);
        page.say(format!("  scope {}", session.scope), Tone::Faint);
        for token in &session.tokens {
            let tone = if token.verdict == "good" { Tone::Good } else { Tone::Doubtful };
            page.say(format!("  token {}", token.in_words()), tone);
        }
    }
    if decision.matches.is_empty() {
        return page;
    }
    page.gap();
    let rows = decision.matches.iter().map(|considered| {
        let tone = if considered.verdict == "won" { Tone::Good } else { Tone::Faint };
        vec![Cell::new(&considered.verdict, tone), Cell::from(&considered.when), Cell::from(&considered.rule)]
    });
    page.table(0, &["VERDICT", "MATCH", "RULE"], rows);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::{
            decision::{Candidate, Considered, Decision},
            session::{Effect, Token},
        },
        world::Place,
    };

    #[test]
    fn the_outcome_stands_above_the_matches_in_order_of_precedence() {
        let considered = |rule: &str, when: &str, verdict: &str| Considered {
            rule: format!("httproute/shop/web, rule {rule}"),
            when: when.to_owned(),
            verdict: verdict.to_owned(),
        };
        let to = |name: &str, share: f64, filters: &[Applied], changes: &[&str]| Candidate {
            backend: format!("service/shop/{name}:80"),
            share,
            nobody: (name == "web-v2")
                .then(|| "no ready endpoint: selector app=v2 matches no pod".to_owned()),
            filters: filters.to_vec(),
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        };
        let set = Applied { to: "request", of: "rule", does: "set x: 1".to_owned() };
        let answer = Answer {
            world: Place::Machine,
            request: "GET http://web/ from a client in namespace shop".to_owned(),
            service: "Service shop/web:80".to_owned(),
            notes: Vec::new(),
            remarks: vec![Remark {
                kind: "HTTPRoute",
                name: "shop/other".to_owned(),
                condition: "Accepted is False",
                reason: "UnsupportedValue",
                message: "spec.rule isn't known to this mesh; correct or remove it".to_owned(),
            }],
            decision: Decision {
                outcome: "forwarded by httproute/shop/web, rule split".to_owned(),
                status: None,
                grpc_status: None,
                answer: Vec::new(),
                backends: vec![
                    to("web-v1", 90.0, &[set], &["path /new", "header x: 1"]),
                    to("web-v2", 10.0, &[], &[]),
                ],
                limits: vec!["at most 2s for all of it".to_owned()],
                matches: vec![
                    considered("always", "header x-canary=always", "header x-canary isn't so"),
                    considered("split", "every request", "won"),
                ],
            },
            sessions: vec![Effect {
                of: "the rule".to_owned(),
                carrier: "cookie shop-version".to_owned(),
                scope: "route/11111111-1111-1111-1111-111111111111/split".to_owned(),
                tokens: vec![Token {
                    verdict: "good",
                    says: Some("pod web-v2-a of service/shop/web-v2:80".to_owned()),
                    age: Some(200),
                    key: Some(1),
                }],
                effect: "goes to web-v2-a of service/shop/web-v2:80, whatever the weights".to_owned(),
                decides: true,
            }],
        };
        insta::assert_snapshot!(page(&answer, "context kind").render(false), @r"
        context kind

        GET http://web/ from a client in namespace shop
        Service shop/web:80: forwarded by httproute/shop/web, rule split
          HTTPRoute shop/other: Accepted is False: UnsupportedValue: spec.rule isn't known to this mesh; correct or remove it
          90% service/shop/web-v1:80
              filter of the rule, on the request: set x: 1
              path /new
              header x: 1
          10% service/shop/web-v2:80 (no ready endpoint: selector app=v2 matches no pod)
          at most 2s for all of it

        session of the rule in cookie shop-version: goes to web-v2-a of service/shop/web-v2:80, whatever the weights
          scope route/11111111-1111-1111-1111-111111111111/split
          token good: pod web-v2-a of service/shop/web-v2:80, 3m20s old, key 1

        VERDICT                   MATCH                   RULE
        header x-canary isn't so  header x-canary=always  httproute/shop/web, rule always
        won                       every request           httproute/shop/web, rule split
        ");
    }
}
