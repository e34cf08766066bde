//! The options of the network.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::net::IpAddr;

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::network::{Cidr, Link, Way};

const NETWORK: &str = "Network (net)";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row(
        "veth",
        None,
        "KEY=VALUE,...",
        NETWORK,
        "a pair of devices: name=eth0,host=IF,addr=CIDR[,gw=IP]\n[,host-addr=CIDR][,bridge=IF][,mtu=N]; addr and gw repeat",
        |options, value| add(options, value, veth),
    ),
    row(
        "macvlan",
        None,
        "KEY=VALUE,...",
        NETWORK,
        "name=eth0,parent=IF,addr=CIDR[,gw=IP][,mtu=N]\n[,mode=bridge|private|vepa|passthru]",
        |options, value| add(options, value, macvlan),
    ),
    row(
        "ipvlan",
        None,
        "KEY=VALUE,...",
        NETWORK,
        "name=eth0,parent=IF,addr=CIDR[,gw=IP][,mtu=N][,mode=l2|l3|l3s]",
        |options, value| add(options, value, ipvlan),
    ),
];

/// Pairs of a key and a value, each taken by who knows it.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    fn of(value: &'a OsStr) -> Result<Self, Invalid> {
        let pairs = text(value)?.split(',').map(|pair| pair.split_once('='));
        pairs.collect::<Option<_>>().map(Self).ok_or_else(|| "write KEY=VALUE,KEY=VALUE".into())
    }

    /// All values of this key.
    fn all(&mut self, key: &str) -> Vec<&'a str> {
        let (these, others) = self.0.iter().partition(|(name, _)| *name == key);
        self.0 = others;
        let these: Vec<_> = these;
        these.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a key that may be there once.
    fn one(&mut self, key: &str) -> Result<Option<&'a str>, Invalid> {
        match self.all(key)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(format!("{key}= is given twice")),
        }
    }

    /// The value of a key that must be there.
    fn needed(&mut self, key: &str) -> Result<&'a str, Invalid> {
        self.one(key)?.ok_or_else(|| format!("{key}= is missing"))
    }
}

/// Notes a link, all of whose keys are known.
fn add(options: &mut Options, value: &OsStr, way: fn(&mut Pairs<'_>) -> Result<Way, Invalid>) -> Result<(), Invalid> {
    let mut pairs = Pairs::of(value)?;
    let link = Link {
        name: device(pairs.one("name")?.unwrap_or("eth0"))?,
        addresses: pairs.all("addr").into_iter().map(cidr).collect::<Result<_, _>>()?,
        gateways: pairs.all("gw").into_iter().map(address).collect::<Result<_, _>>()?,
        mtu: match pairs.one("mtu")? {
            None => None,
            Some(number) => Some(number.parse().map_err(|_| format!("mtu={number}: not a number"))?),
        },
        way: way(&mut pairs)?,
    };
    if let Some((key, _)) = pairs.0.first() {
        return Err(format!("{key}= is no key of it; --help lists them"));
    }
    if let Some(gateway) = link.gateways.iter().find(|gateway| link.addresses.iter().all(|own| !same(own, gateway))) {
        return Err(format!("gw={gateway} needs an addr= of the same family"));
    }
    options.setup.network.links.push(link);
    Ok(())
}

fn same(own: &Cidr, gateway: &IpAddr) -> bool {
    own.address.is_ipv4() == gateway.is_ipv4()
}

fn veth(pairs: &mut Pairs<'_>) -> Result<Way, Invalid> {
    Ok(Way::Veth {
        host: device(pairs.needed("host")?)?,
        host_address: pairs.one("host-addr")?.map(cidr).transpose()?,
        bridge: pairs.one("bridge")?.map(device).transpose()?,
    })
}

fn macvlan(pairs: &mut Pairs<'_>) -> Result<Way, Invalid> {
    // enum macvlan_mode (linux/if_link.h).
    let mode = match pairs.one("mode")?.unwrap_or("bridge") {
        "private" => 1,
        "vepa" => 2,
        "bridge" => 4,
        "passthru" => 8,
        other => return Err(format!("mode={other}: use bridge, private, vepa or passthru")),
    };
    Ok(Way::Macvlan { parent: device(pairs.needed("parent")?)?, mode })
}

fn ipvlan(pairs: &mut Pairs<'_>) -> Result<Way, Invalid> {
    // enum ipvlan_mode (linux/if_link.h).
    let mode = match pairs.one("mode")?.unwrap_or("l2") {
        "l2" => 0,
        "l3" => 1,
        "l3s" => 2,
        other => return Err(format!("mode={other}: use l2, l3 or l3s")),
    };
    Ok(Way::Ipvlan { parent: device(pairs.needed("parent")?)?, mode })
}

/// A device's name, as the kernel takes it (`dev_valid_name`): shorter than `IFNAMSIZ`, without blanks, `/` and `:`.
fn device(name: &str) -> Result<String, Invalid> {
    let bad = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | ':' | '%' | '\0');
    if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") || name.contains(bad) {
        return Err(format!("{name:?} is no name of a device: 1 to 15 bytes, without blank, / and :"));
    }
    Ok(name.to_owned())
}

fn address(value: &str) -> Result<IpAddr, Invalid> {
    value.parse().map_err(|_| format!("{value:?} is no IP address"))
}

fn cidr(value: &str) -> Result<Cidr, Invalid> {
    let wrong = || format!("{value:?} is no address with a prefix, such as 10.0.0.2/24");
    let (host, prefix) = value.split_once('/').ok_or_else(wrong)?;
    let address = address(host)?;
    let prefix = prefix.parse().map_err(|_| wrong())?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return Err(wrong());
    }
    Ok(Cidr { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Personality;

    fn ask(value: &str, way: fn(&mut Pairs<'_>) -> Result<Way, Invalid>) -> Result<Link, Invalid> {
        let mut options = Personality::Sexton.defaults(&|_| None);
        add(&mut options, OsStr::new(value), way)?;
        options.setup.network.links.pop().ok_or_else(String::new)
    }

    #[test]
    fn n5_a_link_has_all_it_was_given() {
        let link =
            ask("host=v0,addr=10.0.0.2/24,gw=10.0.0.1,addr=fd00::2/64,gw=fd00::1,mtu=1400,bridge=br0", veth).unwrap();
        assert_eq!((link.name.as_str(), link.mtu), ("eth0", Some(1400)));
        let addresses: Vec<_> = link.addresses.iter().map(Cidr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.2/24", "fd00::2/64"]);
        assert_eq!(link.way, Way::Veth { host: "v0".into(), host_address: None, bridge: Some("br0".into()) });
        let link = ask("parent=eth0,name=x,mode=l3s", ipvlan).unwrap();
        assert_eq!(link.way, Way::Ipvlan { parent: "eth0".into(), mode: 2 });
        let link = ask("parent=eth0", macvlan).unwrap();
        assert_eq!(link.way, Way::Macvlan { parent: "eth0".into(), mode: 4 });
    }

    #[test]
    fn n5_every_wrong_value_is_refused() {
        for value in [
            "",
            "eth0",
            "name=eth0",
            "host=v0,host=v1",
            "host=",
            "host=a/b",
            "host=a name",
            "host=sixteen_letters_",
            "host=v0,addr=10.0.0.2",
            "host=v0,addr=10.0.0.2/33",
            "host=v0,addr=x/24",
            "host=v0,addr=fd00::2/129",
            "host=v0,gw=10.0.0.1",
            "host=v0,addr=10.0.0.2/24,gw=fd00::1",
            "host=v0,mtu=big",
            "host=v0,colour=red",
            "host=v0,mode=bridge",
        ] {
            assert!(ask(value, veth).is_err(), "{value:?}");
        }
        assert!(ask("parent=eth0,mode=l4", ipvlan).is_err());
        assert!(ask("mode=bridge", macvlan).is_err());
        assert!(ask("parent=eth0,mode=l2", macvlan).is_err());
    }
}
