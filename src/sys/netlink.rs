//! A socket to the kernel's routing tables (netlink(7), rtnetlink(7)).

use std::ffi::c_char;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Errno;

/// Asks the kernel about network devices, addresses and routes, and tells it to change them.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// `socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)`: speaks of the network namespace that this process is in now.
    pub fn open() -> Result<Self, Errno> {
        // SAFETY: passes integers only.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        let fd = Errno::result(fd)?;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // Refusals in words (Linux 4.12), and without a copy of what was asked. Without them it is the number alone.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the option's value is a live int, and its size is passed along.
            unsafe { libc::setsockopt(fd, libc::SOL_NETLINK, option, (&raw const on).cast(), 4) };
        }
        Ok(socket)
    }

    /// `ioctl(SIOCGIFINDEX)` (netdevice(7)): a device's number. ENODEV: there is none of this name.
    pub fn index_of(&self, device: &str) -> Result<u32, Errno> {
        // SAFETY: zeros are a valid ifreq: a name, and a union of integers.
        let mut request: libc::ifreq = unsafe { zeroed() };
        // A byte of the name's room stays 0.
        if device.len() >= request.ifr_name.len() {
            return Err(Errno::ENODEV);
        }
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        // SAFETY: the request is live, and of the type that this number stands for.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) })?;
        // SAFETY: the call has filled this field; all bit patterns are valid.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex }.unsigned_abs())
    }

    /// `send(2)` of one request, and `recv(2)` of its answer; returns the answer's length.
    pub fn ask(&self, request: &[u8], answer: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the bytes are live and only read. A netlink socket that is not bound sends to the kernel.
        Errno::result(unsafe { libc::send(self.0.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) })?;
        // SAFETY: the buffer is live, and its size is passed along.
        let count = unsafe { libc::recv(self.0.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        Errno::result(count).map(isize::unsigned_abs)
    }
}
