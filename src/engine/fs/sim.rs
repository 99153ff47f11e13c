//! (to be written)
/// A disk in memory.
#[derive(Debug)] pub struct SimFs;
