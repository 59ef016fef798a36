//! The few words of nftables that let connections out of a pod's network: what a program in it sends anywhere else is led to one
//! port inside, whose listener learns where it was meant to go. No program such as `nft` is needed.

use super::link::{check_answer, open, put_message};
use nix::sys::socket::{MsgFlags, SockProtocol, send};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const FAMILY_IPV4: u8 = 2;
const TABLE: &str = "kubewright";
const CHAIN: &str = "output";
const HOOK_OUTPUT: u32 = 3;
const PRIORITY_DNAT: u32 = (-100i32).cast_unsigned();
const REGISTER: u32 = 1;
const META_L4PROTO: u32 = 16;
const PROTOCOL_TCP: u8 = 6;
const NETWORK_HEADER: u32 = 1;
const OFFSET_DESTINATION: u32 = 16;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// Leads every outgoing TCP connection of the caller's network namespace to `port` at 127.0.0.1, but those to `own` and to 127.0.0.1.
pub(super) fn outgoing_to(port: u16, own: Ipv4Addr) -> io::Result<()> {
    let mut batch = Vec::new();
    put_message(&mut batch, BATCH_BEGIN, 0, 0, &[0, 0, 0, 10]);
    let mut table = head();
    put(&mut table, 1, &text(TABLE));
    put_message(&mut batch, NEW_TABLE, NLM_F_CREATE | NLM_F_ACK, 1, &table);
    let mut chain = head();
    put(&mut chain, 1, &text(TABLE));
    put(&mut chain, 3, &text(CHAIN));
    let mut hook = Vec::new();
    put(&mut hook, 1, &HOOK_OUTPUT.to_be_bytes());
    put(&mut hook, 2, &PRIORITY_DNAT.to_be_bytes());
    put(&mut chain, 4 | NESTED, &hook);
    put(&mut chain, 7, &text("nat"));
    put_message(&mut batch, NEW_CHAIN, NLM_F_CREATE | NLM_F_ACK, 2, &chain);
    let mut rule = head();
    put(&mut rule, 1, &text(TABLE));
    put(&mut rule, 2, &text(CHAIN));
    put(&mut rule, 4 | NESTED, &expressions(port, own));
    put_message(&mut batch, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, 3, &rule);
    put_message(&mut batch, BATCH_END, 0, 4, &[0, 0, 0, 10]);
    let opened = open(SockProtocol::NetlinkNetFilter)?;
    send(opened.as_raw_fd(), &batch, MsgFlags::empty())?;
    // One answer for each message that asks for one; an error comes in the place of them.
    (0..3).try_for_each(|_| check_answer(&opened))
}

/// `meta l4proto tcp ip daddr != 127.0.0.1 ip daddr != <own> redirect to :<port>`.
fn expressions(port: u16, own: Ipv4Addr) -> Vec<u8> {
    let mut all = Vec::new();
    expression(&mut all, "meta", &[(1, &REGISTER.to_be_bytes()), (2, &META_L4PROTO.to_be_bytes())]);
    compare(&mut all, EQUAL, &[PROTOCOL_TCP]);
    let load = [
        (1, REGISTER.to_be_bytes()),
        (2, NETWORK_HEADER.to_be_bytes()),
        (3, OFFSET_DESTINATION.to_be_bytes()),
        (4, 4u32.to_be_bytes()),
    ];
    let load: Vec<(u16, &[u8])> = load.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
    expression(&mut all, "payload", &load);
    compare(&mut all, UNEQUAL, &Ipv4Addr::LOCALHOST.octets());
    compare(&mut all, UNEQUAL, &own.octets());
    expression(
        &mut all,
        "immediate",
        &[(1, &REGISTER.to_be_bytes()), (2 | NESTED, &data(&port.to_be_bytes()))],
    );
    expression(&mut all, "redir", &[(1, &REGISTER.to_be_bytes())]);
    all
}

fn compare(all: &mut Vec<u8>, how: u32, with: &[u8]) {
    let (register, how) = (REGISTER.to_be_bytes(), how.to_be_bytes());
    expression(all, "cmp", &[(1, &register), (2, &how), (3 | NESTED, &data(with))]);
}

fn expression(all: &mut Vec<u8>, name: &str, parts: &[(u16, &[u8])]) {
    let mut inner = Vec::new();
    parts.iter().for_each(|(kind, value)| put(&mut inner, *kind, value));
    let mut element = Vec::new();
    put(&mut element, 1, &text(name));
    put(&mut element, 2 | NESTED, &inner);
    put(all, 1 | NESTED, &element);
}

fn data(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, value);
    out
}

fn head() -> Vec<u8> {
    vec![FAMILY_IPV4, 0, 0, 0]
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Appends an attribute: length, kind, value, padding.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend((4 + value.len() as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}
