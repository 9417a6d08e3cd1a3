//! `connection import`, against the real admin process of a gateway, and on a terminal.

use serde_json::json;

use super::fake_admin::Admin;
use super::gateway::Gateway;
use super::gateway::holders;
use super::terminal::typing;
use super::*;

const OPENAI: &str = "sk-proj-canary-0123456789abcdef-OPEN";
const CLAUDE: &str = "sk-ant-api03-canary-0123456789abc-ANTH";

fn env_file() -> String {
    format!(
        "\u{feff}# ours\r\nPORT=8080\r\nexport OPENAI_API_KEY=\"{OPENAI}\" # theirs\r\n\r\nMINE='{CLAUDE}'\r\nGROQ_API_KEY=changeme\r\nLAST=1"
    )
}

/// Exit code, stdout, stderr; no key is in either.
fn run(person: &Person, url: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = person.run(&[&["--gateway-admin-url", url, "connection", "import"], arguments].concat());
    let (stdout, stderr) = (text_of(&output.stdout), text_of(&output.stderr));
    for key in [OPENAI, CLAUDE] {
        assert!(!stdout.contains(key) && !stderr.contains(key) && !stdout.contains(&key[..12]), "{stdout}{stderr}");
    }
    (output.status.code().unwrap(), stdout, stderr)
}

#[test]
fn keys_become_connections_and_it_is_said_how_they_leave_the_file() {
    let person = Person::new();
    let gateway = Gateway::start(&person);
    let url = gateway.url();
    let file = person.file("app/.env", &env_file());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let content = fs::read(&file).unwrap();

    let (code, stdout, stderr) = run(&person, &url, &[&file, "--dry-run"]);
    assert_eq!(code, 0, "{stderr}");
    // Ids and names come from the catalog where the gateway has one.
    let id_of = |variable: &str, stdout: &str| {
        let row: Vec<_> = stdout
            .lines()
            .find(|line| line.starts_with(variable))
            .unwrap()
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect();
        row[row.len() - 2].clone()
    };
    let (openai, claude) = (id_of("OPENAI_API_KEY", &stdout), id_of("MINE", &stdout));
    assert!(stdout.lines().next().unwrap().starts_with("VARIABLE        LINE  KEY      PROVIDER"), "{stdout}");
    assert!(stdout.contains("...OPEN") && stdout.contains("by its value") && !stdout.contains("GROQ"), "{stdout}");
    assert!(stderr.contains("not taken: GROQ_API_KEY (line 6): its value looks like a placeholder"), "{stderr}");
    assert!(stderr.contains("other users of this machine may read") && stderr.contains("chmod 600"), "{stderr}");
    assert!(person.done(&["--gateway-admin-url", &url, "connection", "list"]).contains("No connections."));

    let (code, _, stderr) = run(&person, &url, &[&file]);
    assert_eq!((code, stderr.contains("--yes")), (64, true), "{stderr}");
    let (code, stdout, stderr) = run(&person, &url, &[&file, "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    for said in [
        format!("[ok] Connection {openai} created.\n"),
        format!("[ok] Connection {claude} created.\n"),
        format!("  sed -i 5d '{file}'    # MINE\n  sed -i 3d '{file}'    # OPENAI_API_KEY\n"),
        format!("  OPENAI_BASE_URL=http://127.0.0.1:38000/proxy/{openai}/v1\n"),
        format!("  ANTHROPIC_BASE_URL=http://127.0.0.1:38000/proxy/{claude}\n"),
    ] {
        assert!(stdout.contains(&said), "{said}: {stdout}");
    }
    assert_eq!(fs::read(&file).unwrap(), content, "the file is not touched");
    let held: Value =
        serde_json::from_str(&person.done(&["--gateway-admin-url", &url, "connection", "list", "--json"])).unwrap();
    assert_eq!(held.as_array().unwrap().len(), 2);

    // What is printed deletes exactly the keys.
    let copy = person.file("app/copy", &env_file());
    for line in stdout.lines().filter(|line| line.starts_with("  sed ")) {
        let command = line.split("    #").next().unwrap().replace(&file, &copy);
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }
    let rest = "\u{feff}# ours\r\nPORT=8080\r\n\r\nGROQ_API_KEY=changeme\r\nLAST=1";
    assert_eq!(fs::read_to_string(&copy).unwrap(), rest);

    // A second time nothing is new; --remove deletes the same lines and keeps mode and everything else.
    let (code, stdout, stderr) = run(&person, &url, &[&file, "--yes", "--remove", "--only", "OPENAI_API_KEY"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains(&format!("[ok] Connection {openai} has this key already.\n[ok] line 3 deleted from {file}.\n")),
        "{stdout}"
    );
    let (code, stdout, _) = run(&person, &url, &[&file, "--yes", "--remove", "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["removed"], &report["delete"]), (0, &json!(true), &json!([])), "{report}");
    let entry = &report["connections"][0];
    assert_eq!(
        (&entry["connection"], &entry["action"], &entry["result"]),
        (&json!(claude), &json!("rotate"), &json!("unchanged"))
    );
    assert_eq!(entry["from"][0]["lines"], json!([[4, 4]]), "{entry}");
    assert_eq!(fs::read_to_string(&file).unwrap(), rest);
    assert_eq!(mode(Path::new(&file)), 0o644);
    for key in [OPENAI, CLAUDE] {
        assert_eq!(holders(person.home(), key.as_bytes()), Vec::<String>::new());
    }
    let (code, stdout, _) = run(&person, &url, &[&file, "--yes"]);
    assert_eq!((code, stdout), (0, format!("No provider key is recognised in {file}.\n")));

    // Another key of the same provider rotates.
    let next = person.file("next.env", "OPENAI_API_KEY=sk-proj-another-0123456789abcdef\n");
    let (code, stdout, _) = run(&person, &url, &[&next, "--yes"]);
    assert!(code == 0 && stdout.contains(&format!("[ok] Connection {openai} rotated.\n")), "{stdout}");
}

#[test]
fn a_file_that_cannot_be_read_or_meant_is_named() {
    let person = Person::new();
    let admin = Admin::start(vec![("GET /connections", 200, json!({"connections": []}))]);
    let file = person.file(".env", &env_file());
    let large = person.file("large", &"#\n".repeat(600_000));
    let utf16 = person.file("utf16", "\0O\0P\0E");
    let folder = person.home().to_str().unwrap().to_owned();
    let no_such = format!("{folder}/none");
    for (arguments, code, said) in [
        (&[no_such.as_str(), "--yes"][..], 1, "none: No such file"),
        (&[&folder, "--yes"], 1, "is no ordinary file"),
        (&[&large, "--yes"], 1, "larger than 1048576 bytes"),
        (&[&utf16, "--yes"], 1, "save it as UTF-8"),
        (&[&file, "--yes", "--only", "NOT_THERE"], 1, "sets no variable NOT_THERE"),
        (&[&file, "--yes", "--only", "MINE=Bad_Id"], 1, "perhaps bad-id"),
        (&[&file, "--dry-run", "--remove"], 64, "cannot be used with"),
        (&["--yes"], 64, "<FILE>"),
    ] {
        let (exit, stdout, stderr) = run(&person, &admin.url, arguments);
        assert_eq!((exit, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    assert_eq!(admin.asked(), Vec::new());
}

#[test]
fn what_the_gateway_refuses_stays_in_the_file() {
    let person = Person::new();
    let admin = Admin::start(vec![
        ("GET /connections", 200, json!({"connections": []})),
        ("POST /connections", 400, json!({"error": "the store is full", "code": "FULL"})),
    ]);
    let file = person.file(".env", &env_file());
    let (code, stdout, stderr) = run(&person, &admin.url, &[&file, "--yes", "--remove"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("the store is full") && !stdout.contains("deleted"), "{stdout}{stderr}");
    assert_eq!(fs::read_to_string(&file).unwrap(), env_file());
}

#[test]
fn a_file_that_git_keeps_is_warned_about() {
    let person = Person::new();
    let admin = Admin::start(vec![("GET /connections", 200, json!({"connections": []}))]);
    let file = person.file("repository/.env", &env_file());
    let git = |arguments: &[&str]| {
        let folder = person.home().join("repository");
        let mut git = Command::new("git");
        git.args(arguments).current_dir(folder).env("HOME", person.home()).stdout(Stdio::null()).stderr(Stdio::null());
        git.status().is_ok_and(|status| status.success())
    };
    if !git(&["init"]) {
        return;
    }
    let look = || {
        let mut command =
            person.command(&["--gateway-admin-url", &admin.url, "connection", "import", &file, "--dry-run"]);
        text_of(&command.env("PATH", "/usr/bin:/bin").output().unwrap().stderr)
    };
    assert!(!look().contains("git keeps"), "{}", look());
    assert!(git(&["add", ".env"]));
    assert!(look().contains("git keeps versions of"), "{}", look());
}

#[test]
fn a_person_chooses_one_by_one() {
    let person = Person::new();
    let admin = Admin::start(vec![
        ("GET /connections", 200, json!({"connections": []})),
        ("POST /connections", 201, json!({"id": "x"})),
    ]);
    let file = person.file(".env", &env_file());
    let argv = ["--gateway-admin-url", &admin.url, "connection", "import", &file, "--remove"];
    let questions = [
        ("from OPENAI_API_KEY? [y/N] ", "n\r"),
        ("from MINE? [y/N] ", "y\r"),
        ("Delete line 5 from", ""),
        ("[y/N] ", "y\r"),
    ];
    let shown = typing(&person, &argv, &questions);
    assert!(!shown.contains(CLAUDE) && shown.contains("line 5 deleted from"), "{shown}");
    let created: Vec<_> = admin.asked().into_iter().filter(|(line, _)| line.starts_with("POST")).collect();
    assert_eq!((created.len(), &created[0].1["secrets"]), (1, &json!({"api_key": CLAUDE})));
    assert_eq!(fs::read_to_string(&file).unwrap(), env_file().replace(&format!("MINE='{CLAUDE}'\r\n"), ""));
}
