//! Requests to rtnetlink(7), byte for byte: a header, a fixed part, and attributes that may nest.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::sys::Errno;
use crate::sys::netlink::Socket;

/// `struct nlmsghdr`: length, kind, flags, sequence number, sender.
const HEADER: usize = 16;
/// An attribute's own header: length and kind.
const ATTRIBUTE_HEADER: usize = 4;
/// More than any answer takes: an acknowledgement with a sentence in it.
const ANSWER_ROOM: usize = 4096;

/// A request being written.
pub struct Message(Vec<u8>);

impl Message {
    /// A request of this kind (`RTM_*`); every one is acknowledged.
    fn new(kind: u16, flags: i32) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0);
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    /// Makes a new device.
    pub fn new_link() -> Self {
        let mut message = Self::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        message.link(0, 0);
        message
    }

    /// Changes the device with this index; `up` starts it.
    pub fn change_link(index: u32, up: bool) -> Self {
        let mut message = Self::new(libc::RTM_NEWLINK, 0);
        message.link(index, if up { libc::IFF_UP.unsigned_abs() } else { 0 });
        message
    }

    /// Removes the device with this index or, if that is 0, of this name.
    pub fn delete_link(index: u32, name: &str) -> Self {
        let mut message = Self::new(libc::RTM_DELLINK, 0);
        message.link(index, 0);
        message.text(libc::IFLA_IFNAME, name);
        message
    }

    /// Gives the device an address.
    pub fn new_address(index: u32, address: IpAddr, prefix: u8) -> Self {
        let mut message = Self::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        let (family, bytes) = raw(address);
        // Nobody else has it here: without a search for doubles it can be used at once.
        let flags = if address.is_ipv6() { NO_DUPLICATE_DETECTION } else { 0 };
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        message.0.extend([family, prefix, flags, 0]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &bytes);
        message.attribute(libc::IFA_ADDRESS, &bytes);
        message
    }

    /// Routes everything else by this neighbour on the device.
    pub fn new_default_route(index: u32, gateway: IpAddr) -> Self {
        let mut message = Self::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        let (family, bytes) = raw(gateway);
        // struct rtmsg: family, two prefix lengths, tos, table, protocol, scope, type, flags.
        message.0.extend([
            family,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
        ]);
        message.0.extend([0; 4]);
        message.attribute(libc::RTA_GATEWAY, &bytes);
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        message
    }

    /// `struct ifinfomsg`: family, hardware type, index, flags, and which flags change.
    pub fn link(&mut self, index: u32, flags: u32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    /// An attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |message| message.0.extend(value));
    }

    /// An attribute whose value is a C string.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |message| {
            message.0.extend(value.as_bytes());
            message.0.push(0);
        });
    }

    /// An attribute whose value `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        debug_assert_eq!(self.0.len() - start, ATTRIBUTE_HEADER);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = self.0.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it, and reads what the kernel says to it.
    pub fn send(mut self, socket: &Socket) -> Result<(), Refusal> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        let mut answer = [0; ANSWER_ROOM];
        let count = socket.ask(&self.0, &mut answer).map_err(|errno| Refusal { errno, words: None })?;
        outcome(answer.get(..count).unwrap_or(&[]))
    }
}

/// `IFA_F_NODAD`.
const NO_DUPLICATE_DETECTION: u8 = 0x02;

/// Why the kernel did not do it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error.
    pub errno: Errno,
    /// The kernel's own words, if it has any.
    pub words: Option<String>,
}

/// Reads an acknowledgement: `struct nlmsgerr`, and behind it attributes, one of them a sentence.
fn outcome(answer: &[u8]) -> Result<(), Refusal> {
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    };
    // Linux answers with a negative errno, or 0; what is cut short is no answer.
    let error = number(HEADER).unwrap_or(-libc::EIO);
    if error == 0 {
        return Ok(());
    }
    // The request's header is repeated, its rest is not (NETLINK_CAP_ACK).
    let mut at = HEADER + 4 + HEADER;
    let mut words = None;
    while let Some(header) = answer.get(at..at + ATTRIBUTE_HEADER) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let Some(value) = answer.get(at + ATTRIBUTE_HEADER..at + length.max(ATTRIBUTE_HEADER)) else { break };
        if kind == ERROR_IN_WORDS {
            words = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        at += length.max(ATTRIBUTE_HEADER).next_multiple_of(4);
    }
    Err(Refusal { errno: Errno::from_raw(-error), words })
}

/// `NLMSGERR_ATTR_MSG`.
const ERROR_IN_WORDS: u16 = 1;

/// An address family and the address's bytes.
fn raw(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (u8::try_from(libc::AF_INET).unwrap_or(0), address.octets().to_vec()),
        IpAddr::V6(address) => (u8::try_from(libc::AF_INET6).unwrap_or(0), address.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n5_attributes_are_aligned_and_nest() {
        let mut message = Message::new_link();
        let start = message.0.len();
        message.nest(18, |message| message.text(1, "veth"));
        let wanted = [16, 0, 18, 0, 9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0];
        assert_eq!(message.0.get(start..), Some(&wanted[..]));
        assert_eq!(start, HEADER + 16);
    }

    #[test]
    fn n5_an_answer_is_an_errno_and_perhaps_words() {
        let mut answer = vec![0; HEADER];
        answer.extend((-17_i32).to_ne_bytes());
        assert_eq!(outcome(&answer), Err(Refusal { errno: Errno::EEXIST, words: None }));
        answer.extend([0; HEADER]);
        answer.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
        assert_eq!(outcome(&answer), Err(Refusal { errno: Errno::EEXIST, words: Some("no!".into()) }));
        assert_eq!(outcome(&[0; HEADER + 4]), Ok(()));
        assert_eq!(outcome(&[]).map_err(|refusal| refusal.errno), Err(Errno::EIO));
        // Lengths that lie end the reading.
        answer[HEADER + 4 + HEADER] = 255;
        assert_eq!(outcome(&answer), Err(Refusal { errno: Errno::EEXIST, words: None }));
    }
}
