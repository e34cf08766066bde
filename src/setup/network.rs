//! Network devices of a new network namespace: its loopback, and links to the network outside (rtnetlink(7)).
//!
//! The one outside makes a link, its near end in the namespace of the one inside, which waits; the one inside gives it
//! its addresses. A link ends with the namespace; what is left of it outside is removed at the end.
#![forbid(unsafe_code)]

pub mod message;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};

use super::namespaces::{self, Kind};
use super::step::{SetupError, State, Step, Steps};
use crate::sys::Errno;
use crate::sys::netlink::Socket;
use message::{Message, Refusal};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// How many leading bits are the network's.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What connects the namespace to the outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// A pair of devices, one on each side (veth(4)).
    Veth {
        /// The one outside.
        host: String,
        /// Its address.
        host_address: Option<Cidr>,
        /// The bridge that it joins.
        bridge: Option<String>,
    },
    /// A device with a hardware address of its own on a parent of the host's.
    Macvlan {
        /// The parent.
        parent: String,
        /// Who may talk to whom: `IFLA_MACVLAN_MODE`.
        mode: u32,
    },
    /// A device with the parent's hardware address and its own IP addresses.
    Ipvlan {
        /// The parent.
        parent: String,
        /// Where routing happens: `IFLA_IPVLAN_MODE`.
        mode: u16,
    },
}

impl Way {
    /// The kernel's name for it, and ours.
    fn kind(&self) -> &'static str {
        match self {
            Self::Veth { .. } => "veth",
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }
}

/// One link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The device's name inside.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
    /// The default routes, by these neighbours.
    pub gateways: Vec<IpAddr>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// What it is.
    pub way: Way,
}

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--veth`, `--macvlan`, `--ipvlan`.
    pub links: Vec<Link>,
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self, namespaces: &namespaces::Wanted) -> Result<(), String> {
        if let Some(link) = self.links.first()
            && !namespaces.unshare.has(Kind::Net)
        {
            return Err(format!("--{} needs a network namespace of its own; add --unshare net", link.way.kind()));
        }
        for (index, link) in self.links.iter().enumerate() {
            if self.links.iter().take(index).any(|earlier| earlier.name == link.name) {
                return Err(format!("two links are called name={}", link.name));
            }
        }
        Ok(())
    }

    /// Whether something has to be done outside the new namespace.
    pub fn needs_outside(&self) -> bool {
        !self.links.is_empty()
    }

    /// Outside, while the process inside waits: links are made and moved in.
    pub fn between(&self) -> Steps<'_> {
        self.links.iter().map(|link| Box::new(Make { link, host: Cell::new(None) }) as Box<dyn Step>).collect()
    }

    /// In the new namespace: links are configured.
    pub fn inside<'a>(&'a self, namespaces: &'a namespaces::Wanted) -> Steps<'a> {
        let mut steps = Steps::new();
        if namespaces.unshare.has(Kind::Net) {
            steps.push(Box::new(Loopback));
        }
        for link in &self.links {
            steps.push(Box::new(Configure(link)));
        }
        steps
    }
}

fn open() -> Result<Socket, SetupError> {
    Socket::open().map_err(|errno| {
        SetupError::call("socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)", errno, "a seccomp filter may forbid it")
    })
}

/// How a request is told, and what to do about its refusal.
fn refused(call: String) -> impl FnOnce(Refusal) -> SetupError {
    move |Refusal { errno, words }| {
        let advice = match errno {
            Errno::EPERM => "not permitted; needs CAP_NET_ADMIN in the network namespace where the link begins",
            Errno::EEXIST => "there is such a thing already; take another name or address",
            Errno::EOPNOTSUPP => "this kernel has no such device (a module may be missing)",
            Errno::EBUSY => "the parent is taken, by a bridge or by another kind of link",
            Errno::ENETUNREACH | Errno::EHOSTUNREACH => "the gateway is in no network of this link",
            Errno::EINVAL => "the kernel takes no such value",
            Errno::ENODEV => "the device is gone",
            _ => "the kernel refused",
        };
        match words {
            Some(words) => SetupError::call(call, errno, format!("{words}; {advice}")),
            None => SetupError::call(call, errno, advice),
        }
    }
}

/// A device's index.
fn index(socket: &Socket, name: &str) -> Result<u32, SetupError> {
    socket.index_of(name).map_err(|errno| {
        let advice = match errno {
            Errno::ENODEV => "there is no such device here; `ip link` lists them",
            _ => "a seccomp filter may forbid it",
        };
        SetupError::call(format!("ioctl(SIOCGIFINDEX, {name:?})"), errno, advice)
    })
}

/// Starts a device, and gives it its addresses.
fn bring_up(socket: &Socket, name: &str, index: u32, addresses: &[Cidr]) -> Result<(), SetupError> {
    for cidr in addresses {
        let call = format!("RTM_NEWADDR({name}, {cidr})");
        Message::new_address(index, cidr.address, cidr.prefix).send(socket).map_err(refused(call))?;
    }
    Message::change_link(index, true).send(socket).map_err(refused(format!("RTM_NEWLINK({name}, IFF_UP)")))
}

/// Makes a link, with one end in the namespace of the one inside.
struct Make<'a> {
    link: &'a Link,
    /// The device that is left outside, once it is made; 0: its number is not known yet.
    host: Cell<Option<u32>>,
}

impl Make<'_> {
    /// The request that makes it.
    fn request(&self, socket: &Socket, inside: i32) -> Result<Message, SetupError> {
        let link = self.link;
        let mut message = Message::new_link();
        let near_end = |message: &mut Message| {
            message.text(libc::IFLA_IFNAME, &link.name);
            message.attribute(libc::IFLA_NET_NS_PID, &inside.to_ne_bytes());
            if let Some(mtu) = link.mtu {
                message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
            }
        };
        let parent = match &link.way {
            Way::Veth { host, .. } => {
                message.text(libc::IFLA_IFNAME, host);
                if let Some(mtu) = link.mtu {
                    message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
                }
                None
            }
            Way::Macvlan { parent, .. } | Way::Ipvlan { parent, .. } => Some(index(socket, parent)?),
        };
        if let Some(parent) = parent {
            near_end(&mut message);
            message.attribute(libc::IFLA_LINK, &parent.to_ne_bytes());
        }
        message.nest(libc::IFLA_LINKINFO, |message| {
            message.text(libc::IFLA_INFO_KIND, link.way.kind());
            message.nest(libc::IFLA_INFO_DATA, |message| match &link.way {
                Way::Veth { .. } => message.nest(VETH_PEER, |message| {
                    message.link(0, 0);
                    near_end(message);
                }),
                Way::Macvlan { mode, .. } => message.attribute(MACVLAN_MODE, &mode.to_ne_bytes()),
                Way::Ipvlan { mode, .. } => message.attribute(IPVLAN_MODE, &mode.to_ne_bytes()),
            });
        });
        Ok(message)
    }
}

/// `VETH_INFO_PEER`, `IFLA_MACVLAN_MODE`, `IFLA_IPVLAN_MODE`.
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
const IPVLAN_MODE: u16 = 1;

impl Step for Make<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(inside) = state.inside else { return Ok(()) };
        let socket = open()?;
        let link = self.link;
        let call = match &link.way {
            Way::Veth { host, .. } => format!("RTM_NEWLINK(veth, {host}, {})", link.name),
            Way::Macvlan { parent, .. } | Way::Ipvlan { parent, .. } => {
                format!("RTM_NEWLINK({}, {parent}, {})", link.way.kind(), link.name)
            }
        };
        self.request(&socket, inside)?.send(&socket).map_err(refused(call))?;
        if let Way::Veth { host, host_address, bridge } = &link.way {
            self.host.set(Some(0));
            let own = index(&socket, host)?;
            self.host.set(Some(own));
            if let Some(bridge) = bridge {
                let mut message = Message::change_link(own, false);
                message.attribute(libc::IFLA_MASTER, &index(&socket, bridge)?.to_ne_bytes());
                message.send(&socket).map_err(refused(format!("RTM_NEWLINK({host}, master {bridge})")))?;
            }
            bring_up(&socket, host, own, host_address.as_slice())?;
        } else {
            state.network = File::open(format!("/proc/{inside}/ns/net")).ok().map(OwnedFd::from);
        }
        Ok(())
    }

    /// The kernel removes links by itself, but only some time after the namespace has ended: until then they answer for
    /// their addresses. Both ends of a pair go with one.
    fn undo(&self, state: &mut State) {
        let (socket, index, name) = match (&self.link.way, self.host.take(), &state.network) {
            (Way::Veth { host, .. }, Some(own), _) => (Socket::open().ok(), own, host),
            (Way::Macvlan { .. } | Way::Ipvlan { .. }, _, Some(namespace)) => (open_in(namespace), 0, &self.link.name),
            _ => return,
        };
        if let Some(socket) = socket {
            let _ = Message::delete_link(index, name).send(&socket);
        }
    }
}

/// A socket into another network namespace: it stays where it was opened.
fn open_in(namespace: &OwnedFd) -> Option<Socket> {
    let own = File::open("/proc/self/ns/net").ok()?;
    setns(namespace, CloneFlags::CLONE_NEWNET).ok()?;
    let socket = Socket::open();
    setns(own, CloneFlags::CLONE_NEWNET).ok()?;
    socket.ok()
}

impl fmt::Display for Make<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} called {} inside, ", self.link.way.kind(), self.link.name)?;
        match &self.link.way {
            Way::Veth { host, host_address, bridge } => {
                write!(f, "{host} out here")?;
                if let Some(address) = host_address {
                    write!(f, " with {address}")?;
                }
                if let Some(bridge) = bridge {
                    write!(f, " in the bridge {bridge}")?;
                }
                Ok(())
            }
            Way::Macvlan { parent, .. } | Way::Ipvlan { parent, .. } => write!(f, "on {parent}"),
        }
    }
}

/// Starts the loopback device: a new namespace has it, and it is down.
struct Loopback;

impl Step for Loopback {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        let socket = open()?;
        bring_up(&socket, "lo", index(&socket, "lo")?, &[])
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lo is up")
    }
}

/// Gives a link that was moved in its addresses and routes.
struct Configure<'a>(&'a Link);

impl Step for Configure<'_> {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        let (socket, name) = (open()?, &self.0.name);
        let own = index(&socket, name)?;
        bring_up(&socket, name, own, &self.0.addresses)?;
        for gateway in &self.0.gateways {
            let call = format!("RTM_NEWROUTE(default, {gateway}, {name})");
            Message::new_default_route(own, *gateway).send(&socket).map_err(refused(call))?;
        }
        Ok(())
    }
}

impl fmt::Display for Configure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is up", self.0.name)?;
        for address in &self.0.addresses {
            write!(f, ", {address}")?;
        }
        for gateway in &self.0.gateways {
            write!(f, ", all else by {gateway}")?;
        }
        Ok(())
    }
}
