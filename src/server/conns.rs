//! The connections of a server, by index.

use crate::connection::Conn;
use crate::shared::slots::Slot;

/// See the module.
#[derive(Default)]
pub struct Conns {
    /// A free place is `None`.
    places: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    open: usize,
}

impl Conns {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open
    }

    /// A connection.
    #[inline]
    pub fn get(&mut self, index: u32) -> Option<&mut Conn> {
        self.places.get_mut(index as usize)?.as_deref_mut()
    }

    /// A connection, to be looked at.
    pub fn look_at(&self, index: u32) -> Option<&Conn> {
        self.places.get(index as usize)?.as_deref()
    }

    /// The open connection that has this slot, if it is one of this server.
    pub fn of_slot(&mut self, slot: &'static Slot) -> Option<&mut Conn> {
        self.get(slot.index() as u32).filter(|conn| std::ptr::eq(conn.wire.slot, slot))
    }

    /// A place for one more. `None` if there is no memory for it.
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

    /// Takes a connection away.
    pub fn take(&mut self, index: u32) -> Option<Box<Conn>> {
        let conn = self.places.get_mut(index as usize)?.take()?;
        self.open -= 1;
        // An index that is still in a list is not given out again before the list is emptied:
        // a stale entry then finds a free place, or a connection that is merely looked at.
        self.free.push(index);
        Some(conn)
    }

    /// The indices of all places.
    pub fn indices(&self) -> std::ops::Range<u32> {
        0..self.places.len() as u32
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.places.iter().filter_map(|place| place.as_deref())
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.places.iter_mut().filter_map(|place| place.as_deref_mut())
    }
}
