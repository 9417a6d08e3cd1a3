//! Secrets that lie about in clear: in settings files, in what older programs left, in backups of editors.
//!
//! Looks at files by name and at lines by what they assign. Shows keyed fingerprints, never a value: two places that
//! hold the same secret show the same, and nobody can test a guess without the key, which is gone with the process.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use ring::hmac;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::domain::hex;
use crate::sys::files;
use crate::sys::random;

/// Largest file that is looked into, in bytes; a secret lies in a small one.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Files of one folder that are looked at.
const MAX_FILES: usize = 4096;
/// Findings of one run.
pub const MAX_FINDINGS: usize = 1000;
/// Shortest value that is taken for a secret.
const LEAST_SECRET: usize = 8;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 6;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A secret in clear.
    PlaintextFound,
    /// A reference that leads nowhere.
    RefUnresolved,
    /// A value that counts for nothing beside a reference.
    RefShadowed,
    /// What an older program, or an editor, left behind.
    LegacyResidue,
}

impl Code {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlaintextFound => "PLAINTEXT_FOUND",
            Self::RefUnresolved => "REF_UNRESOLVED",
            Self::RefShadowed => "REF_SHADOWED",
            Self::LegacyResidue => "LEGACY_RESIDUE",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Should be changed.
    Warn,
    /// Must be changed.
    Error,
}

impl Severity {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Info, Self::Warn, Self::Error].into_iter().find(|severity| severity.name() == text)
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// A file, with `:LINE`; or a dotted name of the configuration.
    pub path: String,
    /// For people; holds no secret.
    pub message: String,
    /// Keyed hash of the value.
    pub fingerprint: Option<String>,
}

/// Makes fingerprints under a key of its own.
pub struct Fingerprints(hmac::Key);

impl std::fmt::Debug for Fingerprints {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Fingerprints")
    }
}

impl Fingerprints {
    /// Under a new key.
    pub fn new() -> Result<Self, random::RandomError> {
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?)))
    }

    /// Of a text: 12 hex digits.
    pub fn of(&self, text: &str) -> String {
        let tag = hmac::sign(&self.0, text.as_bytes());
        hex::text(tag.as_ref().get(..FINGERPRINT_BYTES).unwrap_or_default())
    }
}

/// Looks for secrets in clear.
#[derive(Debug)]
pub struct Search<'a> {
    fingerprints: &'a Fingerprints,
    /// What was found, in the order it was.
    pub findings: Vec<Finding>,
    /// Files that could not be looked into, and why.
    pub skipped: Vec<String>,
}

impl<'a> Search<'a> {
    /// Nothing found yet.
    pub const fn new(fingerprints: &'a Fingerprints) -> Self {
        Self { fingerprints, findings: Vec::new(), skipped: Vec::new() }
    }

    /// Notes a finding.
    pub fn note(&mut self, code: Code, severity: Severity, path: String, message: String, value: Option<&str>) {
        if self.findings.len() < MAX_FINDINGS {
            let fingerprint = value.map(|value| self.fingerprints.of(value));
            self.findings.push(Finding { code, severity, path, message, fingerprint });
        }
    }

    /// Looks at the files of a folder by their names.
    pub fn folder(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().take(MAX_FILES).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_file = fs::metadata(&path).is_ok_and(|found| found.is_file());
            if !is_file {
                continue;
            }
            if name.starts_with("gateway-connection-secret-") {
                let text = "holds a connection's secret in clear, as older programs left it; give it to the gateway \
                            (sigilum connection rotate, or a reference in gateway.yaml) and delete the file";
                self.whole(&path, Code::LegacyResidue, Severity::Error, text);
            } else if name == "legacy-runtime-credentials.json" {
                let text = "holds credentials in clear, as older programs left them; delete it";
                self.whole(&path, Code::LegacyResidue, Severity::Error, text);
            } else if name.starts_with("service-api-key-") {
                self.mode(&path);
            } else if is_env_file(name) || name == "openclaw.json" || is_unit(name) {
                self.assignments(&path, Code::PlaintextFound, Severity::Warn);
            } else if is_backup(name) {
                self.assignments(&path, Code::LegacyResidue, Severity::Error);
            }
        }
    }

    /// A file that is one secret.
    fn whole(&mut self, path: &Path, code: Code, severity: Severity, text: &str) {
        let Some(content) = self.read(path) else { return };
        let value = content.trim();
        if !value.is_empty() {
            self.note(code, severity, path.display().to_string(), text.to_owned(), Some(value));
        }
    }

    /// A file that holds a secret by design: only who else may read it matters.
    pub fn mode(&mut self, path: &Path) {
        let Ok(found) = fs::metadata(path) else { return };
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let text = format!("is open to others (mode {mode:04o}); run: chmod 600 {}", path.display());
            let value = self.read(path).unwrap_or_default();
            self.note(Code::PlaintextFound, Severity::Error, path.display().to_string(), text, Some(value.trim()));
        }
    }

    /// What assigns a secret: a member of JSON, else a line: `NAME=value`, `name: value`, `"name": "value"`.
    pub fn assignments(&mut self, path: &Path, code: Code, severity: Severity) {
        let Some(content) = self.read(path) else { return };
        if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(&content) {
            return self.members(&value, "", &format!("{}#", path.display()), code, severity);
        }
        for (number, line) in content.lines().enumerate() {
            let Some((name, value)) = assignment(line) else { continue };
            if is_secret(name, value) {
                let place = format!("{}:{}", path.display(), number.saturating_add(1));
                self.note(code, severity, place, format!("{name} stands here in clear"), Some(value));
            }
        }
    }

    /// The members of a value called `name`, at any depth.
    fn members(&mut self, value: &Value, name: &str, place: &str, code: Code, severity: Severity) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    // RFC 6901.
                    let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.members(member, name, &place, code, severity);
                }
            }
            Value::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    self.members(entry, name, &format!("{place}/{index}"), code, severity);
                }
            }
            Value::String(text) if is_secret(name, text) => {
                self.note(code, severity, place.to_owned(), format!("{name} stands here in clear"), Some(text));
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn read(&mut self, path: &Path) -> Option<Zeroizing<String>> {
        match files::read_text(path, MAX_FILE_BYTES) {
            Ok(text) => Some(Zeroizing::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.skipped.push(format!("{}: {}", path.display(), error.kind()));
                None
            }
        }
    }
}

fn is_env_file(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.") || name.ends_with(".env") && name != "config.env"
}

/// A systemd unit of ours, or of an older program of this family.
fn is_unit(name: &str) -> bool {
    name.contains("sigilum") && name.ends_with(".service")
}

fn is_backup(name: &str) -> bool {
    let ours = ["gateway", "config", ".env", "openclaw", "service-api-key", "master-key"];
    let old = [".bak", ".old", ".orig", ".save", ".swp", ".backup", "~"];
    let is_old = old.iter().any(|end| name.ends_with(end)) || name.contains(".bak.") || name.starts_with("#");
    is_old && ours.iter().any(|begin| name.trim_start_matches(['.', '#']).starts_with(begin.trim_start_matches('.')))
}

/// Name and value of a line that assigns something.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().trim_end_matches(',');
    let line = line.strip_prefix("export ").unwrap_or(line);
    let line = line.strip_prefix("Environment=").map_or(line, unquoted);
    let line = line.strip_prefix("- ").unwrap_or(line);
    if line.starts_with('#') {
        return None;
    }
    let at = line.find(['=', ':'])?;
    let (name, value) = line.split_at_checked(at)?;
    Some((unquoted(name), unquoted(value.get(1..)?)))
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    inner.unwrap_or(text)
}

/// Whether `name = value` is a secret that is meant to be used, and not a place where one lives.
pub fn is_secret(name: &str, value: &str) -> bool {
    let named = name.rsplit(['.', '/']).next().unwrap_or(name).to_ascii_lowercase();
    let words = ["key", "token", "secret", "password", "passwd", "credential", "private"];
    let place = ["_file", "_path", "_url", "_id", "_name", "_keys", "_tokens", "public_key"];
    let sounds = words.iter().any(|word| named.contains(word)) && !place.iter().any(|end| named.ends_with(end));
    let reference = value.starts_with(['$', '{', '[', '/', '~', '<', '|', '>']) || value.starts_with("ed25519:");
    let long = value.len() >= LEAST_SECRET && !value.contains(' ');
    let plain = value.parse::<f64>().is_ok() || value.contains("://") && !value.contains('@');
    let known = ["sk-", "sk_live", "ghp_", "github_pat_", "xoxb-", "xoxp-", "AKIA", "glpat-", "AIza"];
    let looks = known.iter().any(|prefix| value.starts_with(prefix)) && value.len() > 12;
    !reference && (sounds && long && !plain || looks)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::disallowed_methods,
        reason = "test code may panic, and writes files as other programs do"
    )]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_told_from_settings() {
        for (line, secret) in [
            ("OPENAI_API_KEY=sk-canary-1234", true),
            ("export SLACK_TOKEN=\"xoxb-canary-1234\"", true),
            ("  api_key: 'canary-1234',", true),
            ("\"password\": \"canary-1234\",", true),
            ("note: ghp_canary1234567890", true),
            ("OPENAI_API_KEY=$OTHER_VARIABLE", false),
            ("Environment=\"SLACK_TOKEN=xoxb-canary-1234\"", true),
            ("api_key: {file: /run/secrets/key}", false),
            ("api_key: '{{OPENAI_KEY}}'", false),
            ("KEY_FILE=/run/secrets/canary", false),
            ("public_key: ed25519:AAAAAAAAAAAAAAAA", false),
            ("auth_secret_key: api_key", false),
            ("TOKEN=", false),
            ("TOKEN=short", false),
            ("max_tokens: 123456789", false),
            ("# API_KEY=sk-canary-1234", false),
            ("base_url: https://api.example.com", false),
        ] {
            let found = assignment(line).is_some_and(|(name, value)| is_secret(name, value));
            assert_eq!(found, secret, "{line}");
        }
    }

    #[test]
    fn every_place_is_looked_into_and_no_value_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("gateway-connection-secret-openai", "canary-1", 0o600);
        write("service-api-key-linear", "canary-2", 0o644);
        write("service-api-key-github", "canary-private", 0o600);
        write(".env", "API_KEY=canary-3\nMODE=on\n", 0o600);
        write("gateway.yaml.bak", "connections:\n  - secrets: {}\n    api_key: canary-4\n", 0o600);
        write("config.env~", "GATEWAY_ADMIN_TOKEN=canary-5\n", 0o600);
        write("legacy-runtime-credentials.json", "{\"a\":\"canary-6\"}", 0o600);
        write("openclaw.json", "{\"channels\":{\"a/b\":{\"botToken\":\"canary-7\",\"id\":\"canary\"}}}", 0o600);
        write("openclaw.json.bak.1", "{\n  apiKey: 'canary-8',\n}", 0o600);
        write("sigilum-gateway.service", "[Service]\nEnvironment=\"API_KEY=canary-9\"\n", 0o600);
        write("notes.txt", "API_KEY=canary-elsewhere\n", 0o644);
        let fingerprints = Fingerprints::new().unwrap();
        let mut search = Search::new(&fingerprints);
        search.folder(folder.path());
        let shown = format!("{:?}", search.findings);
        assert!(!shown.contains("canary"), "{shown}");
        let found: Vec<_> = search
            .findings
            .iter()
            .map(|found| {
                let name = found.path.strip_prefix(folder.path().to_str().unwrap()).unwrap();
                let name = name.trim_start_matches('/').to_owned();
                (name, found.code.name(), found.severity.name())
            })
            .collect();
        for expected in [
            (".env:1", "PLAINTEXT_FOUND", "warn"),
            ("config.env~:1", "LEGACY_RESIDUE", "error"),
            ("gateway-connection-secret-openai", "LEGACY_RESIDUE", "error"),
            ("gateway.yaml.bak:3", "LEGACY_RESIDUE", "error"),
            ("legacy-runtime-credentials.json", "LEGACY_RESIDUE", "error"),
            ("openclaw.json#/channels/a~1b/botToken", "PLAINTEXT_FOUND", "warn"),
            ("openclaw.json.bak.1:2", "LEGACY_RESIDUE", "error"),
            ("service-api-key-linear", "PLAINTEXT_FOUND", "error"),
            ("sigilum-gateway.service:2", "PLAINTEXT_FOUND", "warn"),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            assert!(found.contains(&expected), "{expected:?} of {found:?}");
        }
        assert_eq!(found.len(), 9, "{found:?}");
        assert_eq!(fingerprints.of("canary-1"), fingerprints.of("canary-1"));
        assert_ne!(fingerprints.of("canary-1"), Fingerprints::new().unwrap().of("canary-1"));
    }
}
