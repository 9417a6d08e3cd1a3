//! What all pages have around them: the sections, who is signed in, what has just been done.

use crate::api::Api;
use crate::api::ledger::Status;
use crate::api::namespace_claims;
use crate::api::namespace_claims::ClaimCounts;
use crate::api::problem::Problem;
use crate::dashboard::assets;
use crate::dashboard::visitor::Visitor;

/// The parts of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// `/`.
    Overview,
    /// `/claims`.
    Claims,
    /// `/services`.
    Services,
    /// `/gateway`.
    Gateway,
    /// `/usage`.
    Usage,
}

impl Section {
    /// Whether this is the section a page is in; for templates.
    pub(super) fn is(self, name: &str) -> bool {
        name == match self {
            Self::Overview => "overview",
            Self::Claims => "claims",
            Self::Services => "services",
            Self::Gateway => "gateway",
            Self::Usage => "usage",
        }
    }
}

/// What a page says about what was just done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// Whether it went well.
    pub(super) good: bool,
    /// One sentence.
    pub(super) text: String,
    /// Code of a refusal, or empty.
    pub(super) code: &'static str,
    /// What exactly was wrong with what was sent.
    pub(super) details: Vec<(String, String)>,
}

impl Notice {
    /// What was done, by the word a redirect carries; other words say nothing.
    pub(super) fn done(word: Option<&str>) -> Option<Self> {
        let text = match word? {
            "approved" => "The agent may use the service now.",
            "rejected" => "The claim is rejected.",
            "revoked" => "The approval is revoked; the agent's next request is refused.",
            "service-made" => "The service is there. Make a key for it next.",
            "service-deleted" => "The service is deleted, with its keys, claims and usage.",
            "key-revoked" => "The key is revoked; whoever uses it is refused from now on.",
            "paired" => "The gateway is connected.",
            "gateway-named" => "The gateway has this name in your pages now.",
            "tested" => "The connection was tried; below is what came of it.",
            "pairing-ended" => "The pairing has ended. The gateway is no longer reached from here.",
            "key-handed-over" => "The gateway has a key of the service now: agents can ask for your approval.",
            "connection-made" => "The connection is there.",
            "connection-rotated" => "The secret is replaced. Test the connection to see that the provider takes it.",
            "connection-disabled" => "The connection is disabled; requests through it are refused.",
            "connection-enabled" => "The connection is enabled.",
            "connection-deleted" => "The connection is deleted with its secrets.",
            _ => return None,
        };
        Some(Self { good: true, text: text.to_owned(), code: "", details: Vec::new() })
    }

    /// Why something was not done.
    pub(super) fn problem(problem: &Problem) -> Self {
        let details = problem.violations().into_iter();
        let details = details.map(|one| (one.field.into_owned(), one.message.into_owned())).collect();
        Self { good: false, text: problem.sentence(), code: problem.code(), details }
    }
}

/// What all pages have around them.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Names the files pages refer to.
    pub(super) version: &'static str,
    /// Where we are.
    pub(super) section: Section,
    /// Whose pages these are.
    pub(super) namespace: String,
    /// Their claims by status.
    pub(super) counts: ClaimCounts,
    /// What was just done.
    pub(super) notice: Option<Notice>,
}

impl Layout {
    /// For a page in `section`.
    pub(super) async fn of(api: &Api, visitor: &Visitor, section: Section) -> Result<Self, Problem> {
        let counts = namespace_claims::counts(api, &visitor.owner.namespace).await?;
        let namespace = visitor.owner.namespace.as_str().to_owned();
        Ok(Self { version: assets::version(), section, namespace, counts, notice: None })
    }

    /// The same with what was just done.
    #[must_use]
    pub(super) fn with(self, notice: Option<Notice>) -> Self {
        Self { notice, ..self }
    }

    /// Claims that wait for a decision.
    pub(super) fn pending(&self) -> u64 {
        self.counts.of(Status::Pending)
    }
}
