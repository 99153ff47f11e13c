//! (to be written)
use super::*;
/// The operating system.
#[derive(Debug)] pub struct RealFs;
#[allow(unused_variables, clippy::todo)]
impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> { todo!() }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<String>> { todo!() }
    fn sync_dir(&self, path: &Path) -> io::Result<()> { todo!() }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> { todo!() }
    fn remove_file(&self, path: &Path) -> io::Result<()> { todo!() }
    fn remove_dir(&self, path: &Path) -> io::Result<()> { todo!() }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> { todo!() }
    fn file_len(&self, path: &Path) -> io::Result<u64> { todo!() }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> { todo!() }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> { todo!() }
    fn open(&self, path: &Path, mode: ReadMode) -> io::Result<Arc<dyn ReadableFile>> { todo!() }
    fn open_log(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn LogFile>> { todo!() }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> { todo!() }
}
