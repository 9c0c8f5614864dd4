//! The addresses by which the server is reached: those of this machine, and the URLs for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mongoose::listening::{self, Address, Letter};

/// Returns the addresses of this machine in its networks (POSIX `getifaddrs`, which Linux has).
pub fn of_this_machine() -> Vec<IpAddr> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the call writes a list to the place that it is given.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: each entry is one of the list, which lives until it is freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let is_up = entry.ifa_flags & libc::IFF_UP as u32 != 0;
        // SAFETY: an address of an entry is NULL or as long as its family says.
        let address = unsafe { address(entry.ifa_addr) };
        if let Some(address) = address.filter(|address| is_up && is_worth_telling(*address))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    // SAFETY: the list is one of `getifaddrs`, and is not used any more.
    unsafe { libc::freeifaddrs(list) };
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// # Safety
/// `address` is NULL, or points to an address as long as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the caller's promise.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: by the caller's promise; it may lie anywhere.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Whether others may reach the address, and it can be written in a URL: one of a link needs its interface.
fn is_worth_telling(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// Returns the URLs of a list in the form of `listening_port`, with its real ports: first those for this machine.
pub fn urls(list: &[u8], has_tls: bool, machine: &[IpAddr]) -> Vec<String> {
    let Ok(entries) = listening::parse(list) else { return Vec::new() };
    let is_secure = has_tls && !listening::has_letters(&entries);
    let mut urls: Vec<(bool, String)> = Vec::new();
    for entry in &entries {
        let scheme = match entry.letter {
            Letter::Redirect => continue,
            Letter::Tls => "https",
            Letter::None if is_secure => "https",
            Letter::None => "http",
        };
        match &entry.address {
            Address::Local(_) => {
                let name = String::from_utf8_lossy(&entry.shown(None)).into_owned();
                urls.push((false, name));
            }
            Address::Internet(address) => urls.extend(hosts(*address, machine).map(|host| {
                let is_far = !host.is_loopback();
                (is_far, format!("{scheme}://{}/", SocketAddr::new(host, address.port())))
            })),
        }
    }
    urls.sort_by_key(|(is_far, _)| *is_far);
    urls.into_iter().map(|(_, url)| url).collect()
}

/// The addresses that a bound one means.
fn hosts(bound: SocketAddr, machine: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let is_any = bound.ip().is_unspecified();
    let has_both = bound.is_ipv6();
    let others = machine.iter().copied().filter(move |ip| is_any && (has_both || ip.is_ipv4()));
    let first = if is_any { Ipv4Addr::LOCALHOST.into() } else { bound.ip() };
    std::iter::once(first).chain(others)
}

/// Returns the first entry of a list that others than this machine's users reach.
pub fn reached_from_elsewhere(list: &[u8]) -> Option<String> {
    let entries = listening::parse(list).ok()?;
    let far = entries.iter().find(|entry| match &entry.address {
        Address::Internet(address) => !address.ip().to_canonical().is_loopback(),
        Address::Local(_) => false,
    });
    far.map(|entry| String::from_utf8_lossy(&entry.shown(None)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_this_machine_first_and_of_its_networks_behind() {
        let machine = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let table: [(&str, bool, &[&str]); 7] = [
            ("8080", false, &["http://127.0.0.1:8080/", "http://10.0.0.7:8080/"]),
            (
                "[::]:8080",
                true,
                &["https://127.0.0.1:8080/", "https://10.0.0.7:8080/", "https://[fd00::7]:8080/"],
            ),
            ("127.0.0.1:80", false, &["http://127.0.0.1:80/"]),
            ("[::1]:80,10.0.0.9:81", false, &["http://[::1]:80/", "http://10.0.0.9:81/"]),
            ("10.0.0.9:80r,127.0.0.1:443s", true, &["https://127.0.0.1:443/"]),
            ("unix:run.sock:0660", true, &["unix:run.sock:0660"]),
            ("no list", false, &[]),
        ];
        for (list, has_tls, expected) in table {
            assert_eq!(urls(list.as_bytes(), has_tls, &machine), expected, "{list}");
        }
    }

    #[test]
    fn what_only_this_machine_reaches_is_told_from_the_rest() {
        let table = [
            ("127.0.0.1:80,[::1]:80,127.1.2.3:1,unix:x", None),
            ("[::ffff:127.0.0.1]:80", None),
            ("127.0.0.1:80,8080", Some("8080")),
            ("[::]:80", Some("[::]:80")),
            ("10.0.0.7:80", Some("10.0.0.7:80")),
        ];
        for (list, expected) in table {
            assert_eq!(reached_from_elsewhere(list.as_bytes()).as_deref(), expected, "{list}");
        }
    }
}
