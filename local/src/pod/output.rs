//! What containers and components print: kept in bounded files in memory, and passed on line by line where asked for.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};

use super::plan::PodPlan;
use crate::{
    control::{Event, LogPlace},
    paths,
};

/// A file that has grown this long becomes the old one of two. They live in memory.
const MAX_FILE: u64 = 1024 * 1024;
/// A longer line is passed on in pieces.
const MAX_LINE: usize = 16 * 1024;
/// How much of a log is shown.
const SHOWN: usize = 256 * 1024;

/// Where one container's output goes. Clones write to the same file.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    source: String,
    file: Arc<Mutex<RotatedFile>>,
    /// Where lines are passed on to; its queue is bounded, so that who prints too fast has to wait.
    listener: Option<mpsc::Sender<Event>>,
}

#[derive(Debug)]
struct RotatedFile {
    path: PathBuf,
    current: Option<(File, u64)>,
}

impl Log {
    /// `source` is what lines are passed on under: `namespace/pod/container`.
    pub(crate) fn new(path: PathBuf, source: String, listener: Option<mpsc::Sender<Event>>) -> Self {
        Self { source, file: Arc::new(Mutex::new(RotatedFile { path, current: None })), listener }
    }

    /// As [`last_words`], of who has ended just now.
    pub(crate) fn last_words(&self, ended: ExitStatus) -> Option<String> {
        let path = self.file.lock().unwrap_or_else(PoisonError::into_inner).path.clone();
        last_words(&path, ended.signal(), Timestamp::now())
    }

    /// Reads a stream to its end.
    pub(crate) async fn pump(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8 * 1024];
        let mut line = Vec::new();
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default();
            let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).append(bytes);
            if let Err(error) = written {
                tracing::warn!(source = self.source, %error, "output is lost");
            }
            if let Some(listener) = &self.listener {
                line.extend_from_slice(bytes);
                for line in take_lines(&mut line) {
                    // Without a listener nobody is waiting for it.
                    let _ = listener.send(Event::Output { source: self.source.clone(), line }).await;
                }
            }
        }
    }
}

/// Takes complete lines, and what has grown too long to be waited for.
fn take_lines(buffer: &mut Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(end) = buffer
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|end| end + 1)
        .or_else(|| (buffer.len() > MAX_LINE).then_some(MAX_LINE))
    {
        let line: Vec<u8> = buffer.drain(..end).collect();
        lines.push(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
    }
    lines
}

impl RotatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.current.as_ref().is_some_and(|(_, length)| *length >= MAX_FILE);
        if full {
            self.current = None;
            fs::rename(&self.path, old(&self.path))?;
        }
        let (file, length) = match &mut self.current {
            Some(current) => current,
            None => {
                if let Some(parent) = self.path.parent() {
                    fs::create_dir_all(parent)?;
                }
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                let length = file.metadata()?.len();
                self.current.insert((file, length))
            }
        };
        file.write_all(bytes)?;
        *length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The last part of what was printed, or of what was printed since a place of before; and the place where it ends, which is
/// none as long as nothing was printed.
pub(crate) fn read(path: &Path, after: Option<LogPlace>) -> (String, Option<LogPlace>) {
    let Ok((file, new)) = read_file(path) else { return (String::new(), None) };
    let (mut bytes, mut place) = (new, LogPlace { file, length: 0 });
    place.length = bytes.len() as u64;
    let skipped = match after {
        Some(after) if after.file == file => after.length,
        after => {
            // The file has been another one meanwhile, or this is the first look.
            let (file, mut all) = read_file(&old(path)).unwrap_or_default();
            all.append(&mut bytes);
            bytes = all;
            after.filter(|after| after.file == file).map_or(0, |after| after.length)
        }
    };
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).max(bytes.len().saturating_sub(SHOWN));
    let mut bytes = bytes.get(skipped..).unwrap_or_default();
    // A letter that has arrived in part is for the next time.
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        place.length -= (bytes.len() - error.valid_up_to()) as u64;
        bytes = bytes.get(..error.valid_up_to()).unwrap_or_default();
    }
    (String::from_utf8_lossy(bytes).into_owned(), Some(place))
}

fn read_file(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((file.metadata()?.ino(), bytes))
}

/// What a program said when it ended, by a signal or by itself: its last line, if it was printed just then. Who is killed says
/// nothing.
pub(crate) fn last_words(path: &Path, signal: Option<i32>, finished: Timestamp) -> Option<String> {
    const JUST_THEN: Duration = Duration::from_secs(1);
    /// What clap says after an error, which it isn't.
    const ADVICE: &str = "For more information, try ";

    let printed = fs::metadata(path).ok()?.modified().ok()?;
    let ended = SystemTime::from(finished);
    let just_then = ended.duration_since(printed).is_ok_and(|before| before <= JUST_THEN) || printed > ended;
    let silent = signal == Some(Signal::SIGKILL as i32);
    let text = (just_then && !silent).then(|| read(path, None).0)?;
    let says = |line: &&str| !line.trim().is_empty() && !line.starts_with(ADVICE);
    text.lines().rfind(says).map(str::to_owned)
}

/// Where a container's output is kept.
pub(crate) fn log_file(plan: &PodPlan, container: &str) -> PathBuf {
    log_directory(plan).join(format!("{container}.log"))
}

/// As kubelet names it.
fn log_directory(plan: &PodPlan) -> PathBuf {
    Path::new(paths::LOGS).join(format!("{}_{}_{}", plan.namespace, plan.name, plan.uid))
}

/// Forgets a pod's logs.
pub(crate) fn remove(plan: &PodPlan) {
    let directory = log_directory(plan);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(directory = %directory.display(), %error, "a pod's logs are left");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_on_when_they_are_complete_or_too_long() {
        let mut buffer = b"one\r\ntwo\nthr".to_vec();
        assert_eq!(take_lines(&mut buffer), ["one", "two"]);
        buffer.extend(b"ee\n");
        assert_eq!(take_lines(&mut buffer), ["three"]);
        buffer.extend(vec![b'x'; MAX_LINE + 1]);
        assert_eq!(take_lines(&mut buffer).iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE]);
        assert_eq!(buffer, b"x");
    }

    #[tokio::test]
    async fn a_flood_of_output_takes_bounded_room_and_its_end_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/app.log");
        let mut flood: Vec<u8> = vec![b'.'; 3 * 1024 * 1024];
        flood.extend(b"the end\n");
        Log::new(path.clone(), "app".into(), None).pump(flood.as_slice()).await;
        let sizes = fs::metadata(&path).unwrap().len() + fs::metadata(old(&path)).unwrap().len();
        assert!(sizes <= 2 * MAX_FILE + 8 * 1024 + 8, "{sizes}");
        assert!(read(&path, None).0.ends_with("the end\n"));
    }

    #[tokio::test]
    async fn who_follows_gets_everything_once_also_when_the_file_is_changed_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        assert_eq!(read(&path, None), (String::new(), None), "nothing was printed yet");
        let log = Log::new(path.clone(), "app".into(), None);
        log.clone().pump("one\nä".as_bytes().split_last().unwrap().1).await;
        let (text, place) = read(&path, None);
        assert_eq!(text, "one\n", "half a letter is no text");
        log.clone().pump(&b"\xa4\n"[..]).await;
        let (text, place) = read(&path, place);
        assert_eq!(text, "ä\n");
        assert_eq!(read(&path, place), (String::new(), place));

        let filler = vec![b'.'; usize::try_from(MAX_FILE).unwrap()];
        log.clone().pump(filler.as_slice()).await;
        let (_, place) = read(&path, place);
        log.clone().pump(&b"after\n"[..]).await;
        assert_eq!(read(&path, place).0, "after\n");
    }

    #[test]
    fn last_words_are_those_of_the_end_and_not_of_long_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        fs::write(&path, "starting\nno such table\n").unwrap();
        let later = |seconds: i64| Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(last_words(&path, None, later(0)).as_deref(), Some("no such table"));
        assert_eq!(last_words(&path, None, later(60)), None, "it has been silent for a minute");
        assert_eq!(last_words(&path, Some(9), later(0)), None, "who is killed says nothing");
    }

    #[tokio::test]
    async fn what_a_flag_was_refused_for_is_said_and_not_where_help_is() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::new(directory.path().join("ca.log"), "ca".into(), None);
        let printed = "error: invalid value '5s'\n\nFor more information, try '--help'.\n";
        log.clone().pump(printed.as_bytes()).await;
        let ended = ExitStatus::from_raw(2 << 8);
        assert_eq!(log.last_words(ended).as_deref(), Some("error: invalid value '5s'"));
    }
}
