//! `sigilum install`: this program under its name on `PATH`. Twice is once; what is somebody else's stays.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::sys::env;
use crate::sys::files;
use crate::sys::random;

/// Largest file of a shell that is read, in bytes.
const MAX_RC: u64 = 4 * 1024 * 1024;

/// Options of `install`.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// Folder of the link [default: ~/.local/bin]
    #[arg(long, value_name = "PATH")]
    bin_dir: Option<PathBuf>,
    /// The shell's start file [default: by SHELL]
    #[arg(long, value_name = "FILE")]
    rc_file: Option<PathBuf>,
    /// Add an alias too
    #[arg(long)]
    with_alias: bool,
}

/// Whose language a start file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    /// sh, bash, zsh and their kin.
    Posix,
    /// fish.
    Fish,
}

/// Makes the link and adds the lines that are missing.
pub(crate) fn run(args: &InstallArgs, printer: &mut Printer) -> Result<Outcome, CliError> {
    let home = || {
        env::lookup("HOME")
            .map(PathBuf::from)
            .ok_or_else(|| CliError::new(Outcome::Failed, "HOME is not set").hint("give --bin-dir and --rc-file"))
    };
    let folder = match &args.bin_dir {
        Some(folder) => folder.clone(),
        None => home()?.join(".local/bin"),
    };
    let folder = std::path::absolute(&folder).map_err(|error| at(&folder, &error))?;
    let named = env::lookup("SHELL").unwrap_or_default();
    let rc = match &args.rc_file {
        Some(file) => file.clone(),
        None => home()?.join(rc_of(&named)),
    };
    let shell = if rc.extension().is_some_and(|kind| kind == "fish") { Shell::Fish } else { Shell::Posix };
    let lines = lines(shell, &folder, args.with_alias)?;

    let program = std::env::current_exe().and_then(fs::canonicalize);
    let program =
        program.map_err(|error| CliError::new(Outcome::Failed, format!("this program cannot be found: {error}")))?;
    let link = folder.join("sigilum");
    fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
    place(&link, &program)?;
    append(&rc, &lines).map_err(|error| at(&rc, &error))?;
    printer.ok("Sigilum CLI installed.")?;
    printer.line(&format!("symlink: {}", link.display()))?;
    printer.line(&format!("rc file: {}", rc.display()))?;
    let on_path = env::lookup("PATH").is_some_and(|path| path.split(':').any(|entry| Path::new(entry) == folder));
    if !on_path {
        printer.note("open a new shell to use it by name");
    }
    Ok(Outcome::Done)
}

/// The start file of a shell, below the home folder.
fn rc_of(shell: &str) -> &'static str {
    match Path::new(shell).file_name().and_then(|name| name.to_str()) {
        Some("zsh") => ".zshrc",
        Some("bash") => ".bashrc",
        Some("fish") => ".config/fish/config.fish",
        Some(_) | None => ".profile",
    }
}

/// What should stand in the start file.
fn lines(shell: Shell, folder: &Path, with_alias: bool) -> Result<Vec<String>, CliError> {
    // Within double quotes these mean something to a shell.
    let plain = folder
        .to_str()
        .filter(|text| !text.contains(['"', '$', '`', '\\', ':', '!']) && !text.contains(char::is_control));
    let Some(folder) = plain else {
        let message = format!("{} cannot stand in a shell's start file", folder.display());
        return Err(CliError::new(Outcome::Failed, message).hint("choose another --bin-dir"));
    };
    let mut lines = vec![match shell {
        Shell::Posix => format!("export PATH=\"{folder}:$PATH\""),
        Shell::Fish => format!("fish_add_path --global \"{folder}\""),
    }];
    if with_alias {
        lines.push(format!("alias sigilum=\"{folder}/sigilum\""));
    }
    Ok(lines)
}

/// Makes `link` lead to `program`: replaced in one step, and only where it is a link.
fn place(link: &Path, program: &Path) -> Result<(), CliError> {
    let failed = |error: &io::Error| at(link, error);
    match fs::symlink_metadata(link) {
        Ok(found) if found.file_type().is_symlink() => {
            if fs::read_link(link).is_ok_and(|target| target == program) {
                return Ok(());
            }
        }
        Ok(_) if fs::canonicalize(link).is_ok_and(|path| path == program) => return Ok(()),
        Ok(_) => {
            return Err(CliError::new(Outcome::Failed, format!("{} exists and is no link", link.display()))
                .hint("remove it, or choose another --bin-dir"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&error)),
    }
    let name = random::hex::<8>().map_err(|error| failed(&io::Error::other(error)))?;
    let temporary = link.with_file_name(format!(".sigilum.{name}.tmp"));
    symlink(program, &temporary).map_err(|error| failed(&error))?;
    fs::rename(&temporary, link).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(&error)
    })
}

/// Adds the lines the file does not have yet, at its end; nothing in it is rewritten.
fn append(file: &Path, lines: &[String]) -> io::Result<()> {
    let old = match files::read_text(file, MAX_RC) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let missing: Vec<_> = lines.iter().filter(|line| !old.lines().any(|known| known.trim() == **line)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    if !old.is_empty() && !old.ends_with('\n') {
        text.push('\n');
    }
    for line in missing {
        text.push_str(line);
        text.push('\n');
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(file)?.write_all(text.as_bytes())
}

fn at(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn each_shell_has_its_file_and_its_words() {
        assert_eq!((rc_of("/bin/bash"), rc_of("/usr/bin/zsh"), rc_of("")), (".bashrc", ".zshrc", ".profile"));
        let posix = lines(Shell::Posix, Path::new("/opt/my bin"), true).unwrap();
        assert_eq!(posix, ["export PATH=\"/opt/my bin:$PATH\"", "alias sigilum=\"/opt/my bin/sigilum\""]);
        assert_eq!(lines(Shell::Fish, Path::new("/b"), false).unwrap(), ["fish_add_path --global \"/b\""]);
        for bad in ["/a\"; rm -rf /; \"", "/$HOME", "/a`b`", "/a:b", "/a\nb"] {
            assert!(lines(Shell::Posix, Path::new(bad), false).is_err(), "{bad}");
        }
    }
}
