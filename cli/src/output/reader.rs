//! Whether anybody still reads standard output: a write tells, but who watches what rests has nothing to write.

use std::{future, io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Returns when the reader of standard output has gone (`| head`); never, where that can't be told, as of a file.
pub(crate) async fn gone() {
    reader_of(io::stdout()).await;
}

/// As [`gone`], of the writing end of any pipe.
async fn reader_of(end: impl AsRawFd) {
    // Files can't be waited for (epoll_ctl(2), EPERM); of a pipe without readers the kernel tells an error (poll(2), POLLERR).
    if let Ok(end) = AsyncFd::with_interest(end, Interest::ERROR)
        && end.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    future::pending().await
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
