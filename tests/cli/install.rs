//! `install`, `versions`, `help`, `completions`, and what is said before a command.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn an_installation_is_made_once_and_replaces_nothing_of_others() {
    let person = Person::new();
    person.file(".zshrc", "mine");
    let install = |more: &[&str]| {
        let mut argv = vec!["install"];
        argv.extend(more);
        person.command(&argv).env("SHELL", "/usr/bin/zsh").output().unwrap()
    };
    let link = person.home().join(".local/bin/sigilum");
    let expected = format!(
        "[ok] Sigilum CLI installed.\nsymlink: {}\nrc file: {}\n",
        link.display(),
        person.home().join(".zshrc").display()
    );
    assert_eq!(text_of(&install(&[]).stdout), expected);
    let line = format!("export PATH=\"{}:$PATH\"", link.parent().unwrap().display());
    assert_eq!(person.read(".zshrc"), format!("mine\n{line}\n"));
    assert_eq!(text_of(&install(&["--with-alias"]).stdout), expected);
    assert_eq!(text_of(&install(&["--with-alias"]).stdout), expected);
    assert_eq!(person.read(".zshrc"), format!("mine\n{line}\nalias sigilum=\"{}\"\n", link.display()));
    let version = Command::new(&link).arg("version").output().unwrap();
    assert!(text_of(&version.stdout).starts_with("sigilum "));

    // A link to an older one is moved; a file is somebody's.
    fs::remove_file(&link).unwrap();
    symlink("/nowhere/sigilum", &link).unwrap();
    assert_eq!(install(&[]).status.code(), Some(0));
    assert!(fs::canonicalize(&link).is_ok());
    fs::remove_file(&link).unwrap();
    person.file(".local/bin/sigilum", "mine");
    let refused = install(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused.stderr).contains("--bin-dir"), "{}", text_of(&refused.stderr));
    assert_eq!(person.read(".local/bin/sigilum"), "mine");
    assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn versions_has_a_padded_row_for_each_part() {
    let person = Person::new();
    let said = person.done(&["versions"]);
    let rows: Vec<(&str, &str)> = said.lines().map(|line| line.split_at(14)).collect();
    let of = |name: &str| rows.iter().find(|(known, _)| known.trim_end() == name).map(|(_, version)| *version);
    for name in ["sigilum", "api", "gateway", "demo-native", "demo-gateway"] {
        assert_eq!(of(name), Some(env!("CARGO_PKG_VERSION")), "{name}");
    }
    for name in ["envoy", "sdks", "sdk-ts", "openclaw", "contracts"] {
        assert_eq!(of(name), Some("missing"), "{name}");
    }
}

#[test]
fn help_knows_commands_and_topics_and_says_what_it_does_not_know() {
    let person = Person::new();
    assert!(person.done(&["help"]).contains("claim"));
    assert!(person.done(&["help", "service", "add"]).contains("--upstream-secret-stdin"));
    assert!(person.done(&["help", "exit-codes"]).contains("64    wrong arguments\n"));
    assert!(person.done(&["help", "settings"]).contains("GATEWAY_ADMIN_TOKEN"));
    for topic in [&["help", "nope"][..], &["help", "service", "nope"], &["help", "exec-envoy"]] {
        let output = person.run(topic);
        assert_eq!(output.status.code(), Some(64), "{topic:?}");
        assert!(output.stdout.is_empty() && text_of(&output.stderr).contains("sigilum help"), "{topic:?}");
    }
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let person = Person::new();
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef sigilum"),
        ("fish", "complete -c sigilum"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let output = person.run(&["completions", shell]);
        let script = text_of(&output.stdout);
        assert!(script.contains(word) && script.contains("claim"), "{shell}");
        assert!(output.stderr.is_empty(), "{shell}");
    }
    assert_eq!(person.run(&["completions", "cmd"]).status.code(), Some(64));
}

#[test]
fn a_command_announces_itself_on_stderr_where_that_is_its_own() {
    let person = Person::new();
    let announced = format!("[i] sigilum {} (identity)\n", env!("CARGO_PKG_VERSION"));
    let output = person.run(&["--namespace", "demo", "identity", "init"]);
    assert!(text_of(&output.stderr).starts_with(&announced), "{}", text_of(&output.stderr));
    assert!(!text_of(&output.stdout).contains("[i]"));
    for silent in [
        &["version"][..],
        &["help"],
        &["request", "GET", "http://127.0.0.1:1/", "--dry-run"],
        &["gateway", "envoy-config"],
    ] {
        assert!(!text_of(&person.run(silent).stderr).contains("[i]"), "{silent:?}");
    }
}
