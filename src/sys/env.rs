//! Reading the environment: settings come in through this lookup and nowhere else.

/// The value of a variable. Unset, empty and non-UTF-8 values are all `None`, as every SDK treats them.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether a variable is set to nothing but blanks: somebody meant to set it.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn is_blank(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value.trim().is_empty())
}

/// The names of all set variables that begin with one of `prefixes`.
pub fn names_with(prefixes: &[&str]) -> Vec<String> {
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}
