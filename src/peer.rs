//! The other end of a connection: a host of the Internet, or a process of this machine.
//!
//! Owns how its address is written, which is the same for handlers, logs and CGI programs. Refuses
//! to know sockets.
#![forbid(unsafe_code)]

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of a client.
///
/// It has an alignment of 2, so that a connection need not spend more memory on it than on its
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16),
    /// The client of a Unix domain socket, which has no address of use.
    Local,
}

impl Peer {
    /// The peer of no connection.
    pub const NOBODY: Peer = Peer::V4(Ipv4Addr::UNSPECIFIED, 0);

    /// Returns the peer of an address that was written by [`Peer::address`], and of a port.
    pub fn from_parts(address: &str, port: u16) -> Option<Peer> {
        match address.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port).into()),
            Err(_) => (address == "unix:").then_some(Peer::Local),
        }
    }

    /// Returns the Internet address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::V4(ip, _) => Some(ip.into()),
            Peer::V6(ip, _) => Some(ip.into()),
            Peer::Local => None,
        }
    }

    /// Returns the port; 0 where there is none.
    pub fn port(self) -> u16 {
        match self {
            Peer::V4(_, port) | Peer::V6(_, port) => port,
            Peer::Local => 0,
        }
    }

    /// Returns the address without its port, as text.
    pub fn address(self) -> Address {
        Address(self)
    }
}

impl From<SocketAddr> for Peer {
    /// A socket for both families reports peers of IPv4 as `::ffff:a.b.c.d`; they become peers of
    /// IPv4.
    fn from(address: SocketAddr) -> Peer {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Peer::V4(ip, address.port()),
            IpAddr::V6(ip) => Peer::V6(ip, address.port()),
        }
    }
}

/// Writes the address and the port, for the error log.
impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Peer::V4(ip, port) => write!(f, "{ip}:{port}"),
            Peer::V6(ip, port) => write!(f, "[{ip}]:{port}"),
            Peer::Local => f.write_str("unix:"),
        }
    }
}

/// The text of an address without its port; see [`Peer::address`].
#[derive(Clone, Copy)]
pub struct Address(Peer);

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::V4(ip, _) => ip.fmt(f),
            Peer::V6(ip, _) => ip.fmt(f),
            Peer::Local => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_in_the_form_of_its_family() {
        let table = [
            ("10.0.0.1:80", "10.0.0.1", "10.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1", "10.0.0.1:80"),
            ("[2001:db8::1]:443", "2001:db8::1", "[2001:db8::1]:443"),
        ];
        for (text, address, whole) in table {
            let peer = Peer::from(text.parse::<SocketAddr>().expect("an address"));
            assert_eq!(peer.address().to_string(), address, "{text}");
            assert_eq!(peer.to_string(), whole, "{text}");
            assert_eq!(Peer::from_parts(address, peer.port()), Some(peer));
        }
        assert_eq!(Peer::Local.address().to_string(), "unix:");
        assert_eq!(Peer::Local.to_string(), "unix:");
        assert_eq!(Peer::from_parts("unix:", 0), Some(Peer::Local));
        assert_eq!(Peer::from_parts("unix", 0), None);
        assert_eq!((Peer::Local.ip(), Peer::Local.port()), (None, 0));
    }
}
