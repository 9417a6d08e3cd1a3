#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and writes files as other programs do"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::config::declaration::Resolution;
use crate::domain::reference::DEFAULT_PROVIDER;
use crate::sys::spawner::Spawner;

const RESOLUTION: Resolution =
    Resolution { max_provider_concurrency: 4, max_refs_per_provider: 512, max_batch_bytes: 256 * 1024 };

fn options(providers: Vec<(&str, ProviderConfig)>) -> SecretsOptions {
    SecretsOptions {
        allow_literals: false,
        providers: providers.into_iter().map(|(name, provider)| (name.to_owned(), provider)).collect(),
        resolution: RESOLUTION,
        max_stale: None,
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn file(path: &Path) -> ProviderConfig {
    let timeout = Duration::from_secs(5);
    ProviderConfig::File { path: path.to_owned(), max_bytes: MAX_FILE_BYTES, timeout, allow_group_read: false }
}

fn program(folder: &Path, body: &str, timeout: Duration) -> ProviderConfig {
    let command = folder.join("provider");
    write(&command, &format!("#!/bin/sh\n{body}\n"), 0o755);
    ProviderConfig::Exec(ExecProvider {
        command,
        args: Vec::new(),
        pass_env: vec!["TOKEN".to_owned(), "UNSET".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        timeout,
        max_output_bytes: 1024 * 1024,
        allow_symlink: false,
        trusted_dirs: Vec::new(),
        json_only: false,
    })
}

fn reference(source: SourceKind, provider: &str, id: &str) -> Origin {
    Origin::Reference(SecretRef::new(source, provider, id).unwrap())
}

fn resolver(handed: Vec<(&str, &str)>) -> Resolver {
    let handed = handed.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())));
    Resolver::new(Launcher::new(Spawner::start().unwrap(), None), Environment::new(handed.collect(), true))
}

fn text(found: &Found, origin: &Origin) -> Result<String, String> {
    found.get(origin).unwrap().as_ref().map(|secret| secret.expose().to_owned()).map_err(Clone::clone)
}

#[tokio::test]
async fn each_source_answers_and_what_fails_names_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    write(&keys, r#"{"slack":{"token":"xoxb-1"},"list":["a","b"],"number":7}"#, 0o600);
    let plain = folder.path().join("plain");
    write(&plain, "two words\n", 0o600);
    let options = options(vec![
        ("keys", file(&keys)),
        ("vault", program(folder.path(), "echo \"$TOKEN-value\"", Duration::from_secs(5))),
        ("few", ProviderConfig::Env { allowlist: Some(vec!["ALLOWED".to_owned()]) }),
    ]);
    let resolver = resolver(vec![("OPENAI", "sk-1"), ("TOKEN", "t"), ("ALLOWED", "yes"), ("OTHER", "canary")]);
    let good = [
        (reference(SourceKind::Env, DEFAULT_PROVIDER, "OPENAI"), "sk-1"),
        (reference(SourceKind::Env, "few", "ALLOWED"), "yes"),
        (reference(SourceKind::File, "keys", "/slack/token"), "xoxb-1"),
        (reference(SourceKind::File, "keys", "/list/1"), "b"),
        (reference(SourceKind::Exec, "vault", "some/id"), "t-value"),
        (Origin::File { path: plain.clone(), id: WHOLE_FILE.to_owned() }, "two words"),
        (Origin::File { path: keys.clone(), id: "/slack/token".to_owned() }, "xoxb-1"),
    ];
    let bad = [
        (reference(SourceKind::Env, DEFAULT_PROVIDER, "NOWHERE"), "restart the gateway"),
        (reference(SourceKind::Env, "few", "OTHER"), "allowlist"),
        (reference(SourceKind::File, "keys", "/slack/none"), "has nothing at /slack/none"),
        (reference(SourceKind::File, "keys", "/number"), "has a number at /number, not a text"),
        (reference(SourceKind::File, "none", "/a"), "no provider none"),
        (reference(SourceKind::Exec, "keys", "a"), "no provider keys of exec references"),
        (Origin::File { path: plain, id: "/a".to_owned() }, "is no JSON"),
    ];
    let wanted = good.iter().chain(&bad).map(|(origin, _)| origin.clone()).collect();
    let found = resolver.resolve(&options, wanted).await;
    assert_eq!(found.len(), good.len() + bad.len());
    for (origin, value) in &good {
        assert_eq!(text(&found, origin).as_deref(), Ok(*value), "{origin}");
    }
    for (origin, said) in &bad {
        let error = text(&found, origin).unwrap_err();
        assert!(error.contains(said) && !error.contains("canary"), "{origin}: {error}");
    }
}

#[tokio::test]
async fn a_program_is_asked_once_for_all_and_again_for_what_is_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("asked");
    let body = format!(
        "read -r line; echo \"$line\" >> {}; printf '{{\"values\":{{'; \
         echo \"$line\" | grep -o '\"id-[0-9]*\"' | sed 's/.*/&:&/' | paste -sd, | tr -d '\\n'; printf '}}}}'",
        log.display()
    );
    let options = options(vec![("vault", program(folder.path(), &body, Duration::from_secs(20)))]);
    let wanted: BTreeSet<_> =
        (0..1100).map(|number| reference(SourceKind::Exec, "vault", &format!("id-{number}"))).collect();
    let found = resolver(Vec::new()).resolve(&options, wanted.clone()).await;
    assert_eq!(found.len(), 1100);
    for origin in &wanted {
        let Origin::Reference(asked) = origin else { unreachable!() };
        assert_eq!(text(&found, origin).as_deref(), Ok(asked.id()));
    }
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_program_that_fails_fails_what_it_was_asked_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(vec![("vault", program(folder.path(), "exec sleep 600", Duration::from_millis(300)))]);
    let (hangs, stands) =
        (reference(SourceKind::Exec, "vault", "a"), reference(SourceKind::Env, DEFAULT_PROVIDER, "KEY"));
    let begun = tokio::time::Instant::now();
    let found = resolver(vec![("KEY", "v")]).resolve(&options, BTreeSet::from([hangs.clone(), stands.clone()])).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(text(&found, &hangs).unwrap_err().contains("did not answer within 300 ms"));
    assert_eq!(text(&found, &stands).as_deref(), Ok("v"));
}

#[test]
fn batches_are_bounded_in_number_and_bytes() {
    let references: Vec<_> =
        (10..30).map(|number| SecretRef::new(SourceKind::Exec, "vault", &format!("id-{number}")).unwrap()).collect();
    let sizes = |most, bytes| batches(&references, most, bytes).iter().map(|batch| batch.len()).collect::<Vec<_>>();
    assert_eq!(sizes(512, 4096), [20]);
    assert_eq!(sizes(7, 4096), [7, 7, 6]);
    // Five letters, two quotes, a comma.
    assert_eq!(sizes(512, 8 * 9), [9, 9, 2]);
    assert_eq!(sizes(512, 1), [1; 20], "an id that fits nowhere is still asked for");
}

#[test]
fn an_origin_is_shown_as_it_is_written() {
    assert_eq!(reference(SourceKind::File, "keys", "/slack/token").to_string(), "file:keys:/slack/token");
    let place = |id: &str| Origin::File { path: PathBuf::from("/run/k"), id: id.to_owned() }.to_string();
    assert_eq!((place(WHOLE_FILE), place("/a")), ("file:/run/k".to_owned(), "file:/run/k#/a".to_owned()));
}

#[tokio::test]
async fn what_is_longer_than_a_secret_may_be_is_refused_wherever_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let [fits, long] = [MAX_SECRET_BYTES, MAX_SECRET_BYTES + 1].map(|length| "c".repeat(length));
    let [small, large] = ["small", "large"].map(|name| folder.path().join(name));
    write(&small, &format!("{fits}\n"), 0o600);
    write(&large, &long, 0o600);
    let many = format!("head -c {} /dev/zero | tr '\\0' c", MAX_SECRET_BYTES + 1);
    let options = options(vec![("vault", program(folder.path(), &many, Duration::from_secs(5)))]);
    let resolver = resolver(vec![("FITS", &fits), ("LONG", &long)]);
    let good =
        [reference(SourceKind::Env, DEFAULT_PROVIDER, "FITS"), Origin::File { path: small, id: WHOLE_FILE.to_owned() }];
    let bad = [
        reference(SourceKind::Env, DEFAULT_PROVIDER, "LONG"),
        reference(SourceKind::Exec, "vault", "a"),
        Origin::File { path: large, id: WHOLE_FILE.to_owned() },
    ];
    let found = resolver.resolve(&options, good.iter().chain(&bad).cloned().collect()).await;
    for origin in &good {
        assert_eq!(text(&found, origin), Ok(fits.clone()), "{origin}");
    }
    for origin in &bad {
        let error = text(&found, origin).unwrap_err();
        assert!(error.contains("has more than 16384 bytes") && !error.contains("ccc"), "{origin}: {error}");
    }
}
