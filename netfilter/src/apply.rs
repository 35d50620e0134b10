//! Handing rules to the kernel: one batch, all or nothing, in the network namespace of the calling thread.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, nftables::NfTablesMessage, none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use thiserror::Error;

use crate::{Ruleset, encode};

/// Rules couldn't be handed over. Whatever was in force still is.
#[derive(Debug, Error)]
pub enum Error {
    /// There was no netlink socket to be had, or it broke.
    #[error("nftables: {doing}: {cause}{}", hint(cause))]
    Netlink {
        /// What was attempted.
        doing: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// The kernel refused the batch because of one of its parts.
    #[error("nftables: the kernel refused {part} of table {table:?}: {cause}{}", hint(cause))]
    Refused {
        /// The table.
        table: String,
        /// The chain, or the rule in nft's syntax.
        part: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The kernel's answer was none, or not to be understood.
    #[error("nftables: the kernel's answer about table {table:?} is {what}")]
    Answer {
        /// The table.
        table: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What is missing where rules aren't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Root, or the capability NET_ADMIN.
    Privilege,
    /// nf_tables, or a module of it.
    Module,
}

impl Error {
    /// What is missing, if the system's answer tells.
    pub fn lack(&self) -> Option<Lack> {
        let (Self::Netlink { cause, .. } | Self::Refused { cause, .. }) = self else { return None };
        match cause.raw_os_error()? {
            libc::EPERM | libc::EACCES => Some(Lack::Privilege),
            libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT => Some(Lack::Module),
            _ => None,
        }
    }
}

/// Replaces the table of this name by this ruleset: both happen in one transaction.
///
/// Needs `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
///
/// # Errors
/// See [`Error`]; nothing has changed then.
pub fn apply(ruleset: &Ruleset) -> Result<(), Error> {
    let table = &ruleset.table;
    let mut batch = Batch::deleting(table);
    batch.push("the table", encode::new_table(table));
    // Every chain before the first rule: a rule may jump to any of them.
    for chain in &ruleset.chains {
        batch.push(format!("chain {:?}", chain.name), encode::new_chain(table, chain));
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            let part = format!("rule `{rule}` in chain {:?}", chain.name);
            batch.push(part, encode::new_rule(table, &chain.name, rule));
        }
    }
    batch.commit(table)
}

/// Removes the table of this name, if there is one.
///
/// # Errors
/// See [`Error`]; nothing has changed then.
pub fn delete(table: &str) -> Result<(), Error> {
    Batch::deleting(table).commit(table)
}

/// Messages of one transaction, each with what to call it if the kernel refuses it.
struct Batch {
    parts: Vec<(String, NfTablesMessage)>,
}

impl Batch {
    /// A batch that begins by removing the table. It is added first: removing what isn't there would be an
    /// error.
    fn deleting(table: &str) -> Self {
        let mut batch = Self { parts: Vec::new() };
        batch.push("the table", encode::new_table(table));
        batch.push("the removal", encode::delete_table(table));
        batch
    }

    fn push(&mut self, part: impl Into<String>, message: NfTablesMessage) {
        self.parts.push((part.into(), message));
    }

    fn commit(self, table: &str) -> Result<(), Error> {
        let netlink = |doing| move |cause| Error::Netlink { doing, cause };
        let bytes = self.serialize();
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(netlink("opening a netlink socket"))?;
        socket.bind_auto().map_err(netlink("binding the netlink socket"))?;
        // Answers without a copy of what they answer: they fit into any buffer.
        socket.set_cap_ack(true).map_err(netlink("setting up the netlink socket"))?;
        // A batch is one datagram, which has to fit into the socket's buffer; the default holds some 700
        // rules. Best effort: without the privilege the default stays, and sending says so if it isn't
        // enough.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &(2 * bytes.len()));
        socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(netlink("sending the rules"))?;
        self.await_answer(&socket, table)
    }

    /// The batch as one datagram. Part `n` has sequence number `n + 1`; only the last asks for an
    /// acknowledgement.
    fn serialize(&self) -> Vec<u8> {
        const NFNL_SUBSYS_NFTABLES: u16 = 10;
        let control = |message| {
            NetfilterMessage::new(
                NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES),
                message,
            )
        };
        let mut bytes = Vec::new();
        append(&mut bytes, control(ControlMessage::BatchBegin), 0, 0);
        for (index, (_, message)) in self.parts.iter().enumerate() {
            let flags = match message {
                NfTablesMessage::NewTable(_) | NfTablesMessage::NewChain(_) => NLM_F_CREATE,
                NfTablesMessage::NewRule(_) => NLM_F_CREATE | NLM_F_APPEND,
                _ => 0,
            };
            let last = if index + 1 == self.parts.len() { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            append(
                &mut bytes,
                NetfilterMessage::new(header, message.clone()),
                flags | last,
                sequence(index + 1),
            );
        }
        append(&mut bytes, control(ControlMessage::BatchEnd), 0, sequence(self.parts.len() + 1));
        bytes
    }

    /// Reads until the first refusal or the acknowledgement of the last part. The kernel works through a
    /// batch while it is being sent, so that its answers are there already: reading never waits.
    fn await_answer(&self, socket: &Socket, table: &str) -> Result<(), Error> {
        let answer = |what: String| Error::Answer { table: table.to_owned(), what };
        loop {
            let mut buffer = Vec::with_capacity(8192);
            match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(answer("missing".to_owned()));
                }
                Err(cause) => return Err(Error::Netlink { doing: "reading the kernel's answer", cause }),
            }
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(&buffer)
                .map_err(|error| answer(format!("not to be understood: {error}")))?;
            let NetlinkPayload::Error(error) = &message.payload else { continue };
            let index = usize::try_from(message.header.sequence_number).unwrap_or(usize::MAX).wrapping_sub(1);
            if error.code.is_some() {
                let part = self.parts.get(index).map_or("the batch", |(part, _)| part).to_owned();
                return Err(Error::Refused { table: table.to_owned(), part, cause: error.to_io() });
            }
            if index + 1 == self.parts.len() {
                return Ok(());
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

fn sequence(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// What a person can do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            " (it takes root, or the capability NET_ADMIN in the network namespace's user namespace)"
        }
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => " (the kernel has no nf_tables: module nf_tables)",
        Some(libc::ENOENT) => {
            " (a chain of that name is missing, or a module of the kernel: nft_chain_nat, nft_redir, nft_nat, nft_masq, nft_fib_inet, nft_numgen or nft_reject_inet)"
        }
        Some(libc::EMSGSIZE | libc::ENOBUFS) => " (too many rules for one batch)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_named() {
        let error = Error::Netlink { doing: "sending", cause: io::Error::from_raw_os_error(libc::EPERM) };
        assert!(error.to_string().contains("NET_ADMIN"), "{error}");
    }
}
