//! What `--deep` adds: units and processes of this machine that look like a gateway's and are not of this installation. They
//! are named with what could be done about them, and left alone.

use std::path::PathBuf;

use crate::app::survey;
use crate::app::survey::StrayProcess;
use crate::app::survey::UnitFile;
use crate::cli::gateway::lifecycle;
use crate::sys::env;
use crate::wire::status::ExtraServiceBody;

/// Where the units of all users, and of the machine, are.
const SYSTEM: [&str; 5] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/Library/LaunchDaemons",
];
const EVERY_USER: [&str; 3] = ["/etc/systemd/user", "/usr/lib/systemd/user", "/Library/LaunchAgents"];

/// What was found.
pub(super) struct Deep {
    /// What an older gateway left.
    pub(super) legacy: Vec<ExtraServiceBody>,
    /// Everything else.
    pub(super) extra: Vec<ExtraServiceBody>,
}

/// Looks for units besides those called one of `own`, and for processes besides `known`.
pub(super) fn look(own: &[&str], known: &[i32]) -> Deep {
    let mut user: Vec<PathBuf> = EVERY_USER.iter().map(PathBuf::from).collect();
    user.extend(lifecycle::folder().ok());
    user.extend(env::lookup("HOME").map(|home| PathBuf::from(home).join("Library/LaunchAgents")));
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let mut units: Vec<_> = survey::units(&user).into_iter().map(|unit| (unit, "user")).collect();
    units.extend(survey::units(&system).into_iter().map(|unit| (unit, "system")));
    sort(units, survey::stray_processes(known), own)
}

fn sort(units: Vec<(UnitFile, &'static str)>, processes: Vec<StrayProcess>, own: &[&str]) -> Deep {
    let mut deep = Deep { legacy: Vec::new(), extra: Vec::new() };
    for (unit, scope) in units {
        // The machine's unit of our name is another gateway's than the user's.
        if scope == "user" && own.contains(&unit.name.as_str()) && !unit.legacy {
            continue;
        }
        let which = if scope == "user" { "systemctl --user" } else { "sudo systemctl" };
        let detail = format!(
            "{}; if it is not needed: `{which} disable --now {}`, then remove the file",
            unit.path.display(),
            unit.name
        );
        let list = if unit.legacy { &mut deep.legacy } else { &mut deep.extra };
        list.push(ExtraServiceBody { label: unit.name, scope: scope.to_owned(), detail });
    }
    for process in processes {
        let detail = format!("pid {}, {}; not of this installation", process.pid, process.role);
        let found = ExtraServiceBody { label: process.program, scope: "process".to_owned(), detail };
        let list = if process.role == "an older gateway" { &mut deep.legacy } else { &mut deep.extra };
        list.push(found);
    }
    deep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_unit_is_no_stranger_and_an_older_ones_is_a_leftover() {
        let unit =
            |name: &str, legacy| UnitFile { name: name.to_owned(), path: PathBuf::from("/u").join(name), legacy };
        let own = "sigilum-gateway.service";
        let units = vec![
            (unit(own, false), "user"),
            (unit(own, false), "system"),
            (unit("sigilum-old.service", true), "user"),
            (unit("sigilum-b.service", false), "user"),
        ];
        let process = StrayProcess { pid: 7, program: "envoy".to_owned(), role: "envoy".to_owned() };
        let deep = sort(units, vec![process], &[own]);
        let told = |list: &[ExtraServiceBody]| {
            list.iter().map(|one| format!("{} {}", one.scope, one.label)).collect::<Vec<_>>()
        };
        assert_eq!(told(&deep.extra), [format!("system {own}").as_str(), "user sigilum-b.service", "process envoy"]);
        assert_eq!(told(&deep.legacy), ["user sigilum-old.service"]);
    }
}
