//! Just enough DNS to ask a container's resolver for the addresses of a name.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, ensure};

/// Docker's resolver, in every container on a network.
const RESOLVER: &str = "127.0.0.11:53";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest datagram.
const ANSWER_BYTES_MAX: usize = 4096;
/// Type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// A way to ask.
#[derive(Debug)]
pub(super) struct Resolver {
    socket: UdpSocket,
    number: u16,
}

// === impl Resolver ===

impl Resolver {
    /// Of the namespace this runs in.
    pub(super) fn open() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("failed to open a socket")?;
        socket.connect(RESOLVER).context("no resolver")?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .context("failed to set a time limit")?;
        Ok(Self { socket, number: 0 })
    }

    /// The IPv4 addresses of a name; none when there is no such name.
    pub(super) fn addresses(&mut self, name: &str) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
        self.number = self.number.wrapping_add(1);
        let query = query(self.number, name);
        self.socket.send(&query).context("failed to ask")?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        loop {
            let length = self.socket.recv(&mut answer).context("no answer")?;
            // One to an earlier question may come late.
            if answer[..2] == self.number.to_be_bytes() {
                return addresses(&answer[..length]).context("an answer that is none");
            }
        }
    }
}

fn query(number: u16, name: &str) -> Vec<u8> {
    let mut query = number.to_be_bytes().to_vec();
    // Recursion desired, one question, and an EDNS record for long answers.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(A_IN);
    query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    query
}

fn addresses(answer: &[u8]) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
    let number = |at: usize| -> anyhow::Result<usize> {
        let bytes = answer.get(at..at + 2).context("it is short")?;
        Ok(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    };
    ensure!(number(2)? & 0x0200 == 0, "it is truncated");
    let status = number(2)? & 0xf;
    ensure!(status == 0 || status == 3, "status {status}");
    let mut at = 12;
    for _ in 0..number(4)? {
        at = after_name(answer, at)? + 4;
    }
    let mut found = BTreeSet::new();
    for _ in 0..number(6)? {
        at = after_name(answer, at)?;
        let length = number(at + 8)?;
        if answer.get(at..at + 4) == Some(&A_IN[..]) {
            let bytes = answer.get(at + 10..at + 14).context("it is short")?;
            found.insert(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]));
        }
        at += 10 + length;
    }
    Ok(found)
}

fn after_name(answer: &[u8], mut at: usize) -> anyhow::Result<usize> {
    loop {
        match answer.get(at).copied().context("it is short")? {
            0 => return Ok(at + 1),
            // A pointer ends a name.
            192.. => return Ok(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_behind_names_and_other_records() {
        let mut answer = query(7, "tasks.web");
        answer[2..12].copy_from_slice(&[0x85, 0, 0, 1, 0, 2, 0, 0, 0, 0]);
        answer.truncate(answer.len() - 11);
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 2, 0xc0, 12]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 1, 9]);
        let found = addresses(&answer).unwrap();
        assert_eq!(found, BTreeSet::from([Ipv4Addr::new(10, 0, 1, 9)]));
        answer.truncate(answer.len() - 1);
        assert!(addresses(&answer).is_err());
    }
}
