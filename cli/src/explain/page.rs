//! The answer as a page: what becomes of the request first, and below that why.

use super::question::Answer;
use crate::output::{Cell, Page, Tone};

pub(super) fn page(answer: &Answer) -> Page {
    let mut page = Page::default();
    page.say(&answer.request, Tone::Faint);
    if let Some(note) = &answer.note {
        page.say(note, Tone::Doubtful);
    }
    page.line([Cell::from(&answer.service), ": ".into(), Cell::new(&answer.outcome, Tone::Strong)]);
    for (backend, share) in &answer.backends {
        page.say(format!("  {share}% {backend}"), Tone::Plain);
    }
    page.gap();
    let rows = answer.matches.iter().map(|considered| {
        let tone = if considered.verdict == "won" { Tone::Good } else { Tone::Faint };
        vec![Cell::new(&considered.verdict, tone), Cell::from(&considered.when), Cell::from(&considered.rule)]
    });
    page.table(0, &["VERDICT", "MATCH", "RULE"], rows);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::question::Considered;

    #[test]
    fn the_outcome_stands_above_the_matches_in_order_of_precedence() {
        let considered = |rule: &str, when: &str, verdict: &str| Considered {
            rule: format!("httproute/shop/web, rule {rule}"),
            when: when.to_owned(),
            verdict: verdict.to_owned(),
        };
        let answer = Answer {
            request: "GET http://web/ from a client in namespace shop".to_owned(),
            service: "Service shop/web:80".to_owned(),
            note: None,
            outcome: "forwarded by httproute/shop/web, rule split, unless a session leads elsewhere"
                .to_owned(),
            backends: vec![
                ("service/shop/web-v1:80".to_owned(), 90.0),
                ("service/shop/web-v2:80".to_owned(), 10.0),
            ],
            matches: vec![
                considered("always", "header x-canary=always", "header x-canary isn't so"),
                considered("split", "every request", "won"),
            ],
        };
        insta::assert_snapshot!(page(&answer).render(false), @r"
        GET http://web/ from a client in namespace shop
        Service shop/web:80: forwarded by httproute/shop/web, rule split, unless a session leads elsewhere
          90% service/shop/web-v1:80
          10% service/shop/web-v2:80

        VERDICT                   MATCH                   RULE
        header x-canary isn't so  header x-canary=always  httproute/shop/web, rule always
        won                       every request           httproute/shop/web, rule split
        ");
    }
}
