//! A small volume of its own for what is to be full: a real one, in a mount namespace that only the processes started in it see.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use super::gateway::LIMIT;
use super::gateway::Running;
use super::process::wait_until;

/// Mounts a volume and holds it, also while nobody uses it.
const HOLD: &str = r#"mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1" && echo mounted && exec sleep 100000"#;

/// A volume that only those see who run in it.
pub struct Volume {
    holder: Running,
    /// Where it is mounted.
    pub folder: PathBuf,
}

impl Volume {
    /// One of this size (`64k`), over a folder that is made for it. `None` where nobody may mount, which is told.
    pub fn at(folder: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mut holder = Command::new("unshare");
        holder.args(["--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh"]).arg(&folder).arg(size);
        let mut holder = Running::spawn(piped(holder));
        let mut mounted = false;
        wait_until("a volume, or a word", LIMIT, || {
            mounted = holder.said().contains("mounted");
            mounted || holder.ended().is_some()
        });
        if !mounted {
            println!("left out, because this machine lets nobody mount: {}", holder.said());
        }
        mounted.then_some(Self { holder, folder })
    }

    /// The folder as it is seen from outside.
    pub fn seen(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.pid(), self.folder.display()))
    }

    /// Leaves no byte of it.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.seen().join("filler")).unwrap();
        let full = loop {
            if let Err(error) = filler.write_all(&[1; 64]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Takes away what filled it.
    pub fn make_room(&self) {
        fs::remove_file(self.seen().join("filler")).unwrap();
    }

    /// The same command where the volume is mounted.
    pub fn within(&self, command: &Command) -> Command {
        let mut within = Command::new("nsenter");
        within.args(["--user", "--preserve-credentials", "--mount", "--target", &self.holder.pid().to_string(), "--"]);
        within.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                within.env(name, value);
            }
        }
        piped(within)
    }
}

fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
