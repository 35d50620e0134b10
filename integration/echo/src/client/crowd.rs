//! A crowd: many connections that do little, or one that does much, held until standard input ends. What a sidecar must bear without
//! growing.
//!
//! Ten times a second a line of JSON goes to standard output:
//!
//! ```text
//! {"open":9800,"ended":200,"answers":{"200":10000},"bytes":0}
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::Write,
    process::ExitCode,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::{interval, sleep},
};

use super::{Target, load::end_of_input};
use crate::EchoError;

/// How many connections are opened at a time.
const OPENING: usize = 50;
/// How often the counts are printed.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long a slow connection rests between two bytes, in each direction.
const SLOW: Duration = Duration::from_millis(200);
/// How long the body of such a request would be.
const SLOW_BYTES: u64 = 1_000_000;
/// What asks for the answer that a [`Habit::Reader`] reads: 16 MiB, more than anybody on the way keeps.
const LONG: &str = "/?size=1048576&chunks=16";
/// For how long nobody has taken more of a [`Habit::Body`] when everybody on the way has what they are ready to keep.
const FULL: Duration = Duration::from_millis(500);
/// How many bytes a [`Habit::Body`] writes at a time.
const BLOCK: usize = 64 * 1024;
/// How much of an answer's head is kept.
const HEAD_BYTES: usize = 4096;

/// Whom to call, and what the crowd is like.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A host and, unless it is 80, a port
    host: String,
    /// What each connection does
    #[arg(value_enum)]
    habit: Habit,
    /// How many connections
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// With body: how many bytes each sends, and reads back
    #[arg(long, default_value_t = 0)]
    bytes: u64,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Habit {
    /// One request, then nothing.
    Idle,
    /// A request whose body is written a byte at a time, and whose answer is read as slowly.
    Slow,
    /// A request whose answer is long, and is read as slowly.
    Reader,
    /// A request whose head doesn't end, until that is answered.
    Head,
    /// A request with a long body, which comes back, and isn't read before nobody takes more of it.
    Body,
}

/// What has come of all of them.
#[derive(Debug, Default)]
struct Crowd {
    open: Cell<usize>,
    ended: Cell<usize>,
    /// Bytes of bodies that came back.
    bytes: Cell<u64>,
    /// Heads by status.
    answers: RefCell<BTreeMap<u16, usize>>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, EchoError> {
    let target = Target::parse(&format!("http://{}/", args.host))?;
    let (crowd, turns) = (Crowd::default(), Semaphore::new(OPENING));
    let all = join_all((0..args.count).map(|_| one(&target, &args, &crowd, &turns)));
    // Also when all have ended, somebody may want to read so.
    let all = async {
        all.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = all => {}
        () = end_of_input() => {}
        printed = report(&crowd) => printed?,
    }
    crowd.print()?;
    Ok(ExitCode::SUCCESS)
}

async fn report(crowd: &Crowd) -> Result<(), EchoError> {
    let mut ticks = interval(REPORT_EVERY);
    loop {
        ticks.tick().await;
        crowd.print()?;
    }
}

/// One connection, from its beginning to its end.
async fn one(target: &Target, args: &Args, crowd: &Crowd, turns: &Semaphore) {
    let turn = turns.acquire().await;
    let opened = target.connect().await;
    if let Ok(stream) = opened {
        crowd.open.update(|open| open + 1);
        // How it ends isn't told apart: it is counted.
        let _ = match args.habit {
            Habit::Idle => idle(stream, target, crowd, turn).await,
            Habit::Slow => slow(stream, target, crowd, turn).await,
            Habit::Reader => reader(stream, target, crowd, turn).await,
            Habit::Head => endless_head(stream, target, crowd).await,
            Habit::Body => body(stream, target, args.bytes, crowd).await,
        };
        crowd.open.update(|open| open - 1);
    }
    crowd.ended.update(|ended| ended + 1);
}

async fn idle<T>(mut stream: TcpStream, target: &Target, crowd: &Crowd, turn: T) -> std::io::Result<()> {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", target.authority).as_bytes()).await?;
    crowd.answered(&mut stream).await?;
    drop(turn);
    // Whatever is left of the answer, and then the end.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

async fn reader<T>(mut stream: TcpStream, target: &Target, crowd: &Crowd, turn: T) -> std::io::Result<()> {
    stream.write_all(format!("GET {LONG} HTTP/1.1\r\nhost: {}\r\n\r\n", target.authority).as_bytes()).await?;
    drop(turn);
    crowd.read_slowly(&mut stream).await
}

async fn slow<T>(mut stream: TcpStream, target: &Target, crowd: &Crowd, turn: T) -> std::io::Result<()> {
    stream.write_all(post(target, SLOW_BYTES).as_bytes()).await?;
    drop(turn);
    let (mut reader, mut writer) = stream.split();
    let writing = async {
        loop {
            writer.write_all(b".").await?;
            sleep(SLOW).await;
        }
    };
    tokio::select! {
        ended = writing => ended,
        ended = crowd.read_slowly(&mut reader) => ended,
    }
}

async fn endless_head(mut stream: TcpStream, target: &Target, crowd: &Crowd) -> std::io::Result<()> {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {}\r\n", target.authority).as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    let field = [b"x-padding: ".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
    // Goes on until the answer is read, also where nobody takes more.
    let writing = async {
        while writer.write_all(&field).await.is_ok() {}
        std::future::pending().await
    };
    tokio::select! {
        answered = crowd.answered(&mut reader) => answered,
        () = writing => Ok(()),
    }
}

async fn body(mut stream: TcpStream, target: &Target, bytes: u64, crowd: &Crowd) -> std::io::Result<()> {
    stream.write_all(post(target, bytes).as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    let left = Cell::new(bytes);
    let writing = async {
        let block = vec![b'.'; BLOCK];
        while left.get() > 0 {
            let part = &block[..usize::try_from(left.get()).unwrap_or(BLOCK).min(BLOCK)];
            writer.write_all(part).await?;
            left.update(|left| left - part.len() as u64);
        }
        std::io::Result::Ok(())
    };
    let reading = async {
        loop {
            let before = left.get();
            sleep(FULL).await;
            if left.get() == before {
                break;
            }
        }
        crowd.answered(&mut reader).await?;
        let mut part = vec![0; BLOCK];
        while crowd.bytes.get() < bytes {
            match reader.read(&mut part).await? {
                0 => break,
                read => crowd.bytes.update(|bytes| bytes + read as u64),
            };
        }
        Ok(())
    };
    tokio::try_join!(writing, reading).map(drop)
}

/// The head of a request whose body comes back.
fn post(target: &Target, bytes: u64) -> String {
    format!("POST /?body=echo HTTP/1.1\r\nhost: {}\r\ncontent-length: {bytes}\r\n\r\n", target.authority)
}

impl Crowd {
    /// Reads an answer's head, and what comes with it, and counts it.
    async fn answered(&self, stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let end = loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let status = head.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        *self.answers.borrow_mut().entry(status.unwrap_or(0)).or_default() += 1;
        self.bytes.update(|bytes| bytes + (head.len() - end) as u64);
        Ok(())
    }

    /// Reads to the end, a byte at a time.
    async fn read_slowly(&self, stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
        while stream.read(&mut [0]).await? > 0 {
            self.bytes.update(|bytes| bytes + 1);
            sleep(SLOW).await;
        }
        Ok(())
    }

    fn print(&self) -> std::io::Result<()> {
        let answers = self.answers.borrow();
        let answers: Vec<String> =
            answers.iter().map(|(status, count)| format!("\"{status}\":{count}")).collect();
        let (open, ended, answers) = (self.open.get(), self.ended.get(), answers.join(","));
        let bytes = self.bytes.get();
        writeln!(
            std::io::stdout(),
            r#"{{"open":{open},"ended":{ended},"answers":{{{answers}}},"bytes":{bytes}}}"#
        )
    }
}
