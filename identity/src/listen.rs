//! Listening sockets of the mesh's own processes.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted; the kernel's own limit (`net.core.somaxconn`, 4096 by default) applies too.
const BACKLOG: i32 = 4096;

/// A listening socket. `[::]` stands for every address that there is: it takes IPv4 connections too, whatever the machine's
/// default (`net.ipv6.bindv6only`), and is `0.0.0.0` on a machine without IPv6.
///
/// # Errors
/// If the port is taken, or may not be taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bound(address, bind)
}

fn bound<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_family(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A process that restarts must not wait for its predecessor's connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// EAFNOSUPPORT, of a kernel that has no IPv6 or was started with `ipv6.disable=1`; EADDRNOTAVAIL, of one that has it and no address.
fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kernel without IPv6 answers.
    fn ipv4_alone(address: SocketAddr) -> io::Result<SocketAddr> {
        if address.is_ipv6() { Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)) } else { Ok(address) }
    }

    #[test]
    fn every_address_of_a_kernel_without_ipv6_is_every_ipv4_address() {
        let tried = bound("[::]:15012".parse().unwrap(), ipv4_alone).unwrap();
        assert_eq!(tried, "0.0.0.0:15012".parse().unwrap());
    }

    #[test]
    fn one_ipv6_address_is_never_taken_for_another() {
        assert!(bound("[::1]:15012".parse().unwrap(), ipv4_alone).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_not_tried_in_another_family() {
        let taken = |address: SocketAddr| match address.is_ipv6() {
            true => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            false => Ok(()),
        };
        assert!(bound("[::]:15012".parse().unwrap(), taken).is_err());
    }
}
