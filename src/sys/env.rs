//! Reading the environment: settings come in through this lookup and nowhere else.

/// The value of a variable. Unset, empty and non-UTF-8 values are all `None`, as every SDK treats them.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
