//! Where a server listens: the option `listening_port`, and sockets that the program hands over.
//!
//! Owns that a list of addresses is taken whole or not at all. Refuses to know the form of the list,
//! which is in `listening`, and how a socket is bound, which is in `listener`.

use std::ffi::{CStr, OsStr};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;

use super::Server;
use super::listener::Listener;
use crate::connection::Manner;
use crate::listening::{self, Address, Entry, Letter};
use crate::log::shown;
use crate::options::OptionId;
use crate::tls::port::Speech;

/// The error for an address that cannot be bound.
const CANNOT_BIND: &CStr = c"Cannot bind to port";
const NO_TLS: &CStr = c"Invalid listening port: this library is built without TLS";

/// The sockets of a server while they are exchanged for those of another list.
struct Exchange {
    /// The sockets so far. A place is empty once its socket is in the new list, or closed.
    old: Vec<Option<Listener>>,
    /// The new list, as far as it is there: the sockets, and the places that they had before.
    new: Vec<Option<(Listener, Option<usize>)>>,
    /// The addresses of old sockets that were closed, with all that is needed to open them again.
    closed: Vec<(usize, Address, Manner)>,
}

impl Server {
    /// Listens where the option says, or nowhere.
    pub(super) fn listen_on(&mut self, value: Option<&[u8]>) -> Result<(), &'static CStr> {
        let Some(value) = value else {
            self.replace_listeners(Vec::new());
            return self.cx.options.set(OptionId::ListeningPort, None);
        };
        let entries = listening::parse(value).map_err(|refusal| (refusal.entry, refusal.sentence));
        let entries = entries.and_then(|entries| {
            let is_secure = |entry: &&Entry| entry.letter == Letter::Tls;
            match entries.iter().find(is_secure) {
                Some(_) if !cfg!(feature = "tls") => Err((value, NO_TLS)),
                _ => Ok(entries),
            }
        });
        let entries = entries.map_err(|(entry, sentence)| {
            let entry = shown(OsStr::from_bytes(entry));
            self.cx.complain(&format!("listening_port: {entry}: {}", sentence.to_string_lossy()));
            sentence
        })?;
        self.exchange_listeners(&entries)?;
        self.cx.options.set(OptionId::ListeningPort, Some(value))?;
        if entries.iter().any(Entry::is_open) {
            self.show_ports(&entries);
        }
        Ok(())
    }

    /// Listens at these addresses, at all or at none of them. Sockets that are bound to one of them
    /// stay open, so that no client is lost that waits to be accepted.
    fn exchange_listeners(&mut self, entries: &[Entry]) -> Result<(), &'static CStr> {
        let old = self.acceptor.take().into_iter().map(Some).collect();
        let mut exchange = Exchange { old, new: Vec::new(), closed: Vec::new() };
        // What stays is known before anything is closed that is in the way.
        for entry in entries {
            let kept = exchange.keep(entry);
            exchange.new.push(kept);
        }
        for (at, entry) in entries.iter().enumerate() {
            if exchange.new.get(at).is_some_and(Option::is_some) {
                continue;
            }
            match self.bind(&mut exchange, entry) {
                Ok(listener) => exchange.new[at] = Some((listener, None)),
                Err(error) => {
                    let address = &entry.address;
                    let what = format!("listening_port: cannot bind to {address}: {error}");
                    self.cx.complain(&what);
                    self.undo(exchange);
                    return Err(CANNOT_BIND);
                }
            }
        }
        let Exchange { old, new, .. } = exchange;
        self.unwatch_listeners(old.iter().flatten());
        drop(old);
        let has_letters = listening::has_letters(entries);
        let listeners = new.into_iter().flatten().map(|(listener, _)| listener);
        let mut listeners: Vec<Listener> = listeners.collect();
        for (listener, entry) in listeners.iter_mut().zip(entries) {
            listener.manner = manner_of(entry, has_letters);
            if let Some(Err(error)) = entry.mode.map(|mode| listener.set_mode(mode)) {
                let what = format!("listening_port: {}: its mode: {error}", entry.address);
                self.cx.complain(&what);
            }
        }
        self.cx.secure_port = secure_port(&listeners);
        self.acceptor.listen_on(listeners);
        Ok(())
    }

    /// Binds a socket, if necessary in place of the server's own, which may be in the way.
    fn bind(&mut self, exchange: &mut Exchange, entry: &Entry) -> io::Result<Listener> {
        let (address, mode) = (&entry.address, entry.mode);
        let error = match Listener::bind(address, mode) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::AddrInUse || !self.close_in_the_way(exchange, address) {
            return Err(error);
        }
        Listener::bind(address, mode)
    }

    /// Closes the old sockets with the port of an address, unless other servers use them. Returns
    /// whether there were any.
    fn close_in_the_way(&self, exchange: &mut Exchange, address: &Address) -> bool {
        let Address::Internet(wanted) = address else { return false };
        let mut has_closed = false;
        for (place, old) in exchange.old.iter_mut().enumerate() {
            let bound = old.as_ref().filter(|old| !old.is_shared());
            let Some(bound) = bound.and_then(Listener::internet_address) else { continue };
            if bound.port() != wanted.port() {
                continue;
            }
            if let Some(old) = old.take() {
                self.unwatch_listeners([&old]);
                exchange.closed.push((place, Address::Internet(bound), old.manner));
                has_closed = true;
            }
        }
        has_closed
    }

    /// Returns to the sockets so far, and opens those again that were closed.
    fn undo(&mut self, exchange: Exchange) {
        let Exchange { mut old, new, closed } = exchange;
        for (listener, place) in new.into_iter().flatten() {
            // What was bound in vain is closed before.
            if let Some(place) = place.and_then(|place| old.get_mut(place)) {
                *place = Some(listener);
            }
        }
        for (place, address, manner) in closed {
            match Listener::bind(&address, None) {
                Ok(mut listener) => {
                    listener.manner = manner;
                    if let Some(place) = old.get_mut(place) {
                        *place = Some(listener);
                    }
                }
                Err(error) => self
                    .cx
                    .complain(&format!("listening_port: cannot bind to {address} again: {error}")),
            }
        }
        self.acceptor.listen_on(old.into_iter().flatten().collect());
    }

    /// Shows the ports that the kernel has chosen, in the form in which the program has asked for
    /// them.
    fn show_ports(&mut self, entries: &[Entry]) {
        let bound = self.acceptor.listeners().iter().map(Listener::internet_address);
        let texts =
            entries.iter().zip(bound).map(|(entry, bound)| entry.shown(bound.map(|b| b.port())));
        let list = texts.collect::<Vec<_>>().join(&b","[..]);
        self.cx.options.store_text(OptionId::ListeningPort, Some(&list));
    }

    /// Shows the addresses of the sockets that are left, when the program has closed others.
    pub(super) fn show_listeners(&mut self) {
        self.cx.shown_options[OptionId::ListeningPort as usize] = None;
        let texts = self.acceptor.listeners().iter().filter_map(|listener| {
            let address = listener.address()?;
            let is_bare = matches!(&address, Address::Internet(address)
                if address.ip() == IpAddr::from([0, 0, 0, 0]));
            let letter = match listener.manner {
                Manner::Serve(Speech::Tls) => Letter::Tls,
                Manner::Redirect => Letter::Redirect,
                Manner::Serve(_) => Letter::None,
            };
            Some(Entry { address, letter, mode: None, is_bare }.shown(None))
        });
        let list = texts.collect::<Vec<_>>().join(&b","[..]);
        let list = Some(list.as_slice()).filter(|list| !list.contains(&0));
        self.cx.options.store_text(OptionId::ListeningPort, list);
    }

    /// Replaces all listening sockets, whose events end.
    fn replace_listeners(&mut self, listeners: Vec<Listener>) {
        self.cx.secure_port = None;
        let old = self.acceptor.take();
        self.unwatch_listeners(&old);
        drop(old);
        self.acceptor.listen_on(listeners);
    }

    /// Ends the events of listening sockets that are about to be closed.
    fn unwatch_listeners<'a>(&self, listeners: impl IntoIterator<Item = &'a Listener>) {
        if self.cx.is_unnoticed_child() {
            // The events are the parent's.
            return;
        }
        for listener in listeners {
            if listener.registered && listener.is_valid() {
                self.queue.unwatch_listener(listener.fd());
            }
        }
    }

    /// Takes over a listening descriptor in place of all sockets so far; -1 ends listening.
    pub fn set_listening_socket(&mut self, fd: i32) {
        if fd == -1 {
            self.replace_listeners(Vec::new());
            self.show_listeners();
            return;
        }
        match Listener::adopt(fd) {
            Ok(mut listener) => {
                listener.manner = manner_of_adopted(&listener);
                self.replace_listeners(vec![listener]);
                self.show_listeners();
            }
            Err(error) => self.cx.complain(&format!("cannot use descriptor {fd}: {error}")),
        }
    }

    /// Takes over listening descriptors, all of them or none, in place of all sockets so far. They
    /// are closed where one of them is no socket.
    pub fn set_listening_sockets(&mut self, fds: &[i32]) -> io::Result<()> {
        let listeners = fds.iter().map(|fd| {
            let mut listener = Listener::adopt(*fd)?;
            listener.manner = manner_of_adopted(&listener);
            Ok(listener)
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        self.replace_listeners(listeners);
        self.show_listeners();
        Ok(())
    }

    /// Returns the first listening descriptor whose requests are not redirected, or -1.
    pub fn listening_socket(&self) -> i32 {
        let mut listeners = self.acceptor.listeners().iter();
        listeners.find(|listener| listener.manner != Manner::Redirect).map_or(-1, Listener::fd)
    }
}

impl Exchange {
    /// Takes an old socket that is bound to the address of an entry.
    fn keep(&mut self, entry: &Entry) -> Option<(Listener, Option<usize>)> {
        let is_bound = |old: &Option<Listener>| {
            old.as_ref().is_some_and(|old| old.is_bound_to(&entry.address))
        };
        let place = self.old.iter().position(is_bound).filter(|_| !entry.is_open())?;
        Some((self.old.get_mut(place)?.take()?, Some(place)))
    }
}

/// Returns the port to which clients of other ports are redirected: the first one with the letter `s`.
pub(super) fn secure_port(listeners: &[Listener]) -> Option<u16> {
    let is_secure = |listener: &&Listener| listener.manner == Manner::Serve(Speech::Tls);
    let mut addresses =
        listeners.iter().filter(is_secure).filter_map(|listener| listener.internet_address());
    addresses.next().map(|address| address.port())
}

/// Returns what the connections of an entry get. Without any letter in the list all ports speak TLS
/// if a certificate is set; a Unix domain socket does so only by its letter.
fn manner_of(entry: &Entry, has_letters: bool) -> Manner {
    match (entry.letter, &entry.address) {
        (Letter::Redirect, _) => Manner::Redirect,
        (Letter::Tls, _) => Manner::Serve(Speech::Tls),
        (Letter::None, Address::Internet(_)) if !has_letters => Manner::Serve(Speech::Any),
        (Letter::None, _) => Manner::Serve(Speech::Plain),
    }
}

/// Returns what the connections of a socket get that the program has opened.
fn manner_of_adopted(listener: &Listener) -> Manner {
    match listener.address() {
        Some(Address::Local(_)) => Manner::Serve(Speech::Plain),
        _ => Manner::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_redirected_to_the_first_port_with_tls_that_is_open() {
        let bound = |text: &[u8], manner| {
            let entry = listening::parse(text).expect("an entry").remove(0);
            let mut listener = Listener::bind(&entry.address, None).expect("bound");
            listener.manner = manner;
            listener
        };
        let here = b"127.0.0.1:0";
        let local = format!("unix:@mongoose-secure-port-{}", std::process::id());
        let mut listeners = vec![
            bound(here, Manner::Redirect),
            bound(here, Manner::Serve(Speech::Plain)),
            bound(local.as_bytes(), Manner::Serve(Speech::Tls)),
            bound(here, Manner::Serve(Speech::Tls)),
            bound(here, Manner::Serve(Speech::Tls)),
        ];
        let ports: Vec<_> = listeners.iter().map(Listener::internet_address).collect();
        assert_eq!(secure_port(&listeners), ports[3].map(|address| address.port()));
        listeners.remove(3);
        assert_eq!(secure_port(&listeners), ports[4].map(|address| address.port()));
        listeners.pop();
        assert_eq!(secure_port(&listeners), None);
    }
}
