//! Addresses of networks and devices, and uuid, in both formats.
//!
//! Layout of inet: `network_send` in
//! <https://github.com/postgres/postgres/blob/REL_17_0/src/backend/utils/adt/network.c>.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use guard_policy::vocabulary::DataKind;

use super::{
    Base, Detector, Format, Rule,
    engine::{Engine, Job, Outcome},
    shape::network_of,
};

/// What `inet` calls IPv4 and IPv6 in binary.
const FAMILIES: [u8; 2] = [2, 3];

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn address(
        &mut self,
        base: &Base,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let by_type = match base {
            Base::Inet | Base::Cidr => Some(DataKind::IpAddress),
            Base::Macaddr | Base::Macaddr8 => Some(DataKind::Device),
            _ => None,
        };
        // The type itself says what it holds.
        let (kind, rule) = match job {
            Job::Mask(kind, rule) => (kind, rule),
            Job::Scan(_) | Job::Pass => {
                let found = by_type.and_then(|kind| Some((kind, self.rules.rule(kind)?)));
                match found {
                    Some(found) if matches!(job, Job::Scan(_)) && !is_network(base, format, value) => found,
                    _ => return Some(Outcome::Same),
                }
            }
        };
        self.count(kind);
        if matches!(rule, Rule::Null) {
            return Some(Outcome::Null);
        }
        match base {
            Base::Inet | Base::Cidr => inet(matches!(base, Base::Cidr), format, rule, value, out)?,
            Base::Macaddr => device::<6>(format, rule, value, out)?,
            Base::Macaddr8 => device::<8>(format, rule, value, out)?,
            _ => uuid(format, rule, value, out)?,
        }
        Some(Outcome::Written)
    }
}

/// Whether an address is nobody's own: a network, or this host as it calls itself.
fn is_network(base: &Base, format: Format, value: &[u8]) -> bool {
    let network = match (base, format) {
        (Base::Inet | Base::Cidr, Format::Text) => Network::text(value),
        (Base::Inet | Base::Cidr, Format::Binary) => Network::binary(value),
        _ => None,
    };
    network.is_some_and(|Network { address, bits, .. }| {
        (bits < longest(address) && cut(address, bits) == address)
            || address.is_loopback()
            || address.is_unspecified()
    })
}

/// An address and the bits of its network.
#[derive(Clone, Copy)]
struct Network {
    address: IpAddr,
    bits: u8,
    shown: bool,
}

impl Network {
    fn text(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        Some(Self { address, bits: bits.unwrap_or(longest(address)), shown: bits.is_some() })
    }

    fn binary(value: &[u8]) -> Option<Self> {
        let (&[family, bits, _is_cidr, count], address) = value.split_first_chunk()?;
        let address: IpAddr = match (family, count) {
            (2, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
            (3, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
            _ => return None,
        };
        (bits <= longest(address)).then_some(Self { address, bits, shown: true })
    }
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn inet(cidr: bool, format: Format, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let network = match format {
        Format::Text => Network::text(value)?,
        Format::Binary => Network::binary(value)?,
    };
    let zero: IpAddr = match network.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut bits = longest(zero);
    let address = match rule {
        Rule::Full | Rule::Null => zero,
        Rule::Partial => {
            bits = network.bits;
            network_of(network.address)
        }
        Rule::Fixed(text) => text.parse().unwrap_or(zero),
        Rule::Hash(key) => {
            let digest = key.digest(network.address.to_string().as_bytes());
            match network.address {
                IpAddr::V4(_) => Ipv4Addr::from(*digest.first_chunk()?).into(),
                IpAddr::V6(_) => Ipv6Addr::from(*digest.first_chunk()?).into(),
            }
        }
    };
    if matches!(rule, Rule::Fixed(_)) {
        bits = longest(address);
    }
    // A cidr has no bits set beyond its network.
    let address = if cidr { cut(address, bits) } else { address };
    match format {
        Format::Text => {
            write!(out, "{address}").ok()?;
            if cidr || network.shown && bits < longest(address) {
                write!(out, "/{bits}").ok()?;
            }
        }
        Format::Binary => {
            let head =
                |family, bytes: &[u8]| [&[family, bits, u8::from(cidr), bytes.len() as u8], bytes].concat();
            out.extend(match address {
                IpAddr::V4(address) => head(FAMILIES[0], &address.octets()),
                IpAddr::V6(address) => head(FAMILIES[1], &address.octets()),
            });
        }
    }
    Some(())
}

fn cut(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

/// macaddr and macaddr8: `partial` keeps who made it.
fn device<const N: usize>(format: Format, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; N];
    match format {
        Format::Binary => bytes.copy_from_slice(<&[u8; N]>::try_from(value).ok()?),
        Format::Text => read_device(value, &mut bytes)?,
    }
    match rule {
        Rule::Full | Rule::Null => bytes = [0; N],
        Rule::Partial => bytes[3..].fill(0),
        Rule::Hash(key) => bytes = *key.digest(&bytes).first_chunk()?,
        Rule::Fixed(text) => {
            if read_device(text.as_bytes(), &mut bytes).is_none() {
                bytes = [0; N];
            }
        }
    }
    match format {
        Format::Binary => out.extend_from_slice(&bytes),
        Format::Text => {
            for (at, byte) in bytes.iter().enumerate() {
                if at > 0 {
                    out.push(b':');
                }
                write!(out, "{byte:02x}").ok()?;
            }
        }
    }
    Some(())
}

fn read_device(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 3 - 1 {
        return None;
    }
    text.chunks(3).zip(bytes).try_for_each(|(digits, byte)| {
        *byte = u8::from_str_radix(std::str::from_utf8(&digits[..2]).ok()?, 16).ok()?;
        Some(())
    })
}

fn uuid(format: Format, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let uuid = match format {
        Format::Text => uuid::Uuid::try_parse_ascii(value).ok()?,
        Format::Binary => uuid::Uuid::from_slice(value).ok()?,
    };
    let masked = match rule {
        Rule::Full | Rule::Null => uuid::Uuid::nil(),
        Rule::Partial => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&uuid.as_bytes()[..4]);
            uuid::Uuid::from_bytes(bytes)
        }
        // Version 8: made by a rule of one's own.
        Rule::Hash(key) => uuid::Builder::from_custom_bytes(
            *key.digest(uuid.hyphenated().to_string().as_bytes()).first_chunk()?,
        )
        .into_uuid(),
        Rule::Fixed(text) => text.parse().unwrap_or(uuid::Uuid::nil()),
    };
    match format {
        Format::Text => write!(out, "{}", masked.hyphenated()).ok()?,
        Format::Binary => out.extend_from_slice(masked.as_bytes()),
    }
    Some(())
}
