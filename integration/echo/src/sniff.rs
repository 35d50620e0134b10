//! Sniffing: what really goes over the wire, one line for each TCP segment with content, on all interfaces of the
//! network namespace: `<from> > <to> <length> <content>`, everything that isn't printable escaped. One that is seen at
//! several places (a loopback interface sends and receives it, a bridge has it on every port) is printed once.
//!
//! So that anybody can see without other tools that the bytes between two sidecars are TLS, and where they aren't.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::EchoError;

/// Which segments to print.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only segments from or to this port
    #[arg(long)]
    port: Option<u16>,
    /// End after this many
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

/// How many segments are remembered, to know one that is seen again. Between its sightings there are a few others.
const REMEMBERED: usize = 256;

/// `ETH_P_ALL` of linux/if_ether.h, in network byte order as packet(7) wants it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;

/// Prints segments, as many as asked for, or until nobody reads them any more.
pub(crate) fn run(args: &Args) -> Result<ExitCode, EchoError> {
    match print(args) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

fn print(args: &Args) -> io::Result<()> {
    // Without link-layer header: the packet starts with its IP header (packet(7), SOCK_DGRAM).
    let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(ALL_PROTOCOLS)))?;
    let mut out = std::io::stdout();
    writeln!(out, "listening")?;
    let mut packet = vec![0; 1 << 16];
    let mut seen = Seen::default();
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) {
        let length = socket.read(&mut packet)?;
        let Some(segment) = packet.get(..length).and_then(Segment::parse) else { continue };
        let wanted = args.port.is_none_or(|port| [segment.from.port(), segment.to.port()].contains(&port));
        if wanted && !segment.content.is_empty() && seen.is_new(&segment) {
            let Segment { from, to, content, .. } = segment;
            writeln!(out, "{from} > {to} {} {}", content.len(), content.escape_ascii())?;
            printed += 1;
        }
    }
    Ok(())
}

/// The segments of a moment ago, by their ends, place in the stream and length.
#[derive(Debug, Default)]
struct Seen(VecDeque<(SocketAddr, SocketAddr, u32, usize)>);

impl Seen {
    fn is_new(&mut self, segment: &Segment<'_>) -> bool {
        let key = (segment.from, segment.to, segment.sequence, segment.content.len());
        if self.0.contains(&key) {
            return false;
        }
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front(key);
        true
    }
}

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    /// Where in its direction's stream the content begins.
    sequence: u32,
    content: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads an IP packet (RFC 791, RFC 8200 without extension headers) with TCP (RFC 9293) in it.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        const TCP: u8 = 6;
        let (from, to, tcp): (IpAddr, IpAddr, _) = match packet.first()? >> 4 {
            4 if *packet.get(9)? == TCP => {
                let header = usize::from(packet.first()? & 0xf) * 4;
                let length = usize::from(number(packet, 2)?);
                let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
                (address(12)?.into(), address(16)?.into(), packet.get(header..length)?)
            }
            6 if *packet.get(6)? == TCP => {
                let end = 40 + usize::from(number(packet, 4)?);
                let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
                (address(8)?.into(), address(24)?.into(), packet.get(40..end)?)
            }
            _ => return None,
        };
        let content = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
        let (from_port, to_port) = (number(tcp, 0)?, number(tcp, 2)?);
        let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
        Some(Self { from: (from, from_port).into(), to: (to, to_port).into(), sequence, content })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(content: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        segment[12] = 5 << 4;
        [&segment, content].concat()
    }

    #[test]
    fn segments_of_both_families_are_read_and_their_padding_left_out() {
        let segment = tcp(b"hi");
        let mut v4 = vec![0; 20];
        v4[0] = 0x45;
        v4[3] = 20 + 22;
        v4[9] = 6;
        v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let packet = [v4.as_slice(), &segment, b"padding"].concat();
        let parsed = Segment::parse(&packet).unwrap();
        assert_eq!(
            (parsed.from.to_string(), parsed.to.to_string()),
            ("10.0.0.1:8080".into(), "10.0.0.2:80".into())
        );
        assert_eq!(parsed.content, b"hi");

        let mut v6 = vec![0; 40];
        v6[0] = 0x60;
        v6[5] = 22;
        v6[6] = 6;
        v6[23] = 1;
        v6[39] = 2;
        let packet = [v6.as_slice(), &segment].concat();
        let parsed = Segment::parse(&packet).unwrap();
        assert_eq!(
            (parsed.from.to_string(), parsed.to.to_string()),
            ("[::1]:8080".into(), "[::2]:80".into())
        );
    }

    #[test]
    fn what_is_seen_at_several_places_is_printed_once() {
        let ends: (SocketAddr, SocketAddr) =
            ("10.0.0.1:8080".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let segment = |sequence| Segment { from: ends.0, to: ends.1, sequence, content: b"hi" };
        let mut seen = Seen::default();
        assert!(seen.is_new(&segment(1)) && seen.is_new(&segment(3)));
        assert!(!seen.is_new(&segment(1)) && !seen.is_new(&segment(3)));
        assert!(seen.is_new(&Segment { from: ends.1, to: ends.0, ..segment(1) }), "the other direction");
    }

    #[test]
    fn anything_else_and_anything_cut_short_is_nothing() {
        assert_eq!(Segment::parse(&[]), None);
        assert_eq!(Segment::parse(&[0x45, 0, 0, 200, 0, 0, 0, 0, 0, 6]), None);
        assert_eq!(Segment::parse(&[0x60; 41]), None);
    }
}
