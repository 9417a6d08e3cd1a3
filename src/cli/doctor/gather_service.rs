//! Units of this machine that start a gateway.

use std::path::Path;
use std::path::PathBuf;

use crate::app::survey;
use crate::app::systemd;
use crate::app::systemd::Kind;
use crate::app::systemd::Scope;
use crate::app::systemd::Unit;
use crate::app::unit_file;
use crate::cli::doctor::facts::ServiceFacts;
use crate::cli::doctor::facts::UnitFact;
use crate::cli::gateway::drift;
use crate::cli::gateway::lifecycle;
use crate::cli::gateway::manager;
use crate::cli::gateway::place::Place;
use crate::config::Config;
use crate::sys::env;
use crate::sys::files;

/// Where an administrator puts units of all users.
const EVERY_USER: &str = "/etc/systemd/user";
/// Where systemd says that it runs this machine.
const SYSTEMD: &str = "/run/systemd/system";
/// Where it notes users whose units run without a login.
const LINGER: &str = "/var/lib/systemd/linger";
/// Says whether units are ours to write: `external` means that somebody else does.
const POLICY: &str = "SIGILUM_SERVICE_REPAIR_POLICY";

/// All of them, and what there is to say of the gateway's own.
pub(super) fn service(config: &Config) -> ServiceFacts {
    let (kind, drain_seconds) = (Kind::Gateway, config.drain.as_secs());
    let place = Place::of(&config.paths.data_dir);
    let folder = manager::user_folder().ok();
    let own = folder.as_ref().map(|folder| folder.join(place.unit(kind))).filter(|path| path.is_file());
    let machine = manager::system_folder();
    let system = Some(machine.join(Place::default().unit(kind))).filter(|path| path.is_file());
    let folders: Vec<PathBuf> = folder.into_iter().chain([machine, PathBuf::from(EVERY_USER)]).collect();
    let names = [place.unit(kind), place.unit(Kind::Pair), Place::default().unit(kind)];
    let mut others = survey::units(&folders);
    others.retain(|unit| !names.contains(&unit.name) && (unit.legacy || starts_gateway(&unit.path)));
    let user = env::lookup("USER").or_else(|| env::lookup("LOGNAME"));
    ServiceFacts {
        unit: own.and_then(|path| unit(path, drain_seconds, &place)),
        system,
        others,
        systemd: Path::new(SYSTEMD).is_dir(),
        linger: user.filter(|user| !user.contains('/')).map(|user| Path::new(LINGER).join(user).exists()),
        external: env::lookup(POLICY).is_some_and(|policy| policy == "external"),
        ports: (drift::of(&config.listen.admin), drift::of(&config.listen.ingress)),
    }
}

fn starts_gateway(path: &Path) -> bool {
    let text = files::read_text(path, unit_file::MAX_BYTES).unwrap_or_default();
    unit_file::values(&text, "ExecStart").any(|command| command.contains("gateway"))
}

fn unit(path: PathBuf, drain_seconds: u64, place: &Place) -> Option<UnitFact> {
    let text = files::read_text(&path, unit_file::MAX_BYTES).ok()?;
    let command = unit_file::parse(&text);
    // One that somebody else wrote keeps its command, and is not measured by ours.
    let ours = unit_file::values(&text, "Description").any(|found| found == Kind::Gateway.description());
    let wanted = command.as_ref().filter(|_| ours).and_then(|command| {
        let installed = lifecycle::program().ok();
        let there = command.program.is_file();
        let program = installed.filter(|_| !there).unwrap_or_else(|| command.program.clone());
        let unit = Unit {
            kind: Kind::Gateway,
            drain_seconds,
            suffix: place.suffix(),
            scope: Scope::User,
            program: &program,
            arguments: &command.arguments,
            reload: &command.reload,
            environment: &command.environment,
        };
        systemd::render(&unit).ok()
    });
    let program_exists = command.as_ref().is_some_and(|command| command.program.is_file());
    Some(UnitFact { path, text, command, program_exists, wanted })
}
