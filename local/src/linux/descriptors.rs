//! File descriptors that travel over a unix socket beside the bytes (`SCM_RIGHTS`, unix(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// More than any message of ours carries.
const MAX: usize = 8;

/// Sends what fits of `bytes`, with these descriptors; the number of bytes sent.
///
/// # Errors
/// As sendmsg(2); `InvalidInput` for more than eight descriptors.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = descriptors.len() <= MAX
        && (descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    if !fits {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many file descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives some bytes into `buffer`, and appends the descriptors that came with them, closed on exec. 0: the other end
/// has closed.
///
/// # Errors
/// As recvmsg(2).
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, io::Write as _, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_the_bytes_it_was_sent_with_and_works() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(send(&ours, b"here", &[reader.as_fd()]).unwrap(), 4);
        writer.write_all(b"through the pipe").unwrap();
        drop(writer);

        let (mut buffer, mut descriptors) = ([0; 16], Vec::new());
        assert_eq!(receive(&theirs, &mut buffer, &mut descriptors).unwrap(), 4);
        assert_eq!(&buffer[..4], b"here");
        let mut text = String::new();
        File::from(descriptors.pop().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the pipe");
        assert!(descriptors.is_empty());
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer, &mut descriptors).unwrap(), 0);
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn too_many_descriptors_are_an_error_and_not_a_truncated_message() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let many = vec![ours.as_fd(); MAX + 1];
        assert_eq!(send(&ours, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
