//! The report as a page.

use jiff::Timestamp;

use super::{Identity, Report, Root};
use crate::{
    output::{Age, Cell, Page, Tone},
    status,
};

/// How soon the end of a root is doubtful, in seconds: a month. Replacing one takes the time until everybody trusts the next.
const ROOT_ENDS: i64 = 30 * 24 * 60 * 60;

/// `now` is what ages are counted from.
pub(super) fn page(report: &Report, now: Timestamp, wide: bool) -> Page {
    let mut page = Page::default();
    page.say(report.world.line(now), Tone::Faint);
    page.gap();
    let heading = ["NAMESPACE", "POD", "IDENTITY", "MTLS", "SERIAL", "CERTIFICATE", "ISSUED", "EXPIRES"];
    let columns = if wide { heading.len() } else { heading.len() - 2 };
    let rows = report.identities.iter().map(|identity| {
        let mut row = row(identity, now);
        row.truncate(columns);
        row
    });
    page.table(0, heading.get(..columns).unwrap_or(&heading), rows);
    if !report.roots.is_empty() {
        page.gap();
        let sidecars = report.identities.len();
        let rows = report.roots.iter().map(|known| root(known, sidecars, now));
        page.table(0, &["ROOT", "SERIAL", "EXPIRES", "TRUSTED BY"], rows);
    }
    let renewals = report.identities.iter().filter_map(|identity| {
        let why = identity.renewal_error.as_ref()?;
        Some((format!("{}/{}: renewing the certificate: {why}", identity.namespace, identity.pod), Tone::Bad))
    });
    let notes = report.notes.iter().map(|note| (note.clone(), Tone::Doubtful));
    for (i, (line, tone)) in renewals.chain(notes).enumerate() {
        if i == 0 {
            page.gap();
        }
        page.say(line, tone);
    }
    if report.identities.is_empty() {
        page.gap();
        page.say("no sidecars", Tone::Doubtful);
    }
    page
}

fn row(identity: &Identity, now: Timestamp) -> Vec<Cell> {
    let certificate = identity.certificate.as_ref();
    let time = |time: Option<Timestamp>| Cell::from(time.map(|time| time.to_string()).unwrap_or_default());
    vec![
        Cell::from(&identity.namespace),
        Cell::from(&identity.pod),
        Cell::from(&identity.id),
        status::mtls_cell(identity.mtls.as_ref()),
        Cell::from(identity.serial.as_deref().unwrap_or("-")),
        status::certificate_cell(certificate, now),
        time(certificate.map(|it| it.issued)),
        time(certificate.map(|it| it.expires)),
    ]
}

fn root(root: &Root, sidecars: usize, now: Timestamp) -> Vec<Cell> {
    let left = root.expires.as_second() - now.as_second();
    let (text, tone) = match left {
        ..=0 => (format!("expired {} ago", Age::between(root.expires, now)), Tone::Bad),
        left => {
            let tone = if left < ROOT_ENDS { Tone::Doubtful } else { Tone::Plain };
            (format!("{} left", Age::between(now, root.expires)), tone)
        }
    };
    let all = root.trusted_by == sidecars;
    vec![
        Cell::from(&root.subject),
        Cell::from(&root.serial),
        Cell::new(text, tone),
        Cell::new(
            format!("{} of {sidecars} sidecars", root.trusted_by),
            if all { Tone::Plain } else { Tone::Doubtful },
        ),
    ]
}
