//! Reading the environment: settings come in through this lookup and nowhere else.

use std::sync::OnceLock;

/// What the command line puts in the place of variables.
static STAND_INS: OnceLock<StandIns> = OnceLock::new();

/// Values of variables that the command line names, and variables that do not count because of it. Said once, before
/// anything is read.
#[derive(Debug, Clone)]
pub struct StandIns {
    /// Name and value; stronger than the variable itself.
    pub values: Vec<(&'static str, String)>,
    /// Whether a variable counts as unset.
    pub hides: fn(&str) -> bool,
}

/// Lets `stand_ins` count from now on. Those that were said first stay.
pub fn stand_in(stand_ins: StandIns) {
    // A second command of one process, in a test, goes by the first.
    let _ = STAND_INS.set(stand_ins);
}

/// Name and value of what stands in for variables: a process of ours that is started with this environment needs the same.
pub fn stood_in() -> Vec<(&'static str, String)> {
    STAND_INS.get().map(|stand_ins| stand_ins.values.clone()).unwrap_or_default()
}

/// The value of a variable. Unset, empty and non-UTF-8 values are all `None`, as every SDK treats them.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn lookup(name: &str) -> Option<String> {
    let stand_ins = STAND_INS.get();
    if let Some((_, value)) = stand_ins.and_then(|all| all.values.iter().find(|(known, _)| *known == name)) {
        return Some(value.clone());
    }
    if is_hidden(name) {
        return None;
    }
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether a variable is set to nothing but blanks: somebody meant to set it.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn is_blank(name: &str) -> bool {
    !is_hidden(name) && std::env::var(name).is_ok_and(|value| value.trim().is_empty())
}

/// The names of all set variables that begin with one of `prefixes`.
pub fn names_with(prefixes: &[&str]) -> Vec<String> {
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)) && !is_hidden(name))
        .collect()
}

fn is_hidden(name: &str) -> bool {
    STAND_INS.get().is_some_and(|stand_ins| (stand_ins.hides)(name))
}
