//! Secrets that a program prints: started without a shell and without anything of ours, given a time and a size, and
//! ended with everything it started that is of its process group still.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::config::declaration::ExecProvider;
use crate::domain::secret::Secret;
use crate::secrets::answer;
use crate::secrets::redact::redacted;
use crate::sys::files;
use crate::sys::files::WalkError;
use crate::sys::spawner::Spawner;
use crate::sys::supervision;

/// How much of what a program says on standard error is read; the first line is shown.
const MAX_STDERR_BYTES: u64 = 4096;
/// How long the last words of a program may take after its end: what it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Shortest value of a variable that is looked for in what a program says.
const LEAST_VALUE_BYTES: usize = 6;

/// Starts programs so that they end with us.
#[derive(Debug, Clone)]
pub struct Launcher {
    spawner: Spawner,
    /// This program, through which others are started; `None`: they are started directly, and outlive us if we are
    /// killed.
    shim: Option<PathBuf>,
}

impl Launcher {
    /// Starts through `shim`.
    pub const fn new(spawner: Spawner, shim: Option<PathBuf>) -> Self {
        Self { spawner, shim }
    }

    /// Asks a program for secrets: for each id its secret or why there is none; `Err` where it said nothing of any.
    pub async fn ask(
        &self,
        provider: &str,
        program: &ExecProvider,
        ids: &[&str],
        environment: &[(String, Secret)],
    ) -> Result<Vec<Result<Secret, String>>, String> {
        let file = check(program)?;
        let mut command = match &self.shim {
            None => Command::new(&file),
            Some(shim) => {
                let mut command = Command::new(shim);
                // Behind the dashes nothing is an option of ours.
                command.arg(supervision::EXEC_PROVIDER).arg(std::process::id().to_string()).arg("--").arg(&file);
                command
            }
        };
        command
            .args(&program.args)
            .env_clear()
            .envs(&program.env)
            .envs(environment.iter().map(|(name, value)| (name, value.expose())))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = self.spawner.spawn(command).await.map_err(|error| format!("could not be started: {error}"))?;
        let group = Group::of(&child);
        let question = answer::question(provider, ids);
        let limit = usize::try_from(program.max_output_bytes).unwrap_or(usize::MAX);
        let talked = tokio::time::timeout(program.timeout, talk(child, &question, limit)).await;
        drop(group);
        let Said { status, output, complaint } = match talked {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(format!("did not answer within {} ms and was ended", program.timeout.as_millis())),
        };
        if !status.success() {
            return Err(format!("ended with {status}{}", shown(&complaint, environment)));
        }
        answer::read(&output, ids, program.json_only)
            .map_err(|error| format!("{error}{}", shown(&complaint, environment)))
    }
}

/// What a program said until its end.
struct Said {
    status: ExitStatus,
    output: Zeroizing<Vec<u8>>,
    complaint: Zeroizing<Vec<u8>>,
}

async fn talk(mut child: Child, question: &[u8], limit: usize) -> Result<Said, String> {
    let missing = || "could not be talked to".to_owned();
    let (mut input, out, err) = (
        child.stdin.take().ok_or_else(missing)?,
        child.stdout.take().ok_or_else(missing)?,
        child.stderr.take().ok_or_else(missing)?,
    );
    // Room for everything from the start, and for the look whether more comes: a buffer that grows leaves copies.
    let mut output = Zeroizing::new(Vec::with_capacity(limit.saturating_add(64)));
    let mut complaint = Zeroizing::new(Vec::with_capacity(8192));
    let ended = {
        let ask = async {
            // A program may know without reading the question.
            let _ = input.write_all(question).await;
            drop(input);
            Ok(())
        };
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let (mut out, mut err) = (out.take(most), err);
        let hear = async {
            let said = async {
                let _ = (&mut err).take(MAX_STDERR_BYTES).read_to_end(&mut complaint).await;
                // Read on, so that it does not wait for us.
                let _ = tokio::io::copy(&mut err, &mut tokio::io::sink()).await;
                Ok(())
            };
            let read = async {
                out.read_to_end(&mut output).await.map_err(|error| format!("could not be read: {error}"))?;
                // Whoever says too much is not waited for.
                if output.len() > limit { Err(format!("printed more than {limit} bytes")) } else { Ok(()) }
            };
            tokio::try_join!(read, said, ask).map(drop)
        };
        tokio::pin!(hear);
        tokio::select! {
            status = child.wait() => {
                if let Ok(Err(error)) = tokio::time::timeout(LAST_WORDS, &mut hear).await {
                    return Err(error);
                }
                status
            }
            heard = &mut hear => {
                heard?;
                child.wait().await
            }
        }
    };
    let status = ended.map_err(|error| format!("could not be waited for: {error}"))?;
    Ok(Said { status, output, complaint })
}

/// The first line of what a program said on standard error, fit for a log.
fn shown(complaint: &[u8], environment: &[(String, Secret)]) -> String {
    let mut text = Zeroizing::new(String::from_utf8_lossy(complaint).into_owned());
    for (_, value) in environment.iter().filter(|(_, value)| value.expose().len() >= LEAST_VALUE_BYTES) {
        text = Zeroizing::new(text.replace(value.expose(), "[redacted]"));
    }
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).map(redacted).unwrap_or_default();
    if line.is_empty() { String::new() } else { format!("; it says: {line}") }
}

/// A program and what it started, but for what left its process group; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Mostly there is nobody left.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Judges a program and gives its file, without links. It is opened again by that name when it is started: what counts is
/// that until then nobody else can put another in its place, so everything on the way to it is judged too.
pub fn check(program: &ExecProvider) -> Result<PathBuf, String> {
    let command = &program.command;
    let shown = command.display();
    if !command.is_absolute() {
        return Err(format!("{shown} is no absolute path"));
    }
    let unreadable = |error: std::io::Error| format!("{shown}: {}", error.kind());
    let link = fs::symlink_metadata(command).map_err(unreadable)?.is_symlink();
    if link && !program.allow_symlink {
        return Err(format!(
            "{shown} is a symbolic link; name the program itself, or set allow_symlink on its provider"
        ));
    }
    let (file, found) = files::walk(command, check_passed).map_err(|error| match error {
        WalkError::Io { path, source } => format!("{}: {}", path.display(), source.kind()),
        WalkError::Refused(why) => format!("{shown} is not run: {why}"),
    })?;
    let trusted = program.trusted_dirs.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect::<Vec<_>>();
    let within = trusted.iter().any(|folder| file.starts_with(folder));
    if link && !within {
        return Err(format!("{shown} leads to {}, outside of the trusted_dirs", file.display()));
    }
    if !program.trusted_dirs.is_empty() && !within {
        return Err(format!("{shown} lies outside of the trusted_dirs"));
    }
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(format!("{shown} is no program that can be run"));
    }
    guarded(&file, found.uid(), found.mode())?;
    Ok(file)
}

/// Whether a folder or a link on the way to a program is nobody's to change but ours and root's.
fn check_passed(at: &Path, found: &Metadata) -> Result<(), String> {
    let (shown, owner, mode) = (at.display(), found.uid(), found.mode() & 0o7777);
    let safe = "have it in folders that belong to root or to the user of the gateway";
    if found.is_symlink() {
        if !files::is_trusted_owner(owner) {
            return Err(format!("the symbolic link {shown} belongs to user {owner}, who can turn it; {safe}"));
        }
    } else if found.is_dir() {
        if !files::is_trusted_owner(owner) {
            let text = format!("the folder {shown} belongs to user {owner} (mode {mode:04o}), who can exchange it");
            return Err(format!("{text}; {safe}"));
        }
        // In a sticky folder nobody moves what belongs to others.
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(format!(
                "others may write to the folder {shown} (mode {mode:04o}) and exchange it; run: chmod go-w {shown}, or {safe}"
            ));
        }
    }
    Ok(())
}

/// Whether nobody but us and root may change the program.
fn guarded(file: &Path, owner: u32, mode: u32) -> Result<(), String> {
    let shown = file.display();
    if !files::is_trusted_owner(owner) {
        return Err(format!("{shown} belongs to user {owner}, neither to the user of the gateway nor to root"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("{shown} can be changed by others (mode {:04o}); run: chmod 755 {shown}", mode & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::disallowed_methods,
        reason = "test code may panic, and writes files as other programs do"
    )]

    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn program(command: PathBuf) -> ExecProvider {
        ExecProvider {
            command,
            args: Vec::new(),
            pass_env: Vec::new(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            timeout: Duration::from_secs(5),
            max_output_bytes: 1024 * 1024,
            json_only: false,
            allow_symlink: false,
            trusted_dirs: Vec::new(),
        }
    }

    async fn ask(program: &ExecProvider, ids: &[&str]) -> Result<Vec<Result<String, String>>, String> {
        ask_with(program, ids, &[]).await
    }

    async fn ask_with(
        program: &ExecProvider,
        ids: &[&str],
        environment: &[(String, Secret)],
    ) -> Result<Vec<Result<String, String>>, String> {
        let launcher = Launcher::new(Spawner::start().unwrap(), None);
        let list = launcher.ask("vault", program, ids, environment).await?;
        Ok(list.into_iter().map(|one| one.map(|secret| secret.expose().to_owned())).collect())
    }

    #[tokio::test]
    async fn a_program_is_asked_on_standard_input_and_answers_on_standard_output() {
        let folder = tempfile::tempdir().unwrap();
        let body = r#"read -r line; printf '{"values":{"a":"%s"}}' "$(printf %s "$line" | cut -c2-20 | tr -d '"')""#;
        let list = ask(&program(script(folder.path(), "p", body)), &["a"]).await.unwrap();
        assert_eq!(list, [Ok("protocolVersion:1".to_owned())]);
    }

    #[tokio::test]
    async fn a_program_has_only_the_environment_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "p", "env | sort | tr '\\n' ' '; pwd");
        let given = [("VAULT".to_owned(), Secret::new("x".to_owned()))];
        let list = ask_with(&program(path), &["a"], &given).await.unwrap();
        // The shell sets PWD itself.
        assert_eq!(list, [Ok("PATH=/usr/bin:/bin PWD=/ VAULT=x /".to_owned())]);
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("pid");
        let body = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", marker.display());
        let hanging =
            ExecProvider { timeout: Duration::from_millis(1500), ..program(script(folder.path(), "p", &body)) };
        let error = ask(&hanging, &["a"]).await.unwrap_err();
        assert!(error.contains("did not answer within 1500 ms"), "{error}");
        let pid: i32 = fs::read_to_string(marker).unwrap().trim().parse().unwrap();
        let begun = SystemTimeout::begin();
        while crate::sys::process::ProcessIdentity::of(pid).is_some() {
            assert!(!begun.over(), "what it started lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ten seconds.
    struct SystemTimeout(tokio::time::Instant);

    impl SystemTimeout {
        fn begin() -> Self {
            Self(tokio::time::Instant::now())
        }

        fn over(&self) -> bool {
            self.0.elapsed() > Duration::from_secs(10)
        }
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let leaving = ExecProvider {
            timeout: Duration::from_secs(60),
            ..program(script(folder.path(), "p", "sleep 600 &\necho value"))
        };
        let begun = tokio::time::Instant::now();
        assert_eq!(ask(&leaving, &["a"]).await.unwrap(), [Ok("value".to_owned())]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_failure_is_told_without_what_was_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "p", "echo canary-out; echo \"denied for $TOKEN\" >&2; exit 3");
        let given = [("TOKEN".to_owned(), Secret::new("canary-env".to_owned()))];
        let error = ask_with(&program(path), &["a"], &given).await.unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("denied for [redacted]"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "p", "head -c 5000 /dev/zero | tr '\\0' x");
        let small = ExecProvider { max_output_bytes: 4999, ..program(path.clone()) };
        assert!(ask(&small, &["a"]).await.unwrap_err().contains("more than 4999 bytes"));
        let fits = ExecProvider { max_output_bytes: 5000, ..program(path) };
        assert_eq!(ask(&fits, &["a"]).await.unwrap().first().unwrap().as_ref().unwrap().len(), 5000);
        let endless =
            ExecProvider { timeout: Duration::from_secs(30), ..program(script(folder.path(), "q", "exec yes")) };
        assert!(ask(&endless, &["a"]).await.is_err());
    }

    #[tokio::test]
    async fn a_program_others_could_change_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("trusted");
        fs::create_dir(&inside).unwrap();
        let target = script(&inside, "p", "echo value");
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();

        let refused = |program: ExecProvider| check(&program).unwrap_err();
        assert!(refused(program(link.clone())).contains("is a symbolic link"));
        let allowed = ExecProvider { allow_symlink: true, ..program(link.clone()) };
        assert!(refused(allowed.clone()).contains("outside of the trusted_dirs"));
        let trusted = ExecProvider { trusted_dirs: vec![inside.clone()], ..allowed };
        assert_eq!(check(&trusted).unwrap(), fs::canonicalize(&target).unwrap());
        let elsewhere = script(folder.path(), "q", "echo value");
        assert!(refused(ExecProvider { command: elsewhere, ..trusted }).contains("outside of the trusted_dirs"));

        assert!(refused(program(PathBuf::from("p"))).contains("no absolute path"));
        assert!(refused(program(folder.path().join("none"))).contains("not found"));
        assert!(refused(program(inside.clone())).contains("no program"));
        for mode in [0o775, 0o757] {
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused(program(target.clone())).contains("chmod 755"), "{mode:o}");
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(program(target.clone())).contains("no program"));
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        for mode in [0o777, 0o775, 0o757] {
            fs::set_permissions(&inside, fs::Permissions::from_mode(mode)).unwrap();
            let error = refused(program(target.clone()));
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod go-w "), "{error}");
        }
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o1777)).unwrap();
        check(&program(target)).unwrap();
    }

    #[test]
    fn a_program_somebody_else_could_exchange_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let theirs = root.join("theirs");
        fs::create_dir_all(theirs.join("bin")).unwrap();
        let target = script(&theirs.join("bin"), "p", "echo value");
        check(&program(target.clone())).unwrap();
        // The one folder higher up is enough: all below it can be exchanged there. Handing it over takes root.
        if std::os::unix::fs::chown(&theirs, Some(12345), Some(12345)).is_err() {
            return;
        }
        let error = check(&program(target.clone())).unwrap_err();
        let named = format!("{} belongs to user 12345 (mode 0755)", theirs.display());
        assert!(error.contains(&named) && error.contains("have it in folders"), "{error}");
        // A sticky folder is its owner's still.
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(check(&program(target)).unwrap_err().contains("belongs to user 12345"));

        // By way of a link of ours, and of one of theirs that leads to what is ours.
        symlink("theirs/bin", root.join("way")).unwrap();
        assert!(check(&program(root.join("way/p"))).unwrap_err().contains(&named.replace("0755", "1777")));
        fs::create_dir(root.join("ours")).unwrap();
        script(&root.join("ours"), "p", "echo value");
        symlink("ours", root.join("way2")).unwrap();
        assert_eq!(check(&program(root.join("way2/p"))).unwrap(), root.join("ours/p"));
        std::os::unix::fs::lchown(root.join("way2"), Some(12345), Some(12345)).unwrap();
        let error = check(&program(root.join("way2/p"))).unwrap_err();
        assert!(error.contains("way2 belongs to user 12345"), "{error}");
    }
}
