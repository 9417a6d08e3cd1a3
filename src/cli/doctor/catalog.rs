//! Every check of `doctor`: one row each, in the order they are told.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Severity;
use crate::cli::doctor::judge;
use crate::cli::doctor::judge_machine as machine;
use crate::cli::doctor::managed;
use crate::wire::health::ConditionKind;

/// A check.
#[derive(Debug)]
pub(super) struct Check {
    /// Its name for programs: what it is about, and what of that.
    pub(super) id: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    /// What it means, and why it matters.
    pub(super) explanation: &'static str,
    /// The worst it can find.
    pub(super) worst: Severity,
    /// What `--fix` does about it; `None`: nothing.
    pub(super) fix: Option<&'static str>,
    /// Judges the facts.
    pub(super) judge: fn(&Facts) -> Judged,
}

/// The check of this name.
pub(super) fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

/// All of them.
pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "config/schema",
        title: "Configuration",
        explanation: "Reads gateway.yaml, config.env, the environment and options as the gateway does, and tells every mistake. \
                      A gateway does not start with a mistake, and a running one goes on with the settings it had.",
        worst: Severity::Error,
        fix: None,
        judge: judge::schema,
    },
    Check {
        id: "gateway/mode",
        title: "Gateway meant",
        explanation: "Looks whether commands ask the gateway of this machine or one elsewhere. Where they ask another than the \
                      one that runs here, what they show and change is not what serves the agents of this machine.",
        worst: Severity::Warning,
        fix: None,
        judge: judge::mode,
    },
    Check {
        id: "gateway/allow-unsigned",
        title: "Unsigned requests",
        explanation: "Looks for settings of older gateways that let unsigned requests through. No setting opens the gate any \
                      more, and a start with one of them is refused.",
        worst: Severity::Critical,
        fix: None,
        judge: judge::unsigned,
    },
    Check {
        id: "gateway/auth-present",
        title: "Admin token",
        explanation: "Looks whether the admin API asks for a token, whether there is one, and whether the running gateway takes \
                      it. Whoever may use the admin API may change where credentials are sent.",
        worst: Severity::Error,
        fix: None,
        judge: judge::auth,
    },
    Check {
        id: "gateway/bind-auth",
        title: "Open listeners",
        explanation: "Looks at every address that other machines reach. Without auth the gateway refuses to listen there, and \
                      without TLS what passes can be read on the way.",
        worst: Severity::Critical,
        fix: None,
        judge: judge::bind,
    },
    Check {
        id: "gateway/lock",
        title: "Data folder",
        explanation: "Looks who holds the lock of the data folder, and whether a gateway that is gone left files. Two gateways \
                      on one store would each undo what the other does.",
        worst: Severity::Error,
        fix: Some("removes instance.json and sockets of a gateway that is gone, while it holds the lock itself"),
        judge: judge::lock,
    },
    Check {
        id: "gateway/health",
        title: "Gateway health",
        explanation: "Asks the admin API. Where it does not answer, commands have nobody to talk to, and agents nobody to let \
                      them through.",
        worst: Severity::Error,
        fix: None,
        judge: judge::health,
    },
    Check {
        id: "gateway/port-collision",
        title: "Ports",
        explanation: "Looks for other programs on the ports of agents, of the admin API and of Envoy's statistics, also beside \
                      the gateway's own sockets. Such a program keeps the gateway from starting, or gets requests that were \
                      meant for it.",
        worst: Severity::Critical,
        fix: None,
        judge: judge::ports,
    },
    Check {
        id: "envoy/binary",
        title: "Envoy",
        explanation: "Looks for the Envoy that would run, or for what it takes to install one. Without it no request is \
                      answered.",
        worst: Severity::Error,
        fix: None,
        judge: judge::envoy_binary,
    },
    Check {
        id: "envoy/version",
        title: "Envoy version",
        explanation: "Compares Envoy's version with the one this gateway is made for. Others may behave differently where \
                      it matters, and those before 1.39.1 crash.",
        worst: Severity::Warning,
        fix: None,
        judge: judge::envoy_version,
    },
    Check {
        id: "envoy/validate",
        title: "Envoy configuration",
        explanation: "Has Envoy judge the configuration the settings lead to. One it refuses keeps the gateway from starting, \
                      or a change from being applied.",
        worst: Severity::Error,
        fix: None,
        judge: judge::envoy_validate,
    },
    Check {
        id: "envoy/live",
        title: "Envoy state",
        explanation: "Asks the running gateway whether its Envoy serves. Without that no agent is answered.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::EnvoyLive),
    },
    Check {
        id: "envoy/xds",
        title: "Envoy in sync",
        explanation: "Asks the running gateway whether Envoy and authz have taken what was given to them last. Where they have \
                      not, they go by what they had before.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::XdsInSync),
    },
    Check {
        id: "ingress/certificate",
        title: "Certificate for agents",
        explanation: "Asks the running gateway whether the certificate agents see is the one of its file. A broken or expired \
                      one is not taken, and the old one is shown on.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::IngressCertificate),
    },
    Check {
        id: "authz/fail-closed",
        title: "Gate is closed",
        explanation: "Sends an unsigned request to the port of agents, which must be refused. One that is let through means \
                      that everybody can use the providers' keys.",
        worst: Severity::Critical,
        fix: None,
        judge: judge::fail_closed,
    },
    Check {
        id: "authz/nonce-store",
        title: "Replay window",
        explanation: "Asks the running gateway whether admitted requests can be written down. Where they cannot, all are \
                      refused, because one could come again after a restart.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::NonceStore),
    },
    Check {
        id: "authz/replay-shared",
        title: "One replay window",
        explanation: "Asks the running gateway whether every authz that decides for the same connection remembers used \
                      requests in the same place. One that does not is refused, because a request could be used at each.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::ReplayShared),
    },
    Check {
        id: "authz/certificates",
        title: "Certificates for the state",
        explanation: "Asks the running gateway whether the certificates that authz processes of other hosts show it end soon, or                       have ended. One without a certificate goes on with what it had, and hears of no change.",
        worst: Severity::Warning,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::StateCertificates),
    },
    Check {
        id: "authz/remote",
        title: "Authz of other hosts",
        explanation: "Asks the running gateway whether an authz of another host says that something is wrong with it. \
                      Others go on: such a word makes nobody else unready.",
        worst: Severity::Warning,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::RemoteAuthz),
    },
    Check {
        id: "store/open",
        title: "Store",
        explanation: "Opens the store, or asks the gateway that has it open. Connections and their secrets are in there.",
        worst: Severity::Error,
        fix: None,
        judge: judge::store,
    },
    Check {
        id: "store/master-key",
        title: "Master key",
        explanation: "Tries the master key on the store's own proof of it, without changing anything. With another key nothing \
                      in the store can be read, and the gateway does not start.",
        worst: Severity::Error,
        fix: None,
        judge: judge::master_key,
    },
    Check {
        id: "secrets/snapshot",
        title: "Secret references",
        explanation: "Asks the running gateway whether the references of gateway.yaml lead to secrets. Where they do not, it \
                      goes on with those it had, and a new start would fail.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::SecretsSnapshot),
    },
    Check {
        id: "secrets/audit",
        title: "Secrets in clear",
        explanation: "Counts secrets that stand in files in clear, as `sigilum secrets audit` lists them. Whoever reads such a \
                      file has the secret, whatever the gateway protects.",
        worst: Severity::Error,
        fix: None,
        judge: machine::residue,
    },
    Check {
        id: "files/folders",
        title: "Folders",
        explanation: "Looks for the folders of identities and of the store. A first start makes them.",
        worst: Severity::Info,
        fix: Some("makes them, mode 0700"),
        judge: machine::folders,
    },
    Check {
        id: "files/modes",
        title: "Permissions",
        explanation: "Looks who may read and change keys, tokens, identities, settings, the store and logs. What others can \
                      read they know, and what they can change decides where credentials go.",
        worst: Severity::Error,
        fix: Some("takes permissions of others away where the file is ours; it never gives any"),
        judge: machine::modes,
    },
    Check {
        id: "identity/present",
        title: "Gateway identity",
        explanation: "Looks for the identity under which the gateway asks the Sigilum API. Without it only approvals of \
                      gateway.yaml count.",
        worst: Severity::Warning,
        fix: None,
        judge: machine::identity_present,
    },
    Check {
        id: "identity/key-match",
        title: "Identity record",
        explanation: "Checks that key, certificate and names of the identity belong together. With a record that was changed \
                      the gateway does not start.",
        worst: Severity::Error,
        fix: None,
        judge: machine::identity_match,
    },
    Check {
        id: "identity/same-owner",
        title: "Separate users",
        explanation: "Looks whether an identity and the master key belong to one user. A program of that user can read the key \
                      file and with it every provider key: the gateway keeps secrets from agents of other users only.",
        worst: Severity::Info,
        fix: None,
        judge: machine::same_owner,
    },
    Check {
        id: "claims/fresh",
        title: "Approvals",
        explanation: "Asks the running gateway when approvals were last confirmed by the Sigilum API. What is not confirmed in \
                      time is refused.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::ClaimsFresh),
    },
    Check {
        id: "api/reachable",
        title: "API health",
        explanation: "Asks the Sigilum API, and says so where a page for people answers in its place. Without it nobody can be \
                      approved, and approvals run out.",
        worst: Severity::Warning,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::ApiReachable),
    },
    Check {
        id: "host/clock",
        title: "Clock",
        explanation: "Compares the clock with the API's. Signatures carry a time, and a clock that is minutes off refuses all \
                      of them.",
        worst: Severity::Error,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::ClockSane),
    },
    Check {
        id: "host/disk",
        title: "Disk",
        explanation: "Looks how much room is left for the data folder. Without any, nothing can be changed and every request \
                      is refused.",
        worst: Severity::Warning,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::DiskSpace),
    },
    Check {
        id: "host/core-dumps",
        title: "Core dumps",
        explanation: "Looks at the limits of the gateway's processes. A core dump of one of them holds credentials in clear.",
        worst: Severity::Warning,
        fix: None,
        judge: machine::cores,
    },
    Check {
        id: "pair/bridge",
        title: "Pairing",
        explanation: "Looks whether a bridge that was started is connected to its dashboard. One whose session is over takes a \
                      new one.",
        worst: Severity::Warning,
        fix: None,
        judge: |facts| judge::condition(facts, ConditionKind::PairBridge),
    },
    Check {
        id: "service/drift",
        title: "Unit",
        explanation: "Compares the unit of the gateway with what this version writes for the same command. A unit of an older \
                      version may start a program that is gone, or end it in a way that loses requests.",
        worst: Severity::Error,
        fix: Some(
            "writes the unit anew after a yes, stops it before and starts it again where it runs; never drop-ins, and not where \
                   the machine has such a unit",
        ),
        judge: machine::drift,
    },
    Check {
        id: "service/port-drift",
        title: "Unit ports",
        explanation: "Compares the ports of the unit with those of the settings. Where they differ, commands and the gateway \
                      do not meet.",
        worst: Severity::Warning,
        fix: None,
        judge: machine::port_drift,
    },
    Check {
        id: "service/linger",
        title: "Unit without login",
        explanation: "Looks whether units of this user run while nobody is logged in. Where they do not, the gateway ends with \
                      the last session.",
        worst: Severity::Warning,
        fix: None,
        judge: machine::linger,
    },
    Check {
        id: "service/duplicate",
        title: "Second unit",
        explanation: "Looks for other units that start a gateway. The second one finds the folder locked and is started again \
                      and again.",
        worst: Severity::Error,
        fix: None,
        judge: machine::duplicate,
    },
    Check {
        id: "service/legacy-unit",
        title: "Older unit",
        explanation: "Looks for units of the gateway before this one, which leave their processes running. Those hold the ports \
                      and the old secrets.",
        worst: Severity::Error,
        fix: None,
        judge: machine::legacy,
    },
    Check {
        id: "openclaw/config",
        title: "OpenClaw config",
        explanation: "Looks who may read OpenClaw's configuration, whether it is JSON5, and whether the notifier of approvals has \
                      the owner token it needs. With that token anybody can approve anything.",
        worst: Severity::Error,
        fix: Some("takes permissions of others away"),
        judge: machine::openclaw,
    },
    Check {
        id: "managed/onboarding",
        title: "Managed onboarding",
        explanation: "Looks for an owner token where OpenClaw is tied to the hosted API. Without it nobody approves what its \
                      agents ask for.",
        worst: Severity::Warning,
        fix: None,
        judge: managed::onboarding,
    },
    Check {
        id: "managed/home",
        title: "Managed runtime home",
        explanation: "Looks whether OpenClaw's runtime is told where its service keys are (SIGILUM_HOME). Without it none is \
                      found.",
        worst: Severity::Error,
        fix: None,
        judge: managed::home,
    },
    Check {
        id: "managed/service-key",
        title: "Managed service key",
        explanation: "Looks for a service key in the folder of OpenClaw's runtime or in the environment. Without one the hosted \
                      API tells nothing of what is approved.",
        worst: Severity::Error,
        fix: None,
        judge: managed::service_key,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_two_sentences() {
        let mut ids: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CHECKS.len());
        for check in CHECKS {
            assert!(check.id.split('/').count() == 2 && !check.title.is_empty(), "{check:?}");
            assert_eq!(check.explanation.matches(". ").count(), 1, "{}", check.id);
            assert!(check.explanation.ends_with('.'), "{}", check.id);
        }
    }

    #[test]
    fn every_condition_of_readiness_has_its_check() {
        for kind in ConditionKind::ALL {
            assert!(find(kind.finding()).is_some(), "{kind:?}");
        }
    }
}
