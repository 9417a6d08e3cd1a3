//! Units for the user's systemd: a pure function from what is to run to the text of its file.
//!
//! A unit starts this program itself, with arguments and variables that hold no secret; there is no script in between.
//! Quoting follows systemd.service(5) and systemd.exec(5): values stand in double quotes, `%` and (in `ExecStart=`) `$`
//! are doubled.

use std::path::Path;

/// How long a unit that ended waits before it starts again, and how it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The gateway: its supervisor is asked, and drains; what is left after that is killed.
    Gateway {
        /// How long requests in flight have, in seconds.
        drain_seconds: u64,
    },
    /// The bridge.
    Pair,
}

/// Exit codes after which starting again does not help: the pairing session is over; the configuration is wrong.
const FINAL: &str = "42 78";
/// What a supervisor takes beyond its drain, in seconds.
const STOP_GRACE: u64 = 40;

impl Kind {
    /// The name of the unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Gateway { .. } => "sigilum-gateway.service",
            Self::Pair => "sigilum-gateway-pair.service",
        }
    }

    /// What it is called in its file.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Gateway { .. } => "Sigilum Gateway",
            Self::Pair => "Sigilum Gateway Pair Bridge",
        }
    }
}

/// What a unit runs.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// What it is.
    pub kind: Kind,
    /// The program: an absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
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
    let program = unit.program.to_str().filter(|_| unit.program.is_absolute());
    let program = program.ok_or_else(|| UnitError::Program(unit.program.display().to_string()))?;
    let mut command = vec![quoted(program)?];
    for argument in unit.arguments {
        // A variable is put in place of `$NAME` in arguments alone.
        command.push(quoted(argument)?.replace('$', "$$"));
    }
    let mut lines = vec![
        "[Unit]".to_owned(),
        format!("Description={}", unit.kind.description()),
        "Wants=network-online.target".to_owned(),
        format!("After=network-online.target{}", after(unit.kind)),
        // One that cannot start for a night still starts in the morning.
        "StartLimitIntervalSec=0".to_owned(),
        String::new(),
        "[Service]".to_owned(),
        "Type=simple".to_owned(),
        format!("ExecStart={}", command.join(" ")),
    ];
    for (name, value) in unit.environment {
        lines.push(format!("Environment={}", quoted(&format!("{name}={value}"))?));
    }
    lines.extend(["WorkingDirectory=%h", "Restart=always"].map(str::to_owned));
    let (restart, stop) = match unit.kind {
        Kind::Gateway { drain_seconds } => (5, drain_seconds.saturating_add(STOP_GRACE)),
        Kind::Pair => (2, 10),
    };
    lines.push(format!("RestartSec={restart}"));
    lines.push(format!("RestartPreventExitStatus={FINAL}"));
    // The first process is asked, the rest is killed when it is gone: nothing is left.
    lines.push("KillMode=mixed".to_owned());
    lines.push(format!("TimeoutStopSec={stop}"));
    lines.push("UMask=0077".to_owned());
    if unit.kind == Kind::Pair {
        lines.push("NoNewPrivileges=yes".to_owned());
    }
    lines.extend([String::new(), "[Install]".to_owned(), "WantedBy=default.target".to_owned(), String::new()]);
    Ok(lines.join("\n"))
}

const fn after(kind: Kind) -> &'static str {
    match kind {
        Kind::Gateway { .. } => "",
        Kind::Pair => " sigilum-gateway.service",
    }
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
