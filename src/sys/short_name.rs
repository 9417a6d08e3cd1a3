//! A short name of a folder whose own is too long for the sockets in it: a link in a private folder of a folder that
//! everybody can write to, such as `/tmp`.
//!
//! Whoever is first there could leave something under our name. So the private folder counts only where it is a folder (no
//! link), belongs to this user, and is closed to all others; then nobody else can have made what is in it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::sys::files::PRIVATE_FOLDER;

/// Makes the name and the private folder it is in, where they are missing. A name of another folder is made anew.
pub fn make(name: &Path, folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let private = name.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match fs::DirBuilder::new().mode(PRIVATE_FOLDER).create(private) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    check(name)?;
    if fs::read_link(name).is_ok_and(|found| found == folder) {
        return Ok(());
    }
    match fs::remove_file(name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match std::os::unix::fs::symlink(&folder, name) {
        // Another command of this user was faster.
        Err(_) if fs::read_link(name).is_ok_and(|found| found == folder) => Ok(()),
        made => made,
    }
}

/// Whether the private folder a name is in is missing or ours alone; the error says why it is not.
pub fn check(name: &Path) -> io::Result<()> {
    let private = name.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let found = match fs::symlink_metadata(private) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && ours && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!(
        "{} is no folder of this user alone (mode 0700, no link): remove it, or name a folder with --run-dir",
        private.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and writes its files")]

    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_reached_by_its_short_name() {
        let root = tempfile::tempdir().unwrap();
        let (name, folder) = (root.path().join("s/run"), root.path().join("long"));
        fs::create_dir(&folder).unwrap();
        make(&name, &folder).unwrap();
        make(&name, &folder).unwrap();
        fs::write(name.join("x"), "1").unwrap();
        assert!(folder.join("x").exists());
        assert_eq!(fs::metadata(root.path().join("s")).unwrap().mode() & 0o777, 0o700);
        let other = root.path().join("other");
        make(&name, &other).unwrap();
        assert_eq!(fs::read_link(&name).unwrap(), other);
    }

    #[test]
    fn what_others_can_write_to_or_lead_elsewhere_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("long");
        fs::create_dir(&folder).unwrap();
        let (open, link) = (root.path().join("open"), root.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o750)).unwrap();
        symlink(&folder, &link).unwrap();
        for private in [open, link] {
            let error = make(&private.join("run"), &folder).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", private.display());
            assert_eq!(check(&private.join("run")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert!(!private.join("run").exists());
        }
        check(&root.path().join("nowhere/run")).unwrap();
    }
}
