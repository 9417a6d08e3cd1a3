//! What a change of the file comes to, by the mode that is in force. Pure.

use crate::config::compare::Difference;
use crate::config::declaration::ReloadMode;
use crate::config::key::Reload;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: what is written otherwise means the same.
    Same,
    /// Nothing, and the differences are told.
    Report,
    /// What is hot is applied; what is not is told.
    Apply,
    /// The gateway starts anew.
    Restart,
}

/// `own_envoy`: Envoy takes changes from us; `restarts`: somebody would start us again.
pub(super) fn judge(mode: ReloadMode, differences: &[Difference], own_envoy: bool, restarts: bool) -> Verdict {
    let takes_restart = differences.iter().any(|difference| !is_hot(difference, own_envoy));
    match mode {
        _ if differences.is_empty() => Verdict::Same,
        ReloadMode::Off => Verdict::Report,
        ReloadMode::Restart if restarts => Verdict::Restart,
        ReloadMode::Hybrid if restarts && takes_restart => Verdict::Restart,
        // With nobody to start it again, ending would be an outage.
        ReloadMode::Hot | ReloadMode::Hybrid | ReloadMode::Restart => Verdict::Apply,
    }
}

/// Whether a change counts without a restart.
pub(super) fn is_hot(difference: &Difference, own_envoy: bool) -> bool {
    match difference.reload {
        Reload::Hot => true,
        Reload::HotEnvoy => own_envoy,
        Reload::Restart => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_and_the_class_of_each_change_decide() {
        use ReloadMode::*;
        let change = |reload| Difference { path: "x".to_owned(), reload, members: Vec::new() };
        let (none, hot) = (Vec::new(), vec![change(Reload::Hot)]);
        let (envoy, restart) = (vec![change(Reload::HotEnvoy)], vec![change(Reload::Hot), change(Reload::Restart)]);
        for (mode, differences, verdict) in [
            (Off, &none, Verdict::Same),
            (Restart, &none, Verdict::Same),
            (Off, &hot, Verdict::Report),
            (Off, &restart, Verdict::Report),
            (Hot, &hot, Verdict::Apply),
            (Hot, &envoy, Verdict::Apply),
            (Hot, &restart, Verdict::Apply),
            (Restart, &hot, Verdict::Restart),
            (Restart, &envoy, Verdict::Restart),
            (Hybrid, &hot, Verdict::Apply),
            (Hybrid, &envoy, Verdict::Apply),
            (Hybrid, &restart, Verdict::Restart),
        ] {
            assert_eq!(judge(mode, differences, true, true), verdict, "{mode:?} {differences:?}");
        }
        // Without a supervisor nobody would start it again, and Envoy is somebody else's.
        assert_eq!(judge(Hybrid, &restart, false, false), Verdict::Apply);
        assert_eq!(judge(Restart, &hot, false, false), Verdict::Apply);
        assert!(!is_hot(&change(Reload::HotEnvoy), false) && is_hot(&change(Reload::HotEnvoy), true));
    }
}
