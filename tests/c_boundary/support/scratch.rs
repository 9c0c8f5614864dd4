//! A folder of a test's own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::deadline;

/// A new, empty folder that disappears with this value. Everybody may enter and write to it,
/// since some tests give up their rights.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mongoose-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("scratch folder");
        use std::os::unix::fs::PermissionsExt;
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, all).expect("rights of the scratch folder");
        Scratch { path }
    }

    /// The path of `name` inside, as text for an option.
    pub fn join(&self, name: &str) -> String {
        self.path.join(name).to_str().expect("a path in ASCII").to_owned()
    }

    /// Writes a file inside, with the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Scratch {
        let file = self.path.join(name);
        std::fs::create_dir_all(file.parent().expect("inside the folder")).expect("folders");
        std::fs::write(file, content).expect("a file of the test");
        self
    }

    /// Writes a file that may be executed.
    pub fn write_program(&self, name: &str, content: impl AsRef<[u8]>) -> &Scratch {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, content);
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path.join(name), all).expect("rights of a program");
        self
    }

    /// The text of a file as it is now. What the server writes to a log, it writes when the answer of
    /// which it tells may have been read already: see [`Scratch::read_when`].
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path.join(name)).unwrap_or_default()
    }

    /// Waits until the text of a file is as it has to become, as a log does some time behind the
    /// answer of which it tells. What must not be in it is judged in this text only if the line that
    /// was waited for comes behind, else when the server has stopped, or has ended its turns
    /// (`Server::end_turn`).
    #[track_caller]
    pub fn read_when(&self, name: &str, is_ready: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + deadline();
        loop {
            let text = self.read(name);
            if is_ready(&text) {
                return text;
            }
            assert!(
                Instant::now() < end,
                "waited in vain for a text of {name:?}, which is\n{text}"
            );
            std::thread::yield_now();
        }
    }
}

/// A folder on another file system, reached by a link inside of a scratch folder.
pub struct Elsewhere {
    path: PathBuf,
}

impl Elsewhere {
    /// Fails where there is no other file system: a test that needs one proves nothing without.
    pub fn linked(scratch: &Scratch, link: &str) -> Elsewhere {
        use std::os::unix::fs::MetadataExt;
        let name = scratch.path.file_name().expect("a name");
        let path = PathBuf::from("/dev/shm").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder in /dev/shm");
        let device = |path: &PathBuf| std::fs::metadata(path).expect("a folder").dev();
        let differ = device(&path) != device(&scratch.path);
        assert!(differ, "/dev/shm is no other file system than {}", scratch.path.display());
        std::os::unix::fs::symlink(&path, scratch.path.join(link)).expect("a link");
        Elsewhere { path }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A file system that is mounted in a scratch folder, and gone with this value.
pub struct Mounted {
    path: String,
}

impl Mounted {
    /// Mounts one on a folder that it makes. A test begins by `needs!("mount-KIND")`, since not every
    /// machine allows it, as without root.
    pub fn on(scratch: &Scratch, name: &str, kind: &str, options: &str) -> Mounted {
        Mounted::of(scratch, name, kind, options, "none")
    }

    /// The same of a device or an image.
    pub fn of(scratch: &Scratch, name: &str, kind: &str, options: &str, source: &str) -> Mounted {
        super::needs::assert_named(&format!("mount-{kind}"));
        let path = scratch.join(name);
        std::fs::create_dir_all(&path).expect("a folder to mount on");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", kind, "-o", options, source, &path]);
        let output = mount.output().expect("mount");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Mounted { path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is still open must not keep it: it is gone for everybody at once.
        let _ = std::process::Command::new("umount").args(["-l", &self.path]).status();
    }
}
