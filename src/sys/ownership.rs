//! Whose a file is that holds a secret, and who else may read or change it.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

/// Who we are.
#[derive(Debug)]
pub struct Us {
    user: u32,
    groups: Vec<u32>,
}

impl Access {
    /// Of a file that was looked at.
    pub fn of(found: &Metadata) -> Self {
        Self { owner: found.uid(), group: found.gid(), mode: found.mode() & 0o7777 }
    }
}

impl Us {
    /// This process.
    pub fn now() -> Self {
        let more = rustix::process::getgroups().unwrap_or_default();
        let groups = more.into_iter().chain([rustix::process::getegid()]).map(rustix::process::Gid::as_raw).collect();
        Self { user: rustix::process::geteuid().as_raw(), groups }
    }
}

/// Why a file is no place for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is this user's.
    Owner(u32),
    /// Every user may read or change it.
    Everybody(u32),
    /// Its group may read it.
    GroupReads(u32),
    /// Its group may change it.
    GroupWrites(u32),
}

impl Refusal {
    /// The refusal in words that follow the name of the file, and what to do.
    pub fn said(self, path: &Path) -> String {
        let shown = path.display();
        let advice = if is_in_volume(path) { VOLUME_ADVICE.to_owned() } else { format!("run: chmod 600 {shown}") };
        match self {
            Self::Owner(owner) => {
                format!("belongs to user {owner}, neither to the user of the gateway nor to root")
            }
            Self::Everybody(mode) => format!("is open to every user of this machine (mode {mode:04o}); {advice}"),
            Self::GroupReads(mode) => format!("can be read by its group (mode {mode:04o}); {advice}"),
            Self::GroupWrites(mode) => format!("can be changed by its group (mode {mode:04o}); {advice}"),
        }
    }
}

/// What to change where Kubernetes has written the file: neither owner nor mode can be changed in the volume.
const VOLUME_ADVICE: &str = "set defaultMode: 0440 on the volume and fsGroup on the pod";

/// Whether a file lies as Kubernetes lays out its volumes: the name, or that of a folder on the way, is a link into `..data`.
fn is_in_volume(path: &Path) -> bool {
    let is_linked = |place: &Path| fs::read_link(place).is_ok_and(|target| target.starts_with("..data"));
    path.ancestors().any(is_linked)
}

/// Why this process may not read a file, in words that follow its name, and what to do. Says whose the file is, or the folder on the
/// way that keeps us out.
pub fn denied(path: &Path) -> String {
    let found = path.ancestors().find_map(|place| fs::metadata(place).ok().map(|found| (place, Access::of(&found))));
    let Some((place, Access { owner, group, mode })) = found else { return "permission denied".to_owned() };
    let us = Us::now();
    let what = if place == path { "it".to_owned() } else { format!("the folder {}", place.display()) };
    let advice = if is_in_volume(path) {
        VOLUME_ADVICE.to_owned()
    } else {
        format!("let that user read it, for example: chown {} {}", us.user, place.display())
    };
    format!(
        "permission denied: {what} belongs to user {owner} and group {group} with mode {mode:04o}, and this process is user {}; \
         {advice}",
        us.user
    )
}

/// Whether a file may hold a secret of which nobody but us and root may know.
pub fn check_secret(found: &Access, us: &Us, allow_group_read: bool) -> Result<(), Refusal> {
    let owner = found.owner;
    if owner != us.user && owner != 0 {
        return Err(Refusal::Owner(owner));
    }
    check_mode(found, us, allow_group_read)
}

/// The same for a secret of the gateway's own: root may use what belongs to others, as it may with folders
/// ([`crate::sys::files::own_folder`]).
pub fn check_own(found: &Access, us: &Us) -> Result<(), Refusal> {
    if us.user == 0 { check_mode(found, us, false) } else { check_secret(found, us, false) }
}

/// Whether what a file says is believed where it is no secret: nobody but us and root can have written it. Root does not
/// believe what another user wrote either.
pub fn check_believed(found: &Access, us: &Us) -> Result<(), Refusal> {
    let Access { owner, mode, .. } = *found;
    if owner != us.user && owner != 0 {
        return Err(Refusal::Owner(owner));
    }
    if mode & 0o002 != 0 {
        return Err(Refusal::Everybody(mode));
    }
    if mode & 0o020 != 0 {
        return Err(Refusal::GroupWrites(mode));
    }
    Ok(())
}

fn check_mode(found: &Access, us: &Us, allow_group_read: bool) -> Result<(), Refusal> {
    let Access { owner, group, mode } = *found;
    if mode & 0o006 != 0 {
        return Err(Refusal::Everybody(mode));
    }
    if mode & 0o020 != 0 {
        return Err(Refusal::GroupWrites(mode));
    }
    // Root gave it to a group of ours: without that we could not read it at all.
    let handed = owner == 0 && us.user != 0 && us.groups.contains(&group);
    if mode & 0o040 != 0 && !handed && !allow_group_read {
        return Err(Refusal::GroupReads(mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A file of this mode.
    fn file(at: &Path, mode: u32) {
        fs::write(at, "secret").unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_may_not_be_read_is_named_with_its_owner_and_mode_and_who_we_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        file(&path, 0o400);
        let (said, us) = (denied(&path), Us::now().user);
        assert!(said.contains(&format!("it belongs to user {us} and group ")), "{said}");
        assert!(said.contains("with mode 0400") && said.contains(&format!("this process is user {us};")), "{said}");
        assert!(said.ends_with(&format!("chown {us} {}", path.display())), "{said}");
    }

    #[test]
    fn of_a_volume_of_kubernetes_the_volume_is_to_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..version")).unwrap();
        file(&folder.path().join("..version/key"), 0o400);
        symlink("..version", folder.path().join("..data")).unwrap();
        symlink("..data/key", folder.path().join("key")).unwrap();
        let said = denied(&folder.path().join("key"));
        assert!(said.ends_with(VOLUME_ADVICE) && said.contains("mode 0400") && !said.contains("chown"), "{said}");
    }

    #[test]
    fn a_folder_that_keeps_us_out_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = denied(&folder.path().join("away/key"));
        assert!(said.contains(&format!("the folder {} belongs to user", folder.path().display())), "{said}");
    }

    #[test]
    fn owner_group_and_mode_decide() {
        let us = Us { user: 1000, groups: vec![1000, 2000] };
        let root = Us { user: 0, groups: vec![0] };
        let found = |owner, group, mode| Access { owner, group, mode };
        for (access, us, allow, expected) in [
            (found(1000, 1000, 0o600), &us, false, Ok(())),
            (found(1000, 1000, 0o400), &us, false, Ok(())),
            (found(0, 0, 0o600), &root, false, Ok(())),
            (found(1000, 1000, 0o644), &us, false, Err(Refusal::Everybody(0o644))),
            (found(0, 0, 0o644), &us, true, Err(Refusal::Everybody(0o644))),
            (found(1000, 1000, 0o602), &us, true, Err(Refusal::Everybody(0o602))),
            (found(1000, 1000, 0o640), &us, false, Err(Refusal::GroupReads(0o640))),
            (found(1000, 1000, 0o640), &us, true, Ok(())),
            (found(1000, 1000, 0o660), &us, true, Err(Refusal::GroupWrites(0o660))),
            // Kubernetes with an fsGroup.
            (found(0, 2000, 0o440), &us, false, Ok(())),
            (found(0, 3000, 0o440), &us, false, Err(Refusal::GroupReads(0o440))),
            (found(0, 0, 0o440), &root, false, Err(Refusal::GroupReads(0o440))),
            (found(1001, 1000, 0o600), &us, false, Err(Refusal::Owner(1001))),
            (found(1000, 0, 0o600), &root, false, Err(Refusal::Owner(1000))),
        ] {
            assert_eq!(check_secret(&access, us, allow), expected, "{access:?} {allow}");
        }
        for (access, us, expected) in [
            (found(1000, 1000, 0o600), &root, Ok(())),
            (found(1000, 1000, 0o640), &root, Err(Refusal::GroupReads(0o640))),
            (found(1000, 1000, 0o606), &root, Err(Refusal::Everybody(0o606))),
            (found(1001, 1000, 0o600), &us, Err(Refusal::Owner(1001))),
            (found(0, 2000, 0o440), &us, Ok(())),
        ] {
            assert_eq!(check_own(&access, us), expected, "{access:?}");
        }
        for (access, us, expected) in [
            (found(1000, 1000, 0o644), &us, Ok(())),
            (found(0, 0, 0o644), &us, Ok(())),
            (found(1001, 1000, 0o600), &us, Err(Refusal::Owner(1001))),
            (found(1000, 1000, 0o600), &root, Err(Refusal::Owner(1000))),
            (found(1000, 1000, 0o646), &us, Err(Refusal::Everybody(0o646))),
            (found(1000, 1000, 0o664), &us, Err(Refusal::GroupWrites(0o664))),
        ] {
            assert_eq!(check_believed(&access, us), expected, "{access:?}");
        }
    }
}
