//! Asking the control plane to approve a caller: what became of it, as a refusal may tell.

/// How far one registration came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submission {
    /// The control plane answered with 2xx.
    Recorded,
    /// The control plane answered with another status.
    ApiRejected,
    /// Sent, and not answered.
    NoResponse,
    /// Could not be sent.
    FailedBeforeResponse,
    /// Not sent: the gateway registers agents of its own namespace only, and this caller has another.
    ForeignNamespace,
    /// Not sent: the limit of registrations is reached.
    RateLimited,
}

impl Submission {
    /// The word for it in answers and logs; what was never sent has one word, whatever the reason.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::ApiRejected => "api-rejected",
            Self::NoResponse => "no-response",
            Self::FailedBeforeResponse | Self::ForeignNamespace | Self::RateLimited => "failed-before-response",
        }
    }

    /// Whether the control plane said something of the claim.
    pub const fn is_answered(self) -> bool {
        match self {
            Self::Recorded | Self::ApiRejected => true,
            Self::NoResponse | Self::FailedBeforeResponse | Self::ForeignNamespace | Self::RateLimited => false,
        }
    }
}

/// What became of one registration. Texts are empty where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// How far it came.
    pub submission: Submission,
    /// Why it was not sent, for people. Names no secret.
    pub error: String,
    /// Status of the control plane's answer, where there was one.
    pub http_status: Option<u16>,
    /// `cl_` and 24 hex digits.
    pub claim_id: String,
    /// `pending`, `approved`, `rejected`, …
    pub claim_status: String,
    /// The control plane's code, e.g. `SIGNATURE_NAMESPACE_MISMATCH`.
    pub code: String,
    /// The control plane's text.
    pub message: String,
}

impl Registration {
    /// One of which nothing is known but how far it came, and why not further.
    pub fn unsent(submission: Submission, error: &str) -> Self {
        Self {
            submission,
            error: error.to_owned(),
            http_status: None,
            claim_id: String::new(),
            claim_status: String::new(),
            code: String::new(),
            message: String::new(),
        }
    }

    /// The answer to a caller of another namespace than the gateway's: nothing is sent for it.
    pub fn foreign() -> Self {
        Self::unsent(Submission::ForeignNamespace, "the gateway registers agents of its own namespace only")
    }
}

/// What a refusal for want of an approval says of registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registering<'a> {
    /// The gateway registers nobody.
    Disabled,
    /// It does, and nothing is known of this caller's registration.
    Untold,
    /// What is known of it.
    Told(&'a Registration),
}
