//! (to be written)
use super::*;
/// The operating system.
#[derive(Debug)] pub struct RealFs;
