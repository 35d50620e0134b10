//! The worker under paused timers: days pass in milliseconds, the authority is real, and what goes wrong is scripted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use common::{Mesh, WEB, id};
use gamut_ca::InProcess;
use gamut_identity::{Clock, ConfigError, Identity, IssueError, Issued, Issuer, Roots};
use gamut_metrics::Page;
use rustls_pki_types::CertificateSigningRequestDer;
use tokio::{
    sync::watch,
    time::{Instant, advance, sleep, timeout},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than anything here takes: what doesn't happen within it fails instead of hanging.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How the authority behaves from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Issues,
    Refuses,
    Hangs,
    AnswersForAnother,
    AnswersForAnotherKey,
    AnswersWithNothing,
}

/// The real authority, as far as the mood lets it. Counts what it is asked.
struct Moody {
    authority: InProcess,
    other: InProcess,
    mood: watch::Receiver<Mood>,
    asked: Arc<AtomicU32>,
}

impl Issuer for Moody {
    async fn issue(
        &self,
        csr: CertificateSigningRequestDer<'static>,
        trusted: Option<Arc<Roots>>,
    ) -> Result<Issued, IssueError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let another_key = || rcgen::KeyPair::generate().unwrap();
        let request = |id: &gamut_identity::SpiffeId| {
            let mut wanted = rcgen::CertificateParams::default();
            wanted.subject_alt_names = vec![rcgen::SanType::URI(id.as_str().try_into().unwrap())];
            wanted.serialize_request(&another_key()).unwrap().der().clone()
        };
        let mood = *self.mood.borrow();
        match mood {
            Mood::Issues => self.authority.issue(csr, trusted).await,
            Mood::Refuses => Err(IssueError::Local("not today".to_owned())),
            Mood::Hangs => pending().await,
            Mood::AnswersForAnother => self.other.issue(request(&self.other.id), trusted).await,
            Mood::AnswersForAnotherKey => self.authority.issue(request(&self.authority.id), trusted).await,
            Mood::AnswersWithNothing => {
                let roots = self.authority.authority.load().roots().clone();
                Ok(Issued { chain: Vec::new(), roots })
            }
        }
    }
}

struct Story {
    identity: Identity,
    mood: watch::Sender<Mood>,
    asked: Arc<AtomicU32>,
    clock: Clock,
}

impl Story {
    fn begin(mood: Mood) -> Self {
        Self::begin_with(mood, |clock| clock)
    }

    /// A clock that goes with tokio's timers for the authority; the workload sees it through `skew`.
    fn begin_with(mood: Mood, skew: impl FnOnce(Clock) -> Clock) -> Self {
        let (wall, started) = (SystemTime::now(), Instant::now());
        let clock = Clock::new(move || wall + started.elapsed());
        let (mesh, asked) = (Mesh::new(), Arc::new(AtomicU32::new(0)));
        let (mood, receiver) = watch::channel(mood);
        let issuer = Moody {
            authority: mesh.issuer("web", WEB, clock.clone()),
            other: mesh.issuer("other", WEB, clock.clone()),
            mood: receiver,
            asked: asked.clone(),
        };
        let identity = Identity::start(id("web"), issuer, skew(clock.clone()));
        Self { identity, mood, asked, clock }
    }

    fn serial(&self) -> String {
        self.identity.certificate().unwrap().serial().to_owned()
    }

    /// Waits for the next certificate, and returns how long that took.
    async fn renewed(&self) -> Duration {
        let (before, started) = (self.serial(), Instant::now());
        let mut status = self.identity.status();
        let is_new =
            |status: &gamut_identity::Status| status.certificate.as_ref().unwrap().serial() != before;
        timeout(MONTH, status.wait_for(is_new)).await.unwrap().unwrap();
        started.elapsed()
    }

    async fn failed(&self, times: u32) -> Arc<str> {
        let mut status = self.identity.status();
        let failed = timeout(MONTH, status.wait_for(|status| status.failures >= times));
        let status = failed.await.unwrap().unwrap();
        status.problem.clone().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_between_half_and_seven_tenths_of_its_life_with_a_new_key() {
    let story = Story::begin(Mood::Issues);
    let mut last = story.identity.ready().await;
    assert_eq!(last.id(), &id("web"));
    let mut waits = Vec::new();
    for _ in 0..20 {
        waits.push(story.renewed().await);
        let next = story.identity.certificate().unwrap();
        assert_ne!(public_key(&next), public_key(&last));
        last = next;
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least >= DAY.mul_f64(0.49) && *most <= DAY.mul_f64(0.71), "{least:?} {most:?}");
    assert!(*most - *least > HOUR / 2, "no jitter: {least:?} {most:?}");
}

fn public_key(certificate: &gamut_identity::Certificate) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate.chain()[0]).unwrap();
    parsed.public_key().raw.to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_good_certificate_is_kept_while_renewing_fails_and_until_it_succeeds() {
    let story = Story::begin(Mood::Issues);
    story.identity.ready().await;
    let first = story.serial();
    story.mood.send(Mood::Refuses).unwrap();
    let problem = story.failed(20).await;
    assert!(problem.contains("not today"), "{problem}");
    let scraped = || {
        let mut page = Page::default();
        story.identity.render_metrics(&mut page);
        page.finish()
    };
    assert!(scraped().contains("\ngamut_certificate_failures 20\n"), "{}", scraped());
    assert_eq!(story.serial(), first);
    story.identity.server_config(&[]).unwrap();

    story.mood.send(Mood::Issues).unwrap();
    story.renewed().await;
    let status = story.identity.status().borrow().clone();
    assert_eq!((status.failures, status.problem), (0, None));
    assert!(scraped().contains("\ngamut_certificate_failures 0\n"), "{}", scraped());
}

/// What the chart's alert looks at: it comes only where renewing fails, and while there is time to mend it.
#[tokio::test(start_paused = true)]
async fn less_than_a_quarter_of_a_certificates_life_is_left_only_where_renewing_fails() {
    let story = Story::begin(Mood::Issues);
    story.identity.ready().await;
    for _ in 0..20 {
        let before = story.identity.certificate().unwrap();
        story.renewed().await;
        assert!(before.not_after() - before.lifetime() / 4 > story.clock.now());
    }
    let last = story.identity.certificate().unwrap();
    assert!(last.lifetime() > DAY - MINUTE && last.lifetime() <= DAY, "{:?}", last.lifetime());
    let mut page = gamut_metrics::Page::default();
    story.identity.render_metrics(&mut page);
    let (page, seconds) = (page.finish(), last.lifetime().as_secs());
    assert!(page.contains(&format!("\ngamut_certificate_lifetime_seconds {seconds}\n")), "{page}");

    story.mood.send(Mood::Refuses).unwrap();
    story.failed(4).await;
    assert!(last.not_after() - last.lifetime() / 4 > story.clock.now(), "the first alert comes before it");
    sleep(DAY / 4).await;
    assert!(last.not_after() - last.lifetime() / 4 < story.clock.now());
    story.identity.server_config(&[]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_fails_closed_and_says_why_until_the_ca_is_back() {
    let story = Story::begin(Mood::Issues);
    story.identity.ready().await;
    story.mood.send(Mood::Refuses).unwrap();
    sleep(DAY + MINUTE).await;
    for error in
        [story.identity.client_config(&[]).unwrap_err(), story.identity.server_config(&[]).unwrap_err()]
    {
        assert!(matches!(error, ConfigError::Expired { .. }));
        let message = error.to_string();
        assert!(message.contains("expired at 20") && message.contains("not today"), "{message}");
    }
    story.mood.send(Mood::Issues).unwrap();
    assert!(
        story.renewed().await <= Duration::from_secs(5),
        "nothing is waited for longer than five seconds"
    );
    story.identity.client_config(&[]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn tries_are_spaced_out_but_go_on() {
    let story = Story::begin(Mood::Refuses);
    let asked = || story.asked.load(Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert!((3..=6).contains(&asked()), "{} tries in the first second", asked());
    sleep(MINUTE).await;
    let before = asked();
    sleep(10 * MINUTE).await;
    let in_ten_minutes = asked() - before;
    assert!(
        (120..=240).contains(&in_ten_minutes),
        "{in_ten_minutes} tries in ten minutes without a certificate"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_given_up() {
    let story = Story::begin(Mood::Hangs);
    assert!(story.failed(1).await.contains("didn't answer within 10 s"));
    story.mood.send(Mood::Issues).unwrap();
    story.identity.ready().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_isnt_ours_is_no_answer() {
    for (mood, expected) in [
        (Mood::AnswersForAnother, "a certificate for spiffe://cluster.local/ns/shop/sa/other"),
        (Mood::AnswersForAnotherKey, "for another key"),
        (Mood::AnswersWithNothing, "without a certificate"),
    ] {
        let story = Story::begin(mood);
        let problem = story.failed(1).await;
        assert!(problem.contains(expected), "{problem}");
        assert!(story.identity.certificate().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_hours_skew_neither_delays_the_first_certificate_nor_makes_the_next_late() {
    let skews: [fn(Clock) -> Clock; 2] = [|clock| clock.behind_by(HOUR), |clock| clock.ahead_by(HOUR)];
    for skew in skews {
        let story = Story::begin_with(Mood::Issues, skew);
        let certificate = story.identity.ready().await;
        assert_eq!(story.asked.load(Ordering::Relaxed), 1);
        story.renewed().await;
        assert!(story.clock.now() < certificate.not_after() - 4 * HOUR, "by the right clock");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_days_off_is_named_as_the_suspect() {
    let story = Story::begin_with(Mood::Issues, |clock| clock.ahead_by(3 * DAY));
    let problem = story.failed(1).await;
    assert!(problem.contains("is this machine's clock right?"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_renews_within_a_minute_of_waking() {
    // While a machine sleeps its wall clock goes on and its timers don't.
    let slept = Arc::new(AtomicU32::new(0));
    let seen = slept.clone();
    let asleep = move || Duration::from_secs(seen.load(Ordering::Relaxed).into());
    let story = Story::begin_with(Mood::Issues, |clock| Clock::new(move || clock.now() + asleep()));
    story.identity.ready().await;
    let before = story.serial();
    sleep(HOUR).await;
    assert_eq!(story.serial(), before);

    slept.store(20 * 60 * 60, Ordering::Relaxed);
    // The authority's clock stood still, so that its certificates look old; they are good all the same.
    assert!(story.renewed().await <= MINUTE);
}

#[tokio::test(start_paused = true)]
async fn what_is_printed_is_public() {
    let story = Story::begin(Mood::Issues);
    let certificate = story.identity.ready().await;
    advance(MINUTE).await;
    let printed = format!("{:?} {certificate:?} {certificate}", story.identity);
    assert!(printed.contains(certificate.serial()));
    assert!(!printed.contains("key") && printed.len() < 1000, "{printed}");
}
