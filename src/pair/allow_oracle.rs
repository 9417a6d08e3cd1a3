// What may be relayed, as data, and a second reading of it that shares nothing with the first: for the tests and for the
// fuzz target of `allow.rs`.

/// Method and path. `*` is a name of `A-Z a-z 0-9 . _ -`, which is neither `.` nor `..`; `+` is one of `a-z 0-9 -`.
pub(super) const RELAYED: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("GET", "/api/admin/connections"),
    ("POST", "/api/admin/connections"),
    ("GET", "/api/admin/connections/*"),
    ("PATCH", "/api/admin/connections/*"),
    ("DELETE", "/api/admin/connections/*"),
    ("POST", "/api/admin/connections/*/rotate"),
    ("POST", "/api/admin/connections/*/test"),
    ("POST", "/api/admin/connections/*/discover"),
    ("GET", "/api/admin/connections/*/agents"),
    ("GET", "/api/admin/credential-variables"),
    ("POST", "/api/admin/credential-variables"),
    ("DELETE", "/api/admin/credential-variables/*"),
    ("GET", "/api/admin/openclaw/legacy-keys"),
    ("POST", "/api/admin/openclaw/legacy-keys/import"),
    ("POST", "/api/admin/openclaw/legacy-keys/purge"),
    ("GET", "/api/admin/service-catalog"),
    ("PUT", "/api/admin/service-catalog"),
    ("GET", "/api/admin/service-api-keys/+"),
    ("PUT", "/api/admin/service-api-keys/+"),
    ("GET", "/api/admin/sealing-key"),
    ("GET", "/api/admin/refusals"),
];

/// Whether a request is one of them.
pub(super) fn is_relayed(method: &str, path: &str) -> bool {
    let method = method.to_ascii_uppercase();
    RELAYED.iter().any(|(listed, pattern)| *listed == method && fits(pattern, path))
}

/// Walks through both; a name ends where its letters do.
fn fits(pattern: &str, path: &str) -> bool {
    let Some(next) = pattern.chars().next() else { return path.is_empty() };
    let rest = &pattern[next.len_utf8()..];
    let length = match next {
        '*' => path.find(|letter: char| !letter.is_ascii_alphanumeric() && !"._-".contains(letter)),
        '+' => path.find(|letter: char| !letter.is_ascii_lowercase() && !letter.is_ascii_digit() && letter != '-'),
        letter => return path.strip_prefix(letter).is_some_and(|path| fits(rest, path)),
    };
    let (name, path) = path.split_at(length.unwrap_or(path.len()));
    !["", ".", ".."].contains(&name) && fits(rest, path)
}
