//! The one rule that `nft` has no words for: source ports are moved by a fixed distance, not drawn at random.
//!
//! The kernel keeps a source port that is within the range while nobody else has it. With `NF_NAT_RANGE_PROTO_OFFSET` (Linux 4.18) its search for
//! another one begins at the range's first port plus the port asked for, modulo the range's size, and goes up from there; without the flag it
//! begins anywhere (`nf_nat_l4proto_unique_tuple`).

use std::ops::RangeInclusive;

use super::{
    BATCH_BEGIN, BATCH_END, Buffer, Family, NLM_F_CREATE, NLM_F_REQUEST, Request, SUBSYSTEM_TABLES,
};

const NEW_RULE: u16 = 6;

/// Request: after the rules there are.
const NLM_F_APPEND: u16 = 0x800;

/// `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`, `NFTA_LIST_ELEM`.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
const ITEM: u16 = 1;

/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;

/// `NFTA_IMMEDIATE_DREG`, `NFTA_IMMEDIATE_DATA`, `NFTA_DATA_VALUE`.
const REGISTER: u16 = 1;
const IMMEDIATE: u16 = 2;
const VALUE: u16 = 1;

/// `NFTA_NAT_*`.
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_FIRST: u16 = 5;
const NAT_LAST: u16 = 6;
const NAT_FLAGS: u16 = 7;

/// `NFT_NAT_SNAT`.
const SNAT: u32 = 0;

/// `NF_NAT_RANGE_PROTO_SPECIFIED | NF_NAT_RANGE_PROTO_OFFSET`.
const SHIFTED: u32 = 1 << 1 | 1 << 5;

/// `NFT_REG32_00` and the next.
const FIRST: u32 = 8;
const LAST: u32 = 9;

/// The transaction that appends the rule to a chain: source ports are moved into `ports`.
pub(crate) fn batch(
    family: Family,
    table: &str,
    chain: &str,
    ports: RangeInclusive<u16>,
) -> Vec<u8> {
    let mut buffer = Buffer::default();
    buffer.control(BATCH_BEGIN, 0);
    let request = Request {
        subsystem: SUBSYSTEM_TABLES,
        kind: NEW_RULE,
        flags: NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND,
        family,
    };
    buffer.message(request, 0, |buffer| {
        buffer.text(TABLE, table);
        buffer.text(CHAIN, chain);
        buffer.nest(EXPRESSIONS, |buffer| {
            load(buffer, FIRST, *ports.start());
            load(buffer, LAST, *ports.end());
            expression(buffer, "nat", |buffer| {
                for (kind, value) in [
                    (NAT_TYPE, SNAT),
                    (NAT_FAMILY, u32::from(family.number())),
                    (NAT_FIRST, FIRST),
                    (NAT_LAST, LAST),
                    (NAT_FLAGS, SHIFTED),
                ] {
                    buffer.attribute(kind, &value.to_be_bytes());
                }
            });
        });
    });
    buffer.control(BATCH_END, 0);
    buffer.bytes
}

/// Puts a port into a register.
fn load(buffer: &mut Buffer, register: u32, port: u16) {
    expression(buffer, "immediate", |buffer| {
        buffer.attribute(REGISTER, &register.to_be_bytes());
        buffer.nest(IMMEDIATE, |buffer| {
            buffer.attribute(VALUE, &port.to_be_bytes())
        });
    });
}

fn expression(buffer: &mut Buffer, name: &str, write: impl FnOnce(&mut Buffer)) {
    buffer.nest(ITEM, |buffer| {
        buffer.text(NAME, name);
        buffer.nest(DATA, write);
    });
}
