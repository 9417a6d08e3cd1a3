#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::domain::json_spans::blanked;

fn known() -> Known {
    Known::new([("slack".to_owned(), vec!["SLACK_BOT_TOKEN".to_owned(), "SLACK_APP_TOKEN".to_owned()])])
}

fn places(folder: &TempDir) -> LegacyPlaces {
    let home = folder.path().join(".openclaw");
    fs::create_dir_all(home.join(".sigilum")).unwrap();
    fs::create_dir_all(home.join("workspace")).unwrap();
    let user = folder.path().display().to_string();
    LegacyPlaces::from_lookup(|name| (name == "HOME").then(|| user.clone()))
}

fn shown(scan: &Scan) -> Vec<(String, String, String, String)> {
    let row =
        |one: &Found| (one.provider.clone(), one.field.clone(), one.location.clone(), one.value.expose().to_owned());
    scan.found.iter().map(row).collect()
}

fn row(provider: &str, field: &str, location: &str, value: &str) -> (String, String, String, String) {
    (provider.to_owned(), field.to_owned(), location.to_owned(), value.to_owned())
}

#[test]
fn every_place_is_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(&folder);
    let home = folder.path().join(".openclaw");
    fs::create_dir_all(folder.path().join("elsewhere")).unwrap();
    let config = r#"{"agents":{"defaults":{"workspace":"~/elsewhere"}},
        "channels":{"slack":{"botToken":"xoxb-1","appToken":"${SLACK_APP_TOKEN}"}},
        "models":{"providers":{"anthropic":{"apiKey":" sk-ant-1 "}, "empty": {"apiKey": ""}, "n": {"apiKey": 7}}},
        "gateway":{"auth":{"token":"own"}}, "plugins":{"sigilum":{"token":"own"}}}"#;
    fs::write(home.join("openclaw.json"), config).unwrap();
    fs::write(home.join(".env"), "OPENAI_API_KEY=sk-1\nOTHER=x\nGH_TOKEN=$HUB\nOPENAI_API_KEY='sk-2'\n").unwrap();
    fs::write(folder.path().join("elsewhere/.env.local"), "SLACK_APP_TOKEN=\"xapp\"\n").unwrap();
    fs::write(home.join("workspace/.env"), "GH_TOKEN=not-here\n").unwrap();
    let report = r#"{"credentials":[{"provider":"Anthropic","name":"token","value":"t-1"},
        {"variable":"GH_TOKEN","value":"ghp"},{"name":"colour","value":"red"},{"value":"nameless"}],
        "NOTION_API_KEY":{"value":"ntn"},"LINEAR_API_KEY":"lin"}"#;
    fs::write(home.join(".sigilum/legacy-runtime-credentials.json"), report).unwrap();
    let scan = scan(&places, &known());
    assert_eq!(scan.warnings, Vec::<String>::new());
    assert_eq!(
        shown(&scan),
        [
            row("slack", "botToken", "channels.slack.botToken", "xoxb-1"),
            row("claude", "apiKey", "models.providers.anthropic.apiKey", "sk-ant-1"),
            row("openai", "OPENAI_API_KEY", "OPENAI_API_KEY#2", "sk-1"),
            row("openai", "OPENAI_API_KEY", "OPENAI_API_KEY", "sk-2"),
            row("slack", "SLACK_APP_TOKEN", "SLACK_APP_TOKEN", "xapp"),
            row("claude", "token", "credentials.0.value", "t-1"),
            row("github", "GH_TOKEN", "credentials.1.value", "ghp"),
            row("notion", "NOTION_API_KEY", "NOTION_API_KEY.value", "ntn"),
            row("linear", "LINEAR_API_KEY", "LINEAR_API_KEY", "lin"),
        ]
    );
    assert_eq!(scan.files.len(), 4);
}

#[test]
fn what_is_no_ordinary_file_or_no_json_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(&folder);
    let home = folder.path().join(".openclaw");
    let config = home.join("openclaw.json");
    fs::write(&config, "{apiKey: 'canary', // JSON5\n}").unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(home.join(".env")).status().unwrap();
    assert!(pipe.success());
    fs::create_dir(home.join(".env.local")).unwrap();
    fs::File::create(home.join("workspace/.env")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    let scan = scan(&places, &known());
    assert_eq!((scan.found.len(), scan.warnings.len()), (0, 4), "{:?}", scan.warnings);
    assert!(scan.warnings[0].contains("openclaw.json") && scan.warnings[0].contains("no plain JSON"));
    assert!(scan.warnings.iter().all(|warning| !warning.contains("canary")));
    assert_eq!(super::scan(&LegacyPlaces::default(), &known()).files.len(), 0);
}

#[test]
fn many_keys_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(&folder);
    let lines: String = (0..200_000).map(|number| format!("GH_TOKEN=t{number}\n")).collect();
    fs::write(folder.path().join(".openclaw/.env"), lines).unwrap();
    let scan = scan(&places, &known());
    assert_eq!((scan.found.len(), scan.warnings.len()), (MAX_FINDINGS, 1));
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"token\"",
        "\"apiKey\"",
        "\"a\"",
        "\"\\u0041\"",
        "1",
        "\n",
        "OPENAI_API_KEY",
        "=",
        "'",
        "\"",
        "#",
        " ",
        "export ",
        "\\",
        "\r",
        "$",
        "value",
        "\u{feff}",
    ]);
    let part = prop_oneof![
        4 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// A value as it is planted, JSON and `.env` alike: no escapes in it.
const PLANTED: &str = "[a-zA-Z0-9+/_-]{16,40}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_and_spans_lie_inside(files in prop::array::uniform3(noise())) {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        let home = folder.path().join(".openclaw");
        let names = ["openclaw.json", ".env", ".sigilum/legacy-runtime-credentials.json"];
        for (name, bytes) in names.iter().zip(&files) {
            fs::write(home.join(name), bytes).unwrap();
        }
        let scan = scan(&places, &known());
        for one in &scan.found {
            let bytes = &scan.files[one.file].bytes;
            prop_assert!(one.spans.iter().all(|span| span.start < span.end && span.end <= bytes.len()));
            prop_assert!(!one.value.is_empty());
        }
    }

    #[test]
    fn a_purge_changes_the_span_alone_and_the_key_is_gone(
        values in prop::array::uniform3(PLANTED),
        blanks in prop::array::uniform3("[ \t\r\n]{0,5}"),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        let home = folder.path().join(".openclaw");
        let [one, two, three] = &values;
        let [before, between, after] = &blanks;
        let json = |one: &str, two: &str| format!(
            "{before}{{\"x\":{between}1.50e1,\"a\":[{{\"apiKey\"{before}:{after}\"{one}\"}}]{after},\"b\":{{\"bot_token\":\"{two}\"}},\"z\":\"\u{e9}\"}}"
        );
        let env = |three: &str| format!("# {before}\nA=1\nexport GH_TOKEN={three} # mine\r\nB='{{}}'\n");
        fs::write(home.join("openclaw.json"), json(one, two)).unwrap();
        fs::write(home.join(".env"), env(three)).unwrap();
        let first = scan(&places, &known());
        prop_assert_eq!(first.found.len(), 3);
        // What is told of a scan holds no value.
        let told: Vec<_> = first.found.iter().map(|found| {
            format!("{} {} {} {found:?}", found.id("p"), found.location, legacy::masked(found.value.expose()))
        }).collect();
        for value in &values {
            prop_assert!(!told.concat().contains(value.as_str()));
        }
        for (index, file) in first.files.iter().enumerate() {
            let found = first.found.iter().filter(|one| one.file == index);
            let spans: Vec<_> = found.flat_map(|one| one.spans.clone()).collect();
            let blank: &[u8] = if index == 0 { b"\"\"" } else { b"" };
            fs::write(&file.path, blanked(&file.bytes, &spans, blank)).unwrap();
        }
        prop_assert_eq!(fs::read_to_string(home.join("openclaw.json")).unwrap(), json("", ""));
        prop_assert_eq!(fs::read_to_string(home.join(".env")).unwrap(), env(""));
        prop_assert_eq!(scan(&places, &known()).found.len(), 0);
    }
}
