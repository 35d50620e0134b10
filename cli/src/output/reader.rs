//! Whether anybody still reads standard output: a write tells, but who watches what rests has nothing to write.

use std::{
    fs::File,
    future, io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::{io::Interest, net::unix::pipe::Sender};

/// Returns when the reader of standard output has gone (`| head`); never, where that can't be told, as of a file.
pub(crate) async fn gone() {
    reader_of(io::stdout()).await;
}

/// As [`gone`], of the writing end of any pipe.
async fn reader_of(end: impl AsFd) {
    if let Ok(end) = watched(&end)
        && end.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    future::pending().await
}

/// A pipe's writing end, to be waited for and not to be written to: others write to the same, and expect to block. Files can't be
/// waited for (epoll_ctl(2), EPERM); of a pipe without readers the kernel tells an error (poll(2), POLLERR).
fn watched(end: &impl AsFd) -> io::Result<Sender> {
    let own: OwnedFd = end.as_fd().try_clone_to_owned()?;
    Sender::from_file_unchecked(File::from(own))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, pin::pin, task::Poll};

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_pipes_reader_is_noticed_without_a_write() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"seen").unwrap();
        let mut gone = pin!(reader_of(writer));
        assert_eq!(poll!(&mut gone), Poll::Pending, "somebody may read on");
        drop(reader);
        gone.await;
    }

    #[tokio::test]
    async fn a_file_has_no_reader_to_lose() {
        let mut gone = pin!(reader_of(tempfile::tempfile().unwrap()));
        assert_eq!(poll!(&mut gone), Poll::Pending);
    }
}
