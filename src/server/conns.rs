//! The connections of a server by index, and the free indices.
//!
//! Refuses to know what a connection does.

use crate::connection::Conn;
use crate::shared::slots::Slot;

/// The connections of a server.
#[derive(Default)]
pub struct Conns {
    /// The connections; a free place is `None`.
    places: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    open: usize,
}

impl Conns {
    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Returns a connection.
    #[inline]
    pub fn get(&mut self, index: u32) -> Option<&mut Conn> {
        self.places.get_mut(index as usize)?.as_deref_mut()
    }

    /// Returns a connection that is only looked at.
    pub fn look_at(&self, index: u32) -> Option<&Conn> {
        self.places.get(index as usize)?.as_deref()
    }

    /// Returns the open connection that has this slot, if it is one of this server.
    pub fn of_slot(&mut self, slot: &'static Slot) -> Option<&mut Conn> {
        self.get(slot.index() as u32).filter(|conn| std::ptr::eq(conn.wire.slot, slot))
    }

    /// Returns the index of a place for one more connection. `None` means that there is no memory
    /// for it.
    pub fn reserve(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        self.places.try_reserve(1).ok()?;
        self.places.push(None);
        Some(self.places.len() as u32 - 1)
    }

    /// Puts a connection into the place that was reserved for it.
    pub fn put(&mut self, index: u32, conn: Conn) -> Option<&mut Conn> {
        let place = self.places.get_mut(index as usize)?;
        self.open += 1;
        Some(place.insert(Box::new(conn)))
    }

    /// Removes a connection.
    pub fn take(&mut self, index: u32) -> Option<Box<Conn>> {
        let conn = self.places.get_mut(index as usize)?.take()?;
        self.open -= 1;
        // An index in a list may be stale: it then leads to a free place, or to a new connection,
        // for which a turn without need does no harm.
        self.free.push(index);
        Some(conn)
    }

    /// Returns the indices of all places.
    pub fn indices(&self) -> std::ops::Range<u32> {
        0..self.places.len() as u32
    }

    /// Returns all connections.
    pub fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.places.iter().filter_map(|place| place.as_deref())
    }

    /// Returns all connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.places.iter_mut().filter_map(|place| place.as_deref_mut())
    }
}
