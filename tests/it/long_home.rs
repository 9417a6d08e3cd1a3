//! A home folder whose path is longer than that of a socket may be: the run folder goes by a short name, for every command.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::refused;
use crate::support::process::wait_until;

/// Configuration, bind or lock conflict.
const CONFIG: i32 = 78;

/// Somebody whose home has a path of 150 bytes and more.
struct Deep {
    setup: Setup,
    home: PathBuf,
    /// The run folder, as commands call it.
    name: PathBuf,
}

impl Deep {
    fn new() -> Self {
        let setup = Setup::new();
        let home = setup.root.path().join("h".repeat(150));
        fs::create_dir(&home).unwrap();
        let mut deep = Self { setup, home, name: PathBuf::new() };
        let (code, said) = deep.run(&["gateway", "config", "show", "--effective", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        let at = said.find("/tmp/sigilum-").unwrap_or_else(|| panic!("{said}"));
        deep.name = PathBuf::from(said[at..].split('"').next().unwrap());
        deep
    }

    /// A command with nothing but the defaults that follow from the home.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.setup.command(arguments);
        for name in ["GATEWAY_DATA_DIR", "GATEWAY_SIGILUM_HOME", "GATEWAY_SIGILUM_NAMESPACE"] {
            command.env_remove(name);
        }
        command.env("HOME", &self.home).env("SIGILUM_NAMESPACE", "operator");
        // Where Envoy is installed is no question of the home.
        command.env("XDG_DATA_HOME", self.home.join("share"));
        command.env("ENVOY_BIN", crate::support::parts::envoy_binary());
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text.concat())
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        if self.name.starts_with("/tmp") {
            let _ = fs::remove_file(&self.name);
            let _ = self.name.parent().map(fs::remove_dir);
        }
    }
}

#[test]
fn a_gateway_with_a_deep_home_is_started_found_and_stopped() {
    let deep = Deep::new();
    let mut running = Running::spawn(deep.command(&["gateway", "start"]));
    wait_until("the gateway", LIMIT, || running.ended().is_some() || running.said().contains("ready:"));
    assert!(running.ended().is_none(), "{}", running.said());
    let (code, said) = deep.run(&["gateway", "status", "--require-rpc"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = deep.run(&["doctor", "--only", "gateway/lock"]);
    assert_eq!(code, Some(0), "{said}");
    let private = deep.name.parent().unwrap();
    assert_eq!(fs::symlink_metadata(private).unwrap().mode() & 0o7777, 0o700);
    let folder = deep.home.join("share/sigilum-gateway/run");
    assert!(folder.join("instance.json").exists(), "what must last stays in the data folder");
    // Whoever cleans /tmp hides no gateway.
    fs::remove_file(&deep.name).unwrap();
    let (code, said) = deep.run(&["gateway", "stop", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(running.wait(LIMIT).success(), "{}", running.said());
}

#[test]
fn a_stack_with_a_deep_home_stands_and_is_taken_down() {
    let deep = Deep::new();
    let port = || crate::support::gateway::free_port().to_string();
    let (api, native, upstream) = (port(), port(), port());
    let with_ports = |arguments: &[&str]| {
        let mut command = deep.command(arguments);
        command.env("API_PORT", &api).env("NATIVE_PORT", &native).env("UPSTREAM_PORT", &upstream);
        command
    };
    let mut running = Running::spawn(with_ports(&["up"]));
    wait_until("the stack", LIMIT, || running.ended().is_some() || running.said().contains("ready"));
    assert!(running.ended().is_none(), "{}", running.said());
    let output = with_ports(&["down"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    running.wait(LIMIT);
}

#[test]
fn a_short_name_that_somebody_else_made_is_not_used() {
    let deep = Deep::new();
    let private = deep.name.parent().unwrap().to_owned();
    let trap = deep.setup.root.path().join("trap");
    fs::create_dir(&trap).unwrap();
    std::os::unix::fs::symlink(&trap, &private).unwrap();
    let ended = refused(deep.command(&["gateway", "start"]));
    assert_eq!(ended.code, Some(CONFIG), "{}", ended.said);
    assert!(ended.said.contains(&private.display().to_string()), "{}", ended.said);
    for command in [&["gateway", "stop"][..], &["gateway", "restart"], &["health"]] {
        let (code, said) = deep.run(command);
        assert_eq!(code, Some(CONFIG), "{command:?}: {said}");
    }
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "nothing was left there");
    fs::remove_file(&private).unwrap();
}
