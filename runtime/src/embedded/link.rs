//! The few words of netlink that a pod's network needs: the loopback device up, and every address answered by it.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
/// In a new network namespace the loopback device is the first one.
const LOOPBACK_INDEX: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const RTA_OIF: u16 = 4;

/// Brings the loopback device of the caller's network namespace up; 127.0.0.0/8 is local then.
pub(super) fn bring_loopback_up() -> io::Result<()> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    ask(RTM_NEWLINK, 0, &body)
}

/// Lets the loopback device answer for every IPv4 address, so that a connection to any of them reaches a socket in here.
pub(super) fn make_everything_local() -> io::Result<()> {
    // A route to 0.0.0.0/0 of the type "local".
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL];
    body.extend(0u32.to_ne_bytes());
    body.extend(8u16.to_ne_bytes());
    body.extend(RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// Opens a netlink socket of a protocol.
pub(super) fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let opened = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(opened.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(opened)
}

/// Appends a message: head, body.
pub(super) fn put_message(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    out.extend((16 + body.len() as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend(body);
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

/// Reads an answer; an error code in it is an error.
pub(super) fn check_answer(opened: &OwnedFd) -> io::Result<()> {
    let mut answer = [0; 4096];
    let length = recv(opened.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let mut rest = &answer[..length];
    while rest.len() >= 20 {
        let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        let code = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
        if kind == NLMSG_ERROR && code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        rest = rest.get(size.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    Ok(())
}

fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let opened = open(SockProtocol::NetlinkRoute)?;
    let mut message = Vec::new();
    put_message(&mut message, kind, NLM_F_ACK | flags, 1, body);
    send(opened.as_raw_fd(), &message, MsgFlags::empty())?;
    check_answer(&opened)
}
