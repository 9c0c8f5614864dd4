//! (see the module map)
