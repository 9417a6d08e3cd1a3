//! Units for systemd, the user's or the system's: a pure function from what is to run to the text of its file.
//!
//! A unit starts this program itself, with arguments and variables that hold no secret; there is no script in between.
//! Quoting follows systemd.service(5) and systemd.exec(5): values stand in double quotes, `%` and (in `ExecStart=`) `$`
//! are doubled.

use std::path::Path;

/// Which of our units it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The gateway: its supervisor is asked, and drains; what is left after that is killed.
    Gateway,
    /// The bridge.
    Pair,
}

/// Whose systemd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The user's: it runs as that user, and sees what that user sees.
    User,
    /// The machine's: it runs as a user made for it, and sees next to nothing.
    System {
        /// Where the master key comes from; `None`: it makes one of its own in its state folder.
        master_key: Option<Credential<'a>>,
    },
}

/// A file that systemd hands to the unit as a credential ([`MASTER_KEY`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Where it is: an absolute path.
    pub path: &'a Path,
    /// Whether it is encrypted to this machine (`systemd-creds encrypt`).
    pub encrypted: bool,
}

/// The credential that holds the master key: a file of this name in `$CREDENTIALS_DIRECTORY`.
pub const MASTER_KEY: &str = "gateway-master-key";
/// The state folder of the system's unit, below `/var/lib`.
pub const STATE: &str = "sigilum-gateway";
/// The first line of every unit of ours: what does not begin so is somebody else's.
pub const MARK: &str = "# Written by `sigilum`; changes are lost with its next installation.";
/// Exit codes after which starting the gateway again does not help: an option or the configuration is wrong.
const WRONG: &str = "64 78";
/// The same for the bridge, whose session may be over as well.
const FINAL: &str = "42 64 78";
/// What a supervisor takes beyond its drain, in seconds.
pub const STOP_GRACE: u64 = 40;

/// What every gateway may do without, in seconds where there is a number.
const GATEWAY: &[&str] = &[
    // The supervisor alone speaks for it; it says READY when everything answers, and that it lives.
    "NotifyAccess=main",
    "WatchdogSec=30",
    "TimeoutStartSec=60",
    "SuccessExitStatus=143",
    "LimitCORE=0",
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
];

/// What the system's unit may do without besides. Not among them: `MemoryDenyWriteExecute=` (Envoy's Lua compiles), and
/// `ProcSubset=pid` (the boot's id, by which a replay journal is known, is in `/proc/sys`), and `ProtectProc=` (it hides whoever leaves no
/// core dump from others of the same user: the supervisor would not see admin and authz).
const SANDBOX: &[&str] = &[
    "DynamicUser=yes",
    "StateDirectory=sigilum-gateway",
    "StateDirectoryMode=0700",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RemoveIPC=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    // Admin steps back while it reads long lists of approvals.
    "SystemCallFilter=setpriority",
    "SystemCallErrorNumber=EPERM",
    "DevicePolicy=closed",
    "KeyringMode=private",
];

impl Kind {
    /// The name of the unit; `suffix` tells those of several gateways of a user apart.
    pub fn unit(self, suffix: &str) -> String {
        match self {
            Self::Gateway => format!("sigilum-gateway{suffix}.service"),
            Self::Pair => format!("sigilum-gateway-pair{suffix}.service"),
        }
    }

    /// What it is called in its file.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Gateway => "Sigilum Gateway",
            Self::Pair => "Sigilum Gateway Pair Bridge",
        }
    }
}

/// What a unit runs.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// What it is.
    pub kind: Kind,
    /// How long requests in flight have at its end, in seconds; the bridge has none.
    pub drain_seconds: u64,
    /// See [`Kind::unit`].
    pub suffix: &'a str,
    /// Whose systemd runs it.
    pub scope: Scope<'a>,
    /// The program: an absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Its arguments where it is to read its secrets again; empty: it cannot.
    pub reload: &'a [String],
    /// Variables: name and value.
    pub environment: &'a [(String, String)],
}

/// What can stand in no unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A line break or another control character.
    #[error("{0:?} cannot stand in a systemd unit: it holds a control character")]
    Control(String),
    /// Not from the root on, or not UTF-8.
    #[error("{0:?} is no absolute path of a program")]
    Program(String),
}

/// The text of the unit's file.
pub fn render(unit: &Unit<'_>) -> Result<String, UnitError> {
    let mut lines = vec![MARK.to_owned(), "[Unit]".to_owned(), format!("Description={}", unit.kind.description())];
    lines.push("Wants=network-online.target".to_owned());
    lines.push(format!("After=network-online.target{}", after(unit)));
    match unit.kind {
        Kind::Gateway => lines.extend(["StartLimitIntervalSec=60", "StartLimitBurst=5"].map(str::to_owned)),
        // One that cannot connect for a night still does in the morning.
        Kind::Pair => lines.push("StartLimitIntervalSec=0".to_owned()),
    }
    lines.extend([String::new(), "[Service]".to_owned()]);
    lines.push(format!("Type={}", if unit.kind == Kind::Pair { "simple" } else { "notify" }));
    lines.push(format!("ExecStart={}", command(unit.program, unit.arguments)?));
    if !unit.reload.is_empty() {
        lines.push(format!("ExecReload={}", command(unit.program, unit.reload)?));
    }
    for (name, value) in unit.environment {
        lines.push(format!("Environment={}", quoted(&format!("{name}={value}"))?));
    }
    lines.push("Restart=always".to_owned());
    let (restart, stop, last) = match unit.kind {
        Kind::Gateway => (5, unit.drain_seconds.saturating_add(STOP_GRACE), WRONG),
        Kind::Pair => (2, 10, FINAL),
    };
    lines.push(format!("RestartSec={restart}"));
    lines.push(format!("RestartPreventExitStatus={last}"));
    // The first process is asked, the rest is killed when it is gone: nothing is left.
    lines.push("KillMode=mixed".to_owned());
    lines.push(format!("TimeoutStopSec={stop}"));
    lines.push("UMask=0077".to_owned());
    match unit.kind {
        Kind::Gateway => lines.extend(GATEWAY.iter().map(|line| (*line).to_owned())),
        Kind::Pair => lines.push("NoNewPrivileges=yes".to_owned()),
    }
    let target = match unit.scope {
        Scope::User => {
            lines.push("WorkingDirectory=%h".to_owned());
            "default.target"
        }
        Scope::System { master_key } => {
            lines.extend(SANDBOX.iter().map(|line| (*line).to_owned()));
            if let Some(credential) = master_key {
                lines.push(load_credential(&credential)?);
            }
            "multi-user.target"
        }
    };
    lines.extend([String::new(), "[Install]".to_owned(), format!("WantedBy={target}"), String::new()]);
    Ok(lines.join("\n"))
}

fn load_credential(credential: &Credential<'_>) -> Result<String, UnitError> {
    let path = absolute(credential.path)?;
    let plain = path.chars().all(|letter| letter.is_ascii_graphic() && !matches!(letter, '%' | ':' | '"' | '\\'));
    if !plain {
        return Err(UnitError::Control(path.to_owned()));
    }
    let kind = if credential.encrypted { "LoadCredentialEncrypted" } else { "LoadCredential" };
    Ok(format!("{kind}={MASTER_KEY}:{path}"))
}

fn after(unit: &Unit<'_>) -> String {
    match unit.kind {
        Kind::Gateway => String::new(),
        Kind::Pair => format!(" {}", Kind::Gateway.unit(unit.suffix)),
    }
}

fn absolute(path: &Path) -> Result<&str, UnitError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.ok_or_else(|| UnitError::Program(path.display().to_string()))
}

/// A program with its arguments.
fn command(program: &Path, arguments: &[String]) -> Result<String, UnitError> {
    let mut words = vec![quoted(absolute(program)?)?];
    for argument in arguments {
        // A variable is put in place of `$NAME` in arguments alone.
        words.push(quoted(argument)?.replace('$', "$$"));
    }
    Ok(words.join(" "))
}

/// One word: in double quotes, with what means something there written otherwise.
fn quoted(text: &str) -> Result<String, UnitError> {
    if text.chars().any(char::is_control) {
        return Err(UnitError::Control(text.to_owned()));
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
