//! The pipe between the supervisor and its children: who may connect, and that the parent lives.
//!
//! A supervised process has a pipe as its standard input. Lines come down it, each ended by LF:
//! `secret <NAME> <hex of UTF-8>` hands over a secret (argv and environment can be read by others),
//! `go` ends the secrets, `peer <pid>` names the one process that may connect to the child's Unix
//! socket until the next such line, `peer <pid> <pid>` that one and the one about to take its place, `leave` says that a
//! successor of the child stands ready. The end of the file means that the parent is gone.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Resource;
use rustix::process::Rlimit;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::peer::PeerRule;
use crate::sys::process;
use crate::sys::tasks::Stop;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;

/// The hidden command that ties a program's life to its parent's: `<parent pid> <program> <arguments>`.
pub const EXEC_ENVOY: &str = "__exec-envoy";
/// The same for a program that knows secrets, which is held shorter: `<parent pid> <program> <arguments>`.
pub const EXEC_PROVIDER: &str = "__exec-provider";

/// The hidden command by which a program leaves its terminal: `<program> <arguments>`.
pub const EXEC_DETACHED: &str = "__exec-detached";

/// The variable of a pair code.
pub const PAIR_CODE_VARIABLE: &str = "SIGILUM_PAIR_CODE";
/// The variable of a pairing session's id.
pub const PAIR_SESSION_VARIABLE: &str = "SIGILUM_PAIR_SESSION_ID";

/// The first descriptor behind standard input, output and error.
const FIRST_OWN_FILE: i32 = 3;
/// Most open files of a program that knows secrets.
const PROVIDER_FILES: u64 = 1024;
/// Most processor time of one, in seconds: it is given less time than that altogether.
const PROVIDER_CPU_SECONDS: u64 = 60;

/// How admin ends where the gateway is to start anew with its settings as they are now: `EX_TEMPFAIL` of `sysexits.h`, come
/// again. The supervisor drains, reads the settings again and starts; where they cannot be used it goes on with those
/// before, and admin is told ([`crate::reload::Setup::held_back`]).
pub const EXIT_ANEW: u8 = 75;

/// Longest line: a secret of 16 KiB in hex and its name.
const MAX_LINE: usize = 40 * 1024;
/// Most secrets that are handed over: each service may have a key of its own, and each declared connection a variable.
pub const MAX_SECRETS: usize = 65_536;

/// Why the parent was not understood.
#[derive(Debug, thiserror::Error)]
pub enum SupervisionError {
    /// The parent ended before it said what we need.
    #[error("the supervisor is gone")]
    Gone,
    /// Something else than the protocol came.
    #[error("standard input is not a supervisor's pipe")]
    Protocol,
    /// The pipe could not be read.
    #[error("standard input: {0}")]
    Io(#[from] io::Error),
}

/// One line, read.
enum Line {
    Secret(String, Secret),
    Go,
    Peer(i32, Option<i32>),
    Leave,
}

/// The line that ends the secrets.
pub const GO: &str = "go\n";

/// The line that tells a child to leave its place to a successor.
pub const LEAVE: &str = "leave\n";

/// The line that names the process which may connect, and the one that is about to take its place.
pub fn peer_line(pid: i32, successor: Option<i32>) -> String {
    match successor {
        Some(successor) => format!("peer {pid} {successor}\n"),
        None => format!("peer {pid}\n"),
    }
}

/// What a supervisor says while its child works.
#[derive(Debug)]
pub struct Orders {
    /// The rule for the process that may connect; `None` until it was named.
    pub peers: watch::Receiver<Option<PeerRule>>,
    /// Called when a successor stands ready; `None`: nobody will call it.
    pub leave: Option<Stop>,
}

/// The line that hands a secret over. Names are variable names: no blanks.
pub fn secret_line(name: &str, secret: &Secret) -> Zeroizing<String> {
    use std::fmt::Write as _;
    let mut line = Zeroizing::new(String::with_capacity(name.len() + secret.expose().len() * 2 + 9));
    line.push_str("secret ");
    line.push_str(name);
    line.push(' ');
    for byte in secret.expose().bytes() {
        // Writing to a String cannot fail.
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    line
}

/// Reads the secrets the supervisor hands over, by name. Blocks until its `go`; call it once, at start,
/// before [`supervised_peers`].
pub fn supervised_secrets() -> Result<Vec<(String, Secret)>, SupervisionError> {
    read_secrets(&mut standard_input()?)
}

/// Under a supervisor: the rule for the one process that may connect, `None` until it was named. Calls
/// `stop` as soon as the supervisor is gone or says what cannot be understood.
pub fn supervised_peers(stop: StopHandle) -> watch::Receiver<Option<PeerRule>> {
    supervised_orders(stop).peers
}

/// The same, with the word that a successor stands ready.
pub fn supervised_orders(stop: StopHandle) -> Orders {
    let (sender, peers) = watch::channel(None);
    let (leaving, leave) = stop_pair();
    let work = move || {
        if let Ok(mut input) = standard_input() {
            follow(&mut input, &sender, &leaving);
        }
        stop.stop();
    };
    // Reading a pipe blocks: a thread of its own, ended by the end of the file or of the process.
    if let Err(error) = std::thread::Builder::new().name("supervision".to_owned()).spawn(work) {
        tracing::error!(error = %error, "the supervisor cannot be followed");
    }
    Orders { peers, leave: Some(leave) }
}

/// Without a supervisor: any process of our own user, and nobody who takes over.
pub fn unsupervised_orders() -> Orders {
    Orders { peers: unsupervised_peers(), leave: None }
}

/// Without a supervisor: any process of our own user.
pub fn unsupervised_peers() -> watch::Receiver<Option<PeerRule>> {
    watch::channel(Some(PeerRule::same_user())).1
}

/// Becomes another program that dies with `parent`: on Linux the kernel kills it when the thread of the
/// parent that started us ends. Takes no core dumps and as many open files as it may along. Returns only
/// what went wrong.
pub fn exec_with_parent(parent: u32, program: &Path, arguments: &[OsString]) -> io::Error {
    let files = rustix::process::getrlimit(Resource::Nofile);
    become_child(parent, program, arguments, &[(Resource::Nofile, Rlimit { current: files.maximum, ..files })])
}

/// The same for a program that knows secrets: bounded in open files and processor time.
pub fn exec_provider_with_parent(parent: u32, program: &Path, arguments: &[OsString]) -> io::Error {
    let at_most = |resource, most: u64| {
        let maximum = rustix::process::getrlimit(resource).maximum.map_or(most, |found| found.min(most));
        (resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })
    };
    // What we open closes by itself; what whoever started the gateway had open does not.
    close_fds::set_fds_cloexec(FIRST_OWN_FILE, &[]);
    let limits = [at_most(Resource::Nofile, PROVIDER_FILES), at_most(Resource::Cpu, PROVIDER_CPU_SECONDS)];
    become_child(parent, program, arguments, &limits)
}

/// Becomes another program in a session of its own (`setsid`): a terminal that is closed does not end it, and nothing of
/// what the caller had open stays open in it. Returns only what went wrong.
pub fn exec_detached(program: &Path, arguments: &[OsString]) -> io::Error {
    if let Err(error) = rustix::process::setsid() {
        return error.into();
    }
    close_fds::set_fds_cloexec(FIRST_OWN_FILE, &[]);
    std::process::Command::new(program).args(arguments).exec()
}

/// This very program with other arguments, to be started so ([`exec_detached`]); what it prints goes to `log`. Session and
/// code of a pairing do not stay in its environment, which is there to be read as long as it lives: who needs them is
/// given them by another way.
pub fn detached(arguments: &[String], log: &File) -> io::Result<std::process::Command> {
    let program = process::own_program();
    let mut command = std::process::Command::new(&program);
    command.arg(EXEC_DETACHED).arg(&program).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    command.envs(env::stood_in()).env_remove(PAIR_CODE_VARIABLE).env_remove(PAIR_SESSION_VARIABLE);
    Ok(command)
}

fn become_child(parent: u32, program: &Path, arguments: &[OsString], limits: &[(Resource, Rlimit)]) -> io::Error {
    let prepare = || -> io::Result<()> {
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        for (resource, limit) in limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    if let Err(error) = prepare() {
        return error;
    }
    // A parent that died before the line above would never be noticed.
    if std::os::unix::process::parent_id() != parent {
        return io::Error::other("the supervisor is gone");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Standard input without the standard library's buffer, which would keep a copy of every secret.
fn standard_input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn read_secrets(input: &mut impl io::Read) -> Result<Vec<(String, Secret)>, SupervisionError> {
    let mut secrets = Vec::new();
    loop {
        match read_line(input)? {
            Line::Secret(name, secret) if secrets.len() < MAX_SECRETS => secrets.push((name, secret)),
            Line::Go => return Ok(secrets),
            Line::Secret(..) | Line::Peer(..) | Line::Leave => return Err(SupervisionError::Protocol),
        }
    }
}

/// Follows the lines until there is nothing more to read or to understand.
fn follow(input: &mut impl io::Read, peers: &watch::Sender<Option<PeerRule>>, leaving: &StopHandle) {
    loop {
        match read_line(input) {
            Ok(Line::Peer(pid, successor)) => {
                peers.send_replace(Some(PeerRule { pid: Some(pid), successor, ..PeerRule::same_user() }));
            }
            Ok(Line::Leave) => leaving.stop(),
            // A child that needs no secrets does not read them first.
            Ok(Line::Secret(..) | Line::Go) => {}
            Err(_) => return,
        }
    }
}

/// Reads one line byte by byte: a few short ones in a process's life.
#[expect(
    clippy::unbuffered_bytes,
    reason = "a buffer would keep what follows from the next reader, and copies of secrets"
)]
fn read_line(input: &mut impl io::Read) -> Result<Line, SupervisionError> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    for byte in input.bytes() {
        match byte? {
            b'\n' => return parse(&line).ok_or(SupervisionError::Protocol),
            _ if line.len() == MAX_LINE => return Err(SupervisionError::Protocol),
            byte => line.push(byte),
        }
    }
    Err(SupervisionError::Gone)
}

fn parse(line: &[u8]) -> Option<Line> {
    let line = std::str::from_utf8(line).ok()?;
    match line {
        "go" => return Some(Line::Go),
        "leave" => return Some(Line::Leave),
        _ => {}
    }
    let process = |text: &str| text.parse().ok().filter(|pid| *pid > 0);
    match line.split_once(' ')? {
        ("peer", rest) => match rest.split_once(' ') {
            Some((pid, successor)) => Some(Line::Peer(process(pid)?, Some(process(successor)?))),
            None => process(rest).map(|pid| Line::Peer(pid, None)),
        },
        ("secret", rest) => {
            let (name, hex) = rest.split_once(' ')?;
            let mut bytes = Zeroizing::new(Vec::with_capacity(hex.len() / 2));
            for pair in hex.as_bytes().chunks(2) {
                if pair.len() != 2 {
                    return None;
                }
                bytes.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
            }
            let text = std::str::from_utf8(&bytes).ok()?;
            Some(Line::Secret(name.to_owned(), Secret::new(text.to_owned())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "test code may panic"
    )]

    use super::*;

    #[test]
    fn secrets_come_over_as_they_were() {
        let text = "päss word\nwith everything";
        let pipe = format!("{}{GO}", *secret_line("GATEWAY_MASTER_KEY", &Secret::new(text.to_owned())));
        assert!(!pipe.contains("word"), "nobody reads it over a shoulder");
        let secrets = read_secrets(&mut pipe.as_bytes()).unwrap();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets[0].0, "GATEWAY_MASTER_KEY");
        assert!(secrets[0].1.matches(text.as_bytes()));
    }

    #[test]
    fn a_parent_that_goes_before_it_said_go_is_noticed() {
        assert!(matches!(read_secrets(&mut &b""[..]), Err(SupervisionError::Gone)));
        assert!(matches!(read_secrets(&mut &b"go"[..]), Err(SupervisionError::Gone)));
        for bad in ["hello\n", "secret A zz\n", "secret A 6\n", "secret\n", "peer 1\n", "\n"] {
            assert!(matches!(read_secrets(&mut bad.as_bytes()), Err(SupervisionError::Protocol)), "{bad}");
        }
        let endless = vec![b'x'; MAX_LINE + 2];
        assert!(matches!(read_secrets(&mut &endless[..]), Err(SupervisionError::Protocol)));
    }

    #[test]
    fn the_last_peer_named_is_the_one_that_may_connect() {
        let (sender, receiver) = watch::channel(None);
        let (leaving, leave) = stop_pair();
        let pipe = format!("{GO}{}{}", peer_line(41, None), peer_line(42, Some(43)));
        follow(&mut pipe.as_bytes(), &sender, &leaving);
        let rule = receiver.borrow().unwrap();
        assert_eq!((rule.pid, rule.successor, rule.uid), (Some(42), Some(43), PeerRule::same_user().uid));
        follow(&mut peer_line(43, None).as_bytes(), &sender, &leaving);
        assert_eq!(receiver.borrow().unwrap().successor, None);
        assert!(!leave.is_called(), "nobody has said so");
    }

    #[test]
    fn a_child_is_told_to_leave_by_a_word_and_by_nothing_else() {
        let (sender, _receiver) = watch::channel(None);
        let (leaving, leave) = stop_pair();
        follow(&mut &b"go\nleave now\n"[..], &sender, &leaving);
        assert!(!leave.is_called());
        follow(&mut format!("{GO}{LEAVE}").as_bytes(), &sender, &leaving);
        assert!(leave.is_called());
    }

    #[test]
    fn what_is_started_detached_has_no_session_and_no_code_in_its_environment() {
        let command = detached(&["gateway".to_owned()], &tempfile::tempfile().unwrap()).unwrap();
        for name in [PAIR_CODE_VARIABLE, PAIR_SESSION_VARIABLE] {
            let removed = command.get_envs().any(|(found, value)| found == name && value.is_none());
            assert!(removed, "{name}: {command:?}");
        }
    }

    #[test]
    fn nobody_may_connect_before_a_peer_is_named() {
        let (sender, receiver) = watch::channel(None);
        for bad in ["go\npeer -1\npeer 7\n", "peer 7 0\npeer 7\n", "peer 7 8 9\npeer 7\n"] {
            follow(&mut bad.as_bytes(), &sender, &stop_pair().0);
            assert!(receiver.borrow().is_none(), "what cannot be understood ends the conversation");
        }
    }
}
