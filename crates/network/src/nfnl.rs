//! A blocking netfilter socket: raw messages to nf_tables and connection tracking, without a program in between.
//!
//! Only what the hot path needs, elements of maps and flows, and what `nft` cannot say. Tables and rules are text for it, once for each namespace. The
//! numbers are those of `linux/netfilter/nf_tables.h` and `nfnetlink_conntrack.h`. A socket belongs to the network namespace
//! it was opened in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

pub(crate) mod conntrack;
pub(crate) mod elements;
pub(crate) mod shift;

/// Request: this is one.
pub(crate) const NLM_F_REQUEST: u16 = 1;
/// Request: answer even if all is well.
pub(crate) const NLM_F_ACK: u16 = 4;
/// Request: make what does not exist.
const NLM_F_CREATE: u16 = 0x400;
/// Request: all there are.
pub(crate) const NLM_F_DUMP: u16 = 0x300;

/// Answer: an error, or none with code 0.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// Answer: the end of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;

/// Control messages around a transaction.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const SUBSYSTEM_CONNTRACK: u16 = 1;
const SUBSYSTEM_TABLES: u16 = 10;

/// Bytes of a netlink header and of the netfilter header after it.
const HEADER_BYTES: usize = 16;
const NETFILTER_BYTES: usize = 4;

/// Attribute type: it holds attributes.
const NESTED: u16 = 0x8000;

/// Both bits the kernel may set beside an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Room for what we send: the largest transaction ([`elements::BATCH_BYTES`] and one service more) counts about double there.
const SEND_BUFFER_BYTES: usize = 8 << 20;

/// Room for answers: a dump fills it as fast as we read.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Largest datagram of a dump.
const DATAGRAM_BYTES: usize = 1 << 16;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetfilterError {
    /// The socket failed.
    #[error("netfilter socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("netfilter refused to {operation}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// Address family of a table or flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A socket in one network namespace.
#[derive(Debug)]
pub(crate) struct NetfilterSocket {
    fd: OwnedFd,
    sequence: u32,
}

/// Messages being written.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
}

/// One attribute that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

// === impl NetfilterSocket ===

impl NetfilterSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<NetfilterSocket, NetfilterError> {
        let open = || {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES)?;
            setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
            Ok(fd)
        };
        let fd = open().map_err(|errno: nix::Error| NetfilterError::Socket(errno.into()))?;
        Ok(NetfilterSocket { fd, sequence: 0 })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetfilterError> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())
            .map(drop)
            .map_err(|errno| NetfilterError::Socket(errno.into()))
    }

    /// Sends what must be answered with an error or a success, and reads that answer.
    fn transact(
        &mut self,
        operation: &'static str,
        bytes: &[u8],
        sequence: u32,
    ) -> Result<(), NetfilterError> {
        self.send(bytes)?;
        self.answers(operation, sequence, |_, _| ())
    }

    /// Asks for all there are and hands every message's kind and body to `take`.
    fn dump(
        &mut self,
        operation: &'static str,
        request: Request,
        write: impl FnOnce(&mut Buffer),
        take: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetfilterError> {
        let sequence = self.next_sequence();
        let mut buffer = Buffer::default();
        let request = Request {
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            ..request
        };
        buffer.message(request, sequence, write);
        self.send(&buffer.bytes)?;
        self.answers(operation, sequence, take)
    }

    /// Reads until the request with this number is answered. Any error of a transaction ends it, whichever message it is about.
    fn answers(
        &mut self,
        operation: &'static str,
        sequence: u32,
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetfilterError> {
        let mut datagram = vec![0; DATAGRAM_BYTES];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut datagram, MsgFlags::empty())
                .map_err(|errno| NetfilterError::Socket(errno.into()))?;
            let mut rest = &datagram[..length];
            while let Some((kind, number, body)) = take_message(&mut rest) {
                let is_ours = number == sequence;
                match kind {
                    NLMSG_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                        if code != 0 {
                            self.drain();
                            let source = io::Error::from_raw_os_error(code.abs());
                            return Err(NetfilterError::Refused { operation, source });
                        }
                        if is_ours {
                            return Ok(());
                        }
                    }
                    NLMSG_DONE if is_ours => return Ok(()),
                    _ if is_ours => take(kind & 0xff, body.get(NETFILTER_BYTES..).unwrap_or(&[])),
                    _ => {}
                }
            }
        }
    }

    /// Throws away what else the kernel said of a failed transaction.
    fn drain(&self) {
        let mut datagram = vec![0; DATAGRAM_BYTES];
        while recv(self.fd.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// The parts of a message's headers that differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    subsystem: u16,
    kind: u16,
    flags: u16,
    family: Family,
}

/// Cuts the next message off: kind, sequence number, what follows the header.
pub(crate) fn take_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let length = u32::from_ne_bytes(*rest.first_chunk()?);
    let length = usize::try_from(length).ok()?.max(HEADER_BYTES);
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?);
    let body = rest.get(HEADER_BYTES..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((kind, sequence, body))
}

/// The attributes of a body; what is cut short is left out.
pub(crate) fn attributes(mut body: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*body.first_chunk()?));
        let kind = u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = body.get(4..length)?;
        body = body.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    })
}

/// The first attribute of a kind.
pub(crate) fn find(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body)
        .find(|attribute| attribute.kind == kind)
        .map(|attribute| attribute.value)
}

// === impl Family ===

impl Family {
    /// `AF_INET` and `AF_INET6`, also `NFPROTO_IPV4` and `NFPROTO_IPV6`.
    fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }
}

// === impl Buffer ===

impl Buffer {
    /// Appends a message.
    pub(crate) fn message(
        &mut self,
        request: Request,
        sequence: u32,
        write: impl FnOnce(&mut Buffer),
    ) {
        let kind = (request.subsystem << 8) | request.kind;
        self.raw(
            kind,
            request.flags,
            sequence,
            [request.family.number(), 0, 0, 0],
            write,
        );
    }

    fn control(&mut self, kind: u16, sequence: u32) {
        let [high, low] = SUBSYSTEM_TABLES.to_be_bytes();
        self.raw(kind, NLM_F_REQUEST, sequence, [0, 0, high, low], |_| ());
    }

    /// Appends a message with any header of four bytes after netlink's: netfilter's or generic netlink's.
    pub(crate) fn raw(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        netfilter: [u8; NETFILTER_BYTES],
        write: impl FnOnce(&mut Buffer),
    ) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(netfilter);
        write(self);
        let length = u32::try_from(self.bytes.len() - start).expect("a message is small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest_as(kind, |buffer| buffer.bytes.extend(value));
    }

    /// Appends a text attribute, with its end mark.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.nest_as(kind, |buffer| {
            buffer.bytes.extend(value.as_bytes());
            buffer.bytes.push(0);
        });
    }

    /// Appends an attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Buffer)) {
        self.nest_as(kind | NESTED, write);
    }

    fn nest_as(&mut self, kind: u16, write: impl FnOnce(&mut Buffer)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        write(self);
        let length = u16::try_from(self.bytes.len() - start).expect("an attribute is small");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
