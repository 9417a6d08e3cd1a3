//! What was found out, before anybody judges it: values alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::checkup::StoreLook;
use crate::app::survey::UnitFile;
use crate::app::unit_file::Command;
use crate::cli::doctor::managed::Integration;
use crate::domain::canary::Verdict;
use crate::envoy::binary::EnvoyBinary;
use crate::secrets::residue::Finding as Residue;
use crate::sys::process::PortListener;
use crate::wire::health::ConditionBody;

/// Everything.
#[derive(Debug)]
pub(super) struct Facts {
    /// The configuration.
    pub(super) config: ConfigFacts,
    /// The processes of this installation.
    pub(super) instance: InstanceFacts,
    /// What the gateway says.
    pub(super) gateway: GatewayFacts,
    /// Who listens on the gateway's ports.
    pub(super) ports: Vec<PortFact>,
    /// Envoy.
    pub(super) envoy: EnvoyFacts,
    /// The store, where no gateway holds it.
    pub(super) store: StoreLook,
    /// Files and folders and who may use them.
    pub(super) modes: Vec<ModeFact>,
    /// Folders that should be there and are not.
    pub(super) missing: Vec<PathBuf>,
    /// The gateway's identity.
    pub(super) identity: IdentityFact,
    /// Whether an identity and the master key belong to one user; `None` where one of them is not there.
    pub(super) same_owner: Option<bool>,
    /// Processes of the gateway that could leave a core dump: pid and their limit.
    pub(super) cores: Vec<(i32, String)>,
    /// Units.
    pub(super) service: ServiceFacts,
    /// OpenClaw's configuration.
    pub(super) openclaw: OpenclawFact,
    /// How it is tied to Sigilum.
    pub(super) integration: Integration,
    /// Secrets in clear.
    pub(super) residue: Vec<Residue>,
}

/// The configuration.
#[derive(Debug)]
pub(super) struct ConfigFacts {
    /// Its file.
    pub(super) file: PathBuf,
    /// Whether that is there.
    pub(super) exists: bool,
    /// What is wrong: which value, and in words.
    pub(super) issues: Vec<(String, String)>,
    /// What is likely to be a mistake: the same.
    pub(super) warnings: Vec<(String, String)>,
    /// `token`, `hybrid`, `loopback` or `mtls`.
    pub(super) access: &'static str,
    /// How it stands with the admin token, in modes with a password with that.
    pub(super) token: TokenFact,
    /// Whether the gateway of these settings runs elsewhere (`gateway.mode: remote`).
    pub(super) is_remote: bool,
    /// Whether a store was made, so that the gateway has run.
    pub(super) used: bool,
    /// Listeners a network reaches that speak plain text: what, and where.
    pub(super) plain: Vec<(&'static str, SocketAddr)>,
    /// Settings that would open the gate, by their name, where somebody tried.
    pub(super) unsigned: Vec<&'static str>,
}

/// The admin token or the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenFact {
    /// There is one.
    There,
    /// One that everybody knows.
    Placeholder,
    /// None; its file would be this.
    Missing(PathBuf),
    /// None, and no file is named for it.
    Unnamed,
    /// Its file cannot be read: why.
    Unreadable(String),
}

/// The processes of this installation.
#[derive(Debug, Default)]
pub(super) struct InstanceFacts {
    /// The supervisor, where it lives.
    pub(super) supervisor: Option<i32>,
    /// All living processes, the supervisor included.
    pub(super) pids: Vec<i32>,
    /// The users they may belong to.
    pub(super) users: Vec<u32>,
    /// What a supervisor that is gone left: files that name nobody.
    pub(super) stale: Vec<PathBuf>,
    /// The lock of the data folder.
    pub(super) lock: PathBuf,
    /// Who is named in it and lives, and is not our supervisor: `pid 42 (…)`.
    pub(super) stranger: Option<String>,
}

/// What the gateway says.
#[derive(Debug)]
pub(super) struct GatewayFacts {
    /// Where it was asked.
    pub(super) url: String,
    /// What came back.
    pub(super) reach: Reach,
    /// The conditions of readiness: its own, or those that can be judged without it.
    pub(super) conditions: Vec<ConditionBody>,
    /// What the port of agents did with an unsigned request; `None`: it was not asked.
    pub(super) door: Option<Verdict>,
    /// The version of Envoy that runs.
    pub(super) envoy: Option<String>,
}

/// Whether the admin API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// It does, to our token.
    Answers,
    /// It does, and refuses our token: in words.
    Refused(String),
    /// Nobody does: in words.
    Nobody(String),
    /// Something else: in words.
    Other(String),
}

/// A port of the gateway.
#[derive(Debug, Clone)]
pub(super) struct PortFact {
    /// Which listener.
    pub(super) name: &'static str,
    /// Its addresses.
    pub(super) addresses: Vec<SocketAddr>,
    /// Who listens on the same port.
    pub(super) listeners: Vec<PortListener>,
}

/// Envoy's binary and its configuration.
#[derive(Debug)]
pub(super) struct EnvoyFacts {
    /// The binary, or why the one that was named cannot be used; `None`: none is here yet.
    pub(super) binary: Result<Option<EnvoyBinary>, Unusable>,
    /// Whether the first start can install one.
    pub(super) installable: bool,
    /// Whether somebody outside runs it (`SIGILUM_SUPERVISOR_MODE=external`), as in containers.
    pub(super) outside: bool,
    /// What Envoy said of the configuration it would be given; `None`: it was not asked.
    pub(super) validated: Option<Result<(), String>>,
}

/// Why an Envoy cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unusable {
    /// Why.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: String,
}

/// What others may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Nothing: it holds a secret.
    Secret,
    /// Nothing, but its group may read it: it holds a secret that somebody else keeps for the gateway.
    Shared,
    /// Nothing: it is the gateway's own.
    Own,
    /// Read it, and not change it.
    Readable,
}

/// A file or folder.
#[derive(Debug, Clone)]
pub(super) struct ModeFact {
    /// Where.
    pub(super) path: PathBuf,
    /// What others may do.
    pub(super) privacy: Privacy,
    /// Whether it is a folder.
    pub(super) folder: bool,
    /// Permission bits, with those above them.
    pub(super) mode: u32,
    /// Who owns it: us, root, or a stranger.
    pub(super) owner: Owner,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Ours.
    Us,
    /// Root's, and we are not root.
    Root,
    /// This user's.
    Other(u32),
}

/// The gateway's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdentityFact {
    /// A valid one: its namespace and its file.
    Valid(String, PathBuf),
    /// None, or not clear which: the home it is looked for in, and in words.
    None(PathBuf, String),
    /// One that is not what it should be: its file, and in words.
    Wrong(PathBuf, String),
}

/// Units of this machine.
#[derive(Debug, Default)]
pub(super) struct ServiceFacts {
    /// The gateway's unit of this user.
    pub(super) unit: Option<UnitFact>,
    /// Whether the machine has one of the same name.
    pub(super) system: Option<PathBuf>,
    /// Other units that start a gateway.
    pub(super) others: Vec<UnitFile>,
    /// Whether systemd runs this machine.
    pub(super) systemd: bool,
    /// Whether this user's units run without a login; `None`: the user is not known.
    pub(super) linger: Option<bool>,
    /// Whether units are somebody else's business (`SIGILUM_SERVICE_REPAIR_POLICY=external`).
    pub(super) external: bool,
    /// Ports of the settings: admin and agents.
    pub(super) ports: (Vec<u16>, Vec<u16>),
}

/// A unit's file.
#[derive(Debug, Clone)]
pub(super) struct UnitFact {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What stands in it.
    pub(super) text: String,
    /// Its command, where it is one we would write.
    pub(super) command: Option<Command>,
    /// Whether its program is there.
    pub(super) program_exists: bool,
    /// What we would write for the same command now; `None` where it is not one of ours.
    pub(super) wanted: Option<String>,
}

/// OpenClaw's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenclawFact {
    /// OpenClaw is not on this machine.
    Absent,
    /// It is, without a configuration at this place.
    Missing(PathBuf),
    /// Its configuration cannot be read: why.
    Unreadable(PathBuf, String),
    /// It is no JSON.
    Broken(PathBuf, u32, String),
    /// The configuration.
    Read {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whether our notifier runs.
        notifies: bool,
        /// Whether an owner token stands there.
        token: bool,
    },
}

#[cfg(test)]
#[path = "facts_tests.rs"]
pub(super) mod tests_support;
