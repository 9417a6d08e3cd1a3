//! What is written down of a change: who asked, what for, and which fields it was about. Never a value of any of them.

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap as _;

use crate::domain::relay::RelaySession;
use crate::domain::time::UnixMillis;

/// Longest text of a stranger's making that is kept, in bytes.
pub const MAX_CLAIM_BYTES: usize = 256;
/// How many names a detail lists; more are counted.
const MAX_NAMES: usize = 64;

/// What let whoever asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// The admin token.
    Token,
    /// A direct client of this machine, where the access mode trusts those.
    Loopback,
    /// A client certificate.
    Certificate,
    /// The password.
    Password,
    /// A trusted proxy, which named the user.
    Proxy,
    /// The token of the metrics, which changes nothing.
    Metrics,
    /// The configuration file.
    Config,
    /// A command that owns the data folder itself.
    Command,
}

impl Via {
    /// The name in tables, lines and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Loopback => "loopback",
            Self::Certificate => "certificate",
            Self::Password => "password",
            Self::Proxy => "trusted-proxy",
            Self::Metrics => "metrics-token",
            Self::Config => "config",
            Self::Command => "command",
        }
    }
}

/// How a secret came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretForm {
    /// Sealed to this gateway: nobody on its way has read it.
    Sealed,
    /// In clear.
    Plain,
}

impl SecretForm {
    /// The word in entries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Plain => "plain",
        }
    }
}

/// Who asked for a change, and which way it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    via: Via,
    actor: String,
    address: String,
    request_id: String,
    /// Whether the actor's name was proven.
    proven: bool,
    relay: Option<RelaySession>,
    secret: Option<SecretForm>,
}

impl Asker {
    /// `address` is the client's, without port; `request_id` is ours. Both may be empty.
    pub fn new(via: Via, address: &str, request_id: &str) -> Self {
        let (address, request_id) = (claim(address), claim(request_id));
        Self { via, actor: String::new(), address, request_id, proven: false, relay: None, secret: None }
    }

    /// The same where a control plane relayed the request.
    #[must_use]
    pub fn relayed(self, relay: Option<RelaySession>) -> Self {
        Self { relay, ..self }
    }

    /// Notes how a secret came that was given with the request. One in clear makes all of them so.
    pub fn note_secret(&mut self, form: SecretForm) {
        self.secret = self.secret.max(Some(form));
    }

    /// The pairing session that relayed the request; `None`: they came themselves.
    pub const fn relay(&self) -> Option<&RelaySession> {
        self.relay.as_ref()
    }

    /// A part of the gateway itself, e.g. a reload of the configuration file or a command.
    pub fn local(via: Via) -> Self {
        Self::new(via, "", "")
    }

    /// The same with the name they give themselves, unless that is blank or another is proven. Nobody has checked it.
    #[must_use]
    pub fn named(mut self, actor: &str) -> Self {
        let actor = claim(actor);
        if !self.proven && !actor.is_empty() {
            self.actor = actor;
        }
        self
    }

    /// The same with the name they have proven, e.g. that of a certificate. No claim goes before it.
    #[must_use]
    pub fn proven(self, actor: &str) -> Self {
        let named = self.named(actor);
        Self { proven: !named.actor.is_empty(), ..named }
    }

    /// What let them in.
    pub const fn via(&self) -> Via {
        self.via
    }

    /// The name they gave themselves; empty where they gave none.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The client's address; empty where there is none.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Our id of the request; empty where there was none.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }
}

/// Sorts of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the action of the name it has in the table below")]
pub enum Action {
    ConnectionCreate,
    ConnectionUpdate,
    ConnectionDelete,
    ConnectionRotate,
    ConnectionTest,
    VariableSet,
    VariableDelete,
    CatalogReplace,
    ServiceKeySet,
    SealingKeySet,
    LegacyKeyPurge,
    ConfigReload,
    SecretsReload,
    StoreRekey,
    StoreBackup,
    StoreRestore,
    AdminTokenRotate,
    AdminPasswordRotate,
    MetricsTokenRotate,
}

impl Action {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::ConnectionCreate,
        Self::ConnectionUpdate,
        Self::ConnectionDelete,
        Self::ConnectionRotate,
        Self::ConnectionTest,
        Self::VariableSet,
        Self::VariableDelete,
        Self::CatalogReplace,
        Self::ServiceKeySet,
        Self::SealingKeySet,
        Self::LegacyKeyPurge,
        Self::ConfigReload,
        Self::SecretsReload,
        Self::StoreRekey,
        Self::StoreBackup,
        Self::StoreRestore,
        Self::AdminTokenRotate,
        Self::AdminPasswordRotate,
        Self::MetricsTokenRotate,
    ];

    /// The name in tables, lines and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectionCreate => "connection.create",
            Self::ConnectionUpdate => "connection.update",
            Self::ConnectionDelete => "connection.delete",
            Self::ConnectionRotate => "connection.rotate",
            Self::ConnectionTest => "connection.test",
            Self::VariableSet => "variable.set",
            Self::VariableDelete => "variable.delete",
            Self::CatalogReplace => "catalog.replace",
            Self::ServiceKeySet => "service_key.set",
            Self::SealingKeySet => "sealing_key.set",
            Self::LegacyKeyPurge => "legacy_key.purge",
            Self::ConfigReload => "config.reload",
            Self::SecretsReload => "secrets.reload",
            Self::StoreRekey => "store.rekey",
            Self::StoreBackup => "store.backup",
            Self::StoreRestore => "store.restore",
            Self::AdminTokenRotate => "admin_token.rotate",
            Self::AdminPasswordRotate => "admin_password.rotate",
            Self::MetricsTokenRotate => "metrics_token.rotate",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == text)
    }
}

/// One change as it is to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: UnixMillis,
    /// What sort.
    pub action: Action,
    /// What it was done to: the id of a connection, the key of a variable, or empty.
    pub target: String,
    /// Who asked.
    pub asker: Asker,
    /// What about it.
    pub detail: Detail,
}

impl Entry {
    /// An entry without details.
    pub fn new(action: Action, target: &str, asker: &Asker, at: UnixMillis) -> Self {
        Self { at, action, target: target.to_owned(), asker: asker.clone(), detail: Detail::default() }
    }

    /// The same with these details.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// The details, and which way the request came where that is worth knowing: relayed, or with sealed secrets.
    pub fn whole_detail(&self) -> Detail {
        let relay = self.asker.relay.as_ref().map(RelaySession::as_str);
        let worth_knowing = |form: &SecretForm| relay.is_some() || *form == SecretForm::Sealed;
        let secret = self.asker.secret.filter(worth_knowing).map(SecretForm::name);
        self.detail.clone().text("relayed", relay.unwrap_or_default()).text("secret", secret.unwrap_or_default())
    }
}

/// An entry as it was written down. The words are those of the version that wrote it, which may be an older one.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the member of the same meaning of an entry")]
pub struct Recorded {
    /// Counts up, without a gap.
    pub id: u64,
    pub at: UnixMillis,
    pub action: String,
    pub target: String,
    pub via: String,
    pub actor: String,
    pub address: String,
    pub request_id: String,
    /// An object.
    pub detail: serde_json::Value,
}

/// Which entries are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Older than this one.
    pub before: Option<u64>,
    /// About this connection.
    pub connection: Option<String>,
    /// Of this sort.
    pub action: Option<Action>,
}

/// What is said about a change beyond its sort: names, counts and words. Values of fields and secrets have no business
/// in here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail(Vec<(&'static str, Said)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(String),
    Number(u64),
    Names(Vec<String>),
    Flag(bool),
}

impl Detail {
    /// Adds a word or a reason, cleaned and cut; nothing where it is blank.
    #[must_use]
    pub fn text(mut self, name: &'static str, text: &str) -> Self {
        let text = claim(text);
        if !text.is_empty() {
            self.0.push((name, Said::Text(text)));
        }
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: &'static str, number: u64) -> Self {
        self.0.push((name, Said::Number(number)));
        self
    }

    /// Adds names, at most 64 of them; nothing where there are none.
    #[must_use]
    pub fn names<T: AsRef<str>>(mut self, name: &'static str, names: impl IntoIterator<Item = T>) -> Self {
        let mut all = names.into_iter();
        let mut listed: Vec<_> = all.by_ref().take(MAX_NAMES).map(|name| claim(name.as_ref())).collect();
        let more = all.count();
        if more > 0 {
            listed.push(format!("and {more} more"));
        }
        if !listed.is_empty() {
            self.0.push((name, Said::Names(listed)));
        }
        self
    }

    /// Adds something that is so; nothing where it is not.
    #[must_use]
    pub fn flag(mut self, name: &'static str, set: bool) -> Self {
        if set {
            self.0.push((name, Said::Flag(true)));
        }
        self
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, said) in &self.0 {
            match said {
                Said::Text(text) => map.serialize_entry(name, text)?,
                Said::Number(number) => map.serialize_entry(name, number)?,
                Said::Names(names) => map.serialize_entry(name, names)?,
                Said::Flag(flag) => map.serialize_entry(name, flag)?,
            }
        }
        map.end()
    }
}

/// Text of a stranger's making: no control characters, no blanks around it, bounded.
pub fn claim(text: &str) -> String {
    let mut clean: String = text.trim().chars().filter(|character| !character.is_control()).collect();
    while clean.len() > MAX_CLAIM_BYTES {
        clean.pop();
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_action_is_read_by_its_own_name() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.name()), Some(action));
        }
        assert_eq!(Action::parse("connection"), None);
    }

    #[test]
    fn a_detail_is_an_object_in_the_order_it_was_said() {
        let detail = Detail::default()
            .names("changed", ["name", "base_url"])
            .text("reason", " leaked\r\n")
            .text("blank", " ")
            .number("secret_version", 3)
            .flag("forced", true)
            .flag("not", false);
        assert_eq!(
            serde_json::to_string(&detail).unwrap(),
            r#"{"changed":["name","base_url"],"reason":"leaked","secret_version":3,"forced":true}"#
        );
        let many = Detail::default().names("ids", (0..100).map(|number| number.to_string()));
        assert!(serde_json::to_string(&many).unwrap().ends_with(r#""63","and 36 more"]}"#));
    }

    #[test]
    fn an_entry_says_which_way_a_request_came_and_how_its_secrets_did() {
        let said = |relay: Option<&str>, forms: &[SecretForm]| {
            let mut asker = Asker::new(Via::Token, "", "").relayed(relay.and_then(RelaySession::parse));
            forms.iter().for_each(|form| asker.note_secret(*form));
            let entry = Entry::new(Action::VariableSet, "KEY", &asker, UnixMillis(0));
            serde_json::to_string(&entry.with(Detail::default().number("version", 1)).whole_detail()).unwrap()
        };
        let (sealed, plain) = (SecretForm::Sealed, SecretForm::Plain);
        assert_eq!(said(None, &[plain]), r#"{"version":1}"#);
        assert_eq!(said(None, &[sealed]), r#"{"version":1,"secret":"sealed"}"#);
        assert_eq!(said(Some("s-1"), &[]), r#"{"version":1,"relayed":"s-1"}"#);
        assert_eq!(said(Some("s-1"), &[sealed, sealed]), r#"{"version":1,"relayed":"s-1","secret":"sealed"}"#);
        for mixed in [[sealed, plain], [plain, sealed]] {
            assert_eq!(said(Some("s-1"), &mixed), r#"{"version":1,"relayed":"s-1","secret":"plain"}"#);
        }
    }

    #[test]
    fn no_claim_goes_before_a_proven_name() {
        let asker = Asker::new(Via::Certificate, "", "").proven("ops").named("mallory");
        assert_eq!(asker.actor(), "ops");
        assert_eq!(Asker::local(Via::Command).named("one").named(" ").named("two").actor(), "two");
    }

    proptest! {
        #[test]
        fn what_a_stranger_says_is_short_and_one_line(text in "\\PC{0,400}|[\\x00-\\x7f]{0,400}") {
            let asker = Asker::new(Via::Token, &text, &text).named(&text);
            for said in [asker.actor(), asker.address(), asker.request_id()] {
                prop_assert!(said.len() <= MAX_CLAIM_BYTES && !said.chars().any(char::is_control));
            }
        }
    }
}
