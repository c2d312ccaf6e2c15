//! Flows of connection tracking: found by where they were sent, and deleted.

use std::net::IpAddr;

use super::{
    Family, NLM_F_ACK, NLM_F_REQUEST, NetfilterError, NetfilterSocket, Request,
    SUBSYSTEM_CONNTRACK, find,
};

const GET: u16 = 1;
const DELETE: u16 = 2;
const GET_STATISTICS: u16 = 5;

/// `CTA_STATS_GLOBAL_ENTRIES`.
const ENTRIES: u16 = 1;

/// `CTA_*`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const ZONE: u16 = 18;

/// `CTA_PROTOINFO_TCP`, `CTA_PROTOINFO_TCP_STATE`, `TCP_CONNTRACK_TIME_WAIT`.
const TCP_INFO: u16 = 1;
const TCP_STATE: u16 = 1;
const TIME_WAIT: u8 = 7;

/// `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`, `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// `CTA_IP_V4_SRC` and its neighbours.
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;

/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;

/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// A flow, as far as we look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    /// Where the client sent it.
    pub(crate) destination: IpAddr,
    /// The port there; 0 without ports.
    pub(crate) destination_port: u16,
    /// Who answers.
    pub(crate) answerer: IpAddr,
    /// From which port; 0 without ports.
    pub(crate) answerer_port: u16,
    /// Whether anything came back.
    pub(crate) is_answered: bool,
}

// === impl NetfilterSocket ===

impl NetfilterSocket {
    /// How many flows this namespace has.
    fn flow_count(&mut self) -> Result<u32, NetfilterError> {
        let sequence = self.next_sequence();
        let mut buffer = super::Buffer::default();
        let request = Request {
            subsystem: SUBSYSTEM_CONNTRACK,
            kind: GET_STATISTICS,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            family: Family::V4,
        };
        buffer.message(request, sequence, |_| ());
        self.send(&buffer.bytes)?;
        let mut count = None;
        self.answers("count flows", sequence, |_, body| {
            let bytes = find(body, ENTRIES).and_then(|bytes| bytes.try_into().ok());
            count = count.or(bytes.map(u32::from_be_bytes));
        })?;
        // A kernel that does not say is taken to have some.
        Ok(count.unwrap_or(1))
    }

    /// Deletes the flows of this namespace that `is_doomed` picks, and says how many. The kernel's table is shared by all
    /// namespaces, and walking it takes about 12 ms, so that is done only where there are flows at all.
    ///
    /// Connections that both sides have ended are left alone: the kernel forgets them by itself when somebody begins another with
    /// the same ports, and a busy service leaves tens of thousands, each of which would cost a request.
    pub(crate) fn forget_flows(
        &mut self,
        family: Family,
        is_doomed: impl Fn(&Flow) -> bool,
    ) -> Result<usize, NetfilterError> {
        if self.flow_count()? == 0 {
            return Ok(0);
        }
        let request = |kind, flags| Request {
            subsystem: SUBSYSTEM_CONNTRACK,
            kind,
            flags,
            family,
        };
        let mut doomed = Vec::new();
        self.dump(
            "list flows",
            request(GET, 0),
            |_| (),
            |_, body| {
                if let Some((flow, original)) = read(body)
                    && !is_over(body)
                    && is_doomed(&flow)
                {
                    doomed.push((original.to_vec(), find(body, ZONE).map(<[u8]>::to_vec)));
                }
            },
        )?;
        for (original, zone) in &doomed {
            let sequence = self.next_sequence();
            let mut buffer = super::Buffer::default();
            let flags = NLM_F_REQUEST | NLM_F_ACK;
            buffer.message(request(DELETE, flags), sequence, |buffer| {
                buffer.nest(ORIGINAL, |buffer| buffer.bytes.extend(original));
                if let Some(zone) = zone {
                    buffer.attribute(ZONE, zone);
                }
            });
            match self.transact("delete a flow", &buffer.bytes, sequence) {
                Err(NetfilterError::Refused { source, .. })
                    if source.raw_os_error() == Some(nix::libc::ENOENT) => {}
                outcome => outcome?,
            }
        }
        Ok(doomed.len())
    }
}

/// Whether both sides of a TCP connection have said that it ends.
fn is_over(body: &[u8]) -> bool {
    let info = find(body, PROTOCOL_INFO).and_then(|info| find(info, TCP_INFO));
    let state = info
        .and_then(|info| find(info, TCP_STATE))
        .and_then(<[u8]>::first);
    state == Some(&TIME_WAIT)
}

/// A flow, and its original direction as the kernel wrote it.
fn read(body: &[u8]) -> Option<(Flow, &[u8])> {
    let (original, reply) = (find(body, ORIGINAL)?, find(body, REPLY)?);
    let protocol = find(find(original, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)?;
    // A kernel that does not say is taken to have seen an answer.
    let status = find(body, STATUS).and_then(|bytes| bytes.try_into().ok());
    let status = status.map_or(SEEN_REPLY, u32::from_be_bytes);
    let flow = Flow {
        protocol: *protocol.first()?,
        destination: address(original, V4_DESTINATION, V6_DESTINATION)?,
        destination_port: port(original, DESTINATION_PORT),
        answerer: address(reply, V4_SOURCE, V6_SOURCE)?,
        answerer_port: port(reply, SOURCE_PORT),
        is_answered: status & SEEN_REPLY != 0,
    };
    Some((flow, original))
}

fn port(tuple: &[u8], kind: u16) -> u16 {
    let port = find(tuple, TUPLE_PROTOCOL).and_then(|protocol| find(protocol, kind));
    port.and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_be_bytes)
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = find(tuple, TUPLE_IP)?;
    let v4 = find(ip, v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = || find(ip, v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(IpAddr::from).or_else(|| v6().map(IpAddr::from))
}
