//! Takes keys out of the files they stood in, once the store holds them.
//!
//! The store is asked and the files are written in one turn of the store's own thread: nobody can delete the variable that a
//! key was moved to between the one and the other. No copy of a file is kept, see the manual.

use std::fs;

use zeroize::Zeroizing;

use crate::admin::Admin;
use crate::admin::legacy::Finding;
use crate::admin::legacy::Look;
use crate::admin::legacy::look;
use crate::admin::legacy_scan::ScannedFile;
use crate::admin::legacy_scan::reason;
use crate::admin::respond::Problem;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::json_spans::blanked;
use crate::domain::legacy::SourceType;
use crate::store::StoreError;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::sys::files;
use crate::wire::legacy::LegacyActionBody;
use crate::wire::legacy::LegacyPurgeBody;
use crate::wire::legacy::LegacyPurgedBody;

/// `POST /api/admin/openclaw/legacy-keys/purge`.
pub(super) async fn purge(admin: &Admin, asker: &Asker, body: LegacyPurgeBody) -> Result<LegacyPurgedBody, Problem> {
    let ids = body.finding_ids.unwrap_or_default();
    if ids.is_empty() {
        return Err(Problem::invalid("finding_ids: name the keys that are to be taken out of their files"));
    }
    let _turn = admin.legacy.turn.lock().await;
    let look = look(admin).await?.select(&ids)?;
    let is_dry = body.dry_run.unwrap_or_default();
    let (asker, now) = (asker.clone(), admin.clock.now().wall);
    let work = move |vault: &mut Vault| {
        let values: Vec<_> = look.findings.iter().map(|finding| &finding.found.value).collect();
        let holders = vault.holders(&values)?;
        let bare = holders.of.iter().filter(|holder| !holder.is_stored).count();
        if bare > 0 {
            return Ok(Err(bare));
        }
        let note = |vault: &mut Vault, file: &ScannedFile, purged: &[&Finding]| {
            let detail = Detail::default().names("locations", purged.iter().map(|finding| &finding.found.location));
            vault.note(&Entry::new(Action::LegacyKeyPurge, &file.shown(), &asker, now).with(detail))
        };
        take_out(vault, &look, is_dry, note).map(Ok)
    };
    let mut purged = admin.store.keep(work).await?.map_err(|bare| {
        let text = format!(
            "finding_ids: {bare} of these keys are not secured: they stand nowhere else, and nothing was purged; import them first"
        );
        Problem::invalid(text)
    })?;
    if body.delete_skills.unwrap_or_default() {
        purged.warnings.push("delete_skills: skills are left alone; a person has to look at them".to_owned());
    }
    Ok(purged)
}

fn take_out(
    vault: &mut Vault,
    look: &Look,
    is_dry: bool,
    note: impl Fn(&mut Vault, &ScannedFile, &[&Finding]) -> Result<(), StoreError>,
) -> Result<LegacyPurgedBody, StoreError> {
    let mut purged = LegacyPurgedBody {
        dry_run: is_dry,
        selected_count: look.findings.len() as u64,
        purged_count: 0,
        actions: Vec::new(),
        warnings: look.warnings.clone(),
    };
    for (index, file) in look.files.iter().enumerate() {
        let of_file: Vec<_> = look.findings.iter().filter(|finding| finding.found.file == index).collect();
        let Some(first) = of_file.first() else { continue };
        let (kind, blank): (_, &[u8]) = match first.found.source {
            SourceType::Config | SourceType::Manifest => ("blank_json", b"\"\""),
            SourceType::Dotenv => ("blank_dotenv", b""),
        };
        let spans: Vec<_> = of_file.iter().flat_map(|finding| finding.found.spans.iter().cloned()).collect();
        // Other keys may stand in it still.
        let left = Zeroizing::new(blanked(&file.bytes, &spans, blank));
        if let Err(error) = write(file, &left, is_dry) {
            purged.warnings.push(format!("{} is left as it is: {}", file.shown(), reason(&error)));
            continue;
        }
        purged.actions.extend(of_file.iter().map(|finding| LegacyActionBody {
            kind,
            target: finding.path.clone(),
            detail: Some(finding.found.location.clone()),
        }));
        if !is_dry {
            purged.purged_count = purged.purged_count.saturating_add(of_file.len() as u64);
            note(vault, file, &of_file)?;
        }
    }
    Ok(purged)
}

/// Only into a file of its own name, and only while it holds what was read.
fn write(file: &ScannedFile, new: &[u8], is_dry: bool) -> std::io::Result<()> {
    if fs::symlink_metadata(&file.path)?.is_symlink() {
        return Err(std::io::Error::other("is a symbolic link"));
    }
    if is_dry { Ok(()) } else { files::replace_content(&file.path, &file.bytes, new) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use super::*;

    #[test]
    fn only_a_file_that_is_as_it_was_read_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let file = ScannedFile { path: path.clone(), bytes: Zeroizing::new(b"A=1\n".to_vec()) };
        assert!(write(&file, b"A=\n", false).is_err(), "it is gone");
        for now in ["A=2\n", "A=1\nB=2\n", "A=1", ""] {
            fs::write(&path, now).unwrap();
            let error = write(&file, b"A=\n", false).unwrap_err();
            assert!(reason(&error).contains("in the meantime"), "{now}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), now);
        }
        fs::write(&path, "A=1\n").unwrap();
        let second = folder.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert!(reason(&write(&file, b"A=\n", false).unwrap_err()).contains("hard links"));
        fs::remove_file(&second).unwrap();
        write(&file, b"A=\n", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=1\n");
        write(&file, b"A=\n", false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
