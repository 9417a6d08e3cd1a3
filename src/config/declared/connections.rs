//! `connections`: the admin API's create bodies, with references where the API takes secrets.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::config::declaration::DeclaredConnection;
use crate::config::declaration::MAX_CONNECTIONS;
use crate::config::declaration::SecretSource;
use crate::config::declared::Path;
use crate::config::declared::Reader;
use crate::config::declared::Rules;
use crate::config::declared::blame;
use crate::config::declared::entries;
use crate::config::declared::items;
use crate::config::declared::member;
use crate::config::file::shown;
use crate::config::form::Member;
use crate::config::mistake::MAX_FOUND;
use crate::config::mistake::Mistake;
use crate::config::structure::CONNECTION;
use crate::config::structure::TOOLS;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::domain::address::AddressPolicy;
use crate::domain::connection::Credential;
use crate::domain::connection::InvalidConnection;
use crate::domain::connection::Upstream;
use crate::domain::draft::CheckedDraft;
use crate::domain::draft::Draft;
use crate::domain::draft::MCP_MEMBERS;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ToolPolicy;

/// Stands for a base address something is wrong with while the rest is judged.
const SOME_BASE_URL: &str = "https://example.com";
/// Stands for an id something is wrong with.
const SOME_ID: &str = "some-id";

/// Reads all connections. What is wrong is added to `mistakes`; the rest is still returned.
pub(in crate::config) fn read(
    node: Option<Node>,
    rules: &Rules<'_>,
    policy: &AddressPolicy,
    mistakes: &mut Vec<Mistake>,
) -> Vec<DeclaredConnection> {
    let path = Path::Root("connections");
    let Some(node) = node else { return Vec::new() };
    let items = items(node, &path, MAX_CONNECTIONS, mistakes).unwrap_or_default();
    let mut connections = Vec::with_capacity(items.len());
    let mut lines: HashMap<ConnectionId, u32> = HashMap::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = Path::Index(&path, index);
        let before = mistakes.len();
        if before >= MAX_FOUND {
            break;
        }
        let mut written = Written::new(item.mark);
        written.read(item, rules, &path, mistakes);
        let Some(checked) = written.check(policy, &path, mistakes) else { continue };
        // Also where something else is wrong with one of the two, but not where the id itself is.
        if !written.replaced.contains(&"id") {
            if let Some(line) = lines.get(&checked.settings.id) {
                let what = format!("is the id of the connection in line {line} already");
                blame(mistakes, written.mark_of("id"), &Path::Member(&path, "id"), &what);
            } else {
                lines.insert(checked.settings.id.clone(), written.mark.line());
            }
        }
        if mistakes.len() == before {
            connections.push(DeclaredConnection { checked, secrets: written.secrets, line: written.mark.line() });
        }
    }
    connections
}

/// A connection as it stands in the file.
struct Written {
    draft: Draft,
    secrets: BTreeMap<String, SecretSource>,
    mark: Mark,
    /// Where the value of each member stands.
    marks: Vec<(&'static str, Mark)>,
    /// Members that something is wrong with and that hold something harmless by now, so that the rest can be judged.
    replaced: Vec<&'static str>,
}

impl Written {
    fn new(mark: Mark) -> Self {
        Self { draft: Draft::default(), secrets: BTreeMap::new(), mark, marks: Vec::new(), replaced: Vec::new() }
    }

    fn mark_of(&self, name: &str) -> Mark {
        self.marks.iter().find(|(known, _)| *known == name).map_or(self.mark, |(_, mark)| *mark)
    }

    fn has(&self, name: &str) -> bool {
        self.marks.iter().any(|(known, _)| *known == name)
    }

    fn read(&mut self, item: Node, rules: &Rules<'_>, path: &Path<'_>, mistakes: &mut Vec<Mistake>) {
        let Some(entries) = entries(item, path, mistakes) else {
            self.replaced.extend(["base_url", "id", "secrets"]);
            return;
        };
        for Entry { key, mark, value } in entries {
            let path = Path::Member(path, &key);
            match member(CONNECTION, &key) {
                Ok(_) if value.is_nothing() => {}
                Ok(member) => {
                    self.marks.push((member.name, value.mark));
                    let before = mistakes.len();
                    self.set(member, value, rules, &path, mistakes);
                    if mistakes.len() > before {
                        self.replaced.push(member.name);
                    }
                }
                Err(known) => {
                    let message = format!("unknown key {}; a connection knows {known}", shown(&key));
                    mistakes.push(Mistake { place: mark.place(), path: path.to_string(), message });
                }
            }
        }
    }

    fn set(&mut self, member: &Member, node: Node, rules: &Rules<'_>, path: &Path<'_>, mistakes: &mut Vec<Mistake>) {
        let draft = &mut self.draft;
        let mut reader = Reader { mistakes };
        match member.name {
            "id" => draft.id = reader.text(node, path).unwrap_or_default(),
            "name" => draft.name = reader.text(node, path).unwrap_or_default(),
            "protocol" => draft.protocol = reader.text(node, path).unwrap_or_default(),
            "base_url" => draft.base_url = reader.text(node, path).unwrap_or_default(),
            "path_prefix" => draft.path_prefix = reader.text(node, path).unwrap_or_default(),
            "auth_mode" => draft.auth_mode = reader.choice(node, member, path).unwrap_or_default(),
            "auth_header_name" => draft.auth_header_name = reader.text(node, path),
            "auth_prefix" => draft.auth_prefix = reader.text(node, path),
            "auth_secret_key" => draft.auth_secret_key = reader.text(node, path).unwrap_or_default(),
            "secrets" => self.secrets = rules.secrets(node, path, mistakes),
            "rotation_interval_days" => {
                let days = reader.whole(&node, member, path).unwrap_or_default();
                draft.rotation_interval_days = i64::try_from(days).unwrap_or(i64::MAX);
            }
            "status" => {
                draft.disabled = reader.choice(node, member, path).is_some_and(|text| text.trim() == "disabled");
            }
            "allow_private" => draft.allow_private = reader.boolean(&node, path).unwrap_or_default(),
            "allowed_methods" => draft.allowed_methods = reader.texts(node, member, path).unwrap_or_default(),
            "allowed_paths" => draft.allowed_paths = reader.texts(node, member, path).unwrap_or_default(),
            "upgrades" => draft.upgrades = reader.texts(node, member, path).unwrap_or_default(),
            "response_timeout_ms" => draft.response_timeout_ms = reader.whole(&node, member, path),
            "max_stream_seconds" => draft.max_stream_seconds = reader.whole(&node, member, path),
            "extra_headers" => draft.extra_headers = reader.text_map(node, member, path).unwrap_or_default(),
            "allow_set_cookie" => draft.allow_set_cookie = reader.boolean(&node, path).unwrap_or_default(),
            "forward_trace" => draft.forward_trace = reader.boolean(&node, path).unwrap_or_default(),
            "mcp_transport" => draft.mcp_transport = reader.choice(node, member, path).unwrap_or_default(),
            "mcp_endpoint" => draft.mcp_endpoint = reader.text(node, path).unwrap_or_default(),
            "mcp_subject_tool_policies" => draft.mcp_subjects = subjects(node, member, path, mistakes),
            _ => set_policy(&mut draft.mcp_policy, member, node, path, mistakes),
        }
    }

    /// The connection by the rules of the admin API; every mistake, not the first. `None` where what is wrong
    /// cannot be told apart any further.
    fn check(&mut self, policy: &AddressPolicy, path: &Path<'_>, mistakes: &mut Vec<Mistake>) -> Option<CheckedDraft> {
        for name in self.replaced.clone() {
            self.replace(name);
        }
        let secrets_known = !self.replaced.contains(&"secrets");
        if self.draft.auth_secret_key.trim().is_empty() {
            let only = self.secrets.keys().next().filter(|_| self.secrets.len() == 1);
            self.draft.auth_secret_key = only.cloned().unwrap_or_default();
            let http = !self.draft.protocol.trim().eq_ignore_ascii_case("mcp");
            if self.secrets.is_empty() && http {
                if secrets_known {
                    blame(mistakes, self.mark, path, "has no secrets: the one to inject must stand there");
                }
                self.replace("auth_secret_key");
            } else if !secrets_known {
                self.replace("auth_secret_key");
            }
        }
        let checked = loop {
            let invalid = match self.draft.clone().check(policy) {
                Ok(checked) => break checked,
                Err(invalid) => invalid,
            };
            let (name, what) = self.told(invalid);
            let message = format!("{path}.{name}: {what}");
            let mistake = Mistake { place: self.mark_of(name).place(), path: format!("{path}.{name}"), message };
            mistakes.push(mistake);
            if self.replaced.contains(&name) {
                // What was put in its place is refused too: no harm is left to find.
                return None;
            }
            self.replace(name);
        };
        self.check_secrets(&checked, secrets_known, path, mistakes);
        Some(checked)
    }

    /// Whether the secret to inject is there, and can be injected where it is at hand.
    fn check_secrets(&self, checked: &CheckedDraft, known: bool, path: &Path<'_>, mistakes: &mut Vec<Mistake>) {
        let key = checked.auth_secret_key.as_deref().filter(|_| known && !self.replaced.contains(&"auth_secret_key"));
        let Some(key) = key else { return };
        match self.secrets.get(key) {
            None => {
                let place = Path::Member(path, "auth_secret_key");
                blame(mistakes, self.mark_of("auth_secret_key"), &place, "names none of the secrets");
            }
            Some(SecretSource::Literal(secret)) => {
                if let Err(invalid) = Credential::build(&checked.settings, secret) {
                    blame(
                        mistakes,
                        self.mark_of("secrets"),
                        &Path::Member(path, "secrets"),
                        &format!("{key}: {invalid}"),
                    );
                }
            }
            Some(SecretSource::Reference(_) | SecretSource::File { .. }) => {}
        }
    }

    /// Which member is wrong, and what is wrong with it.
    fn told(&self, invalid: InvalidConnection) -> (&'static str, String) {
        match invalid {
            InvalidConnection::BaseUrl(why) => {
                // An endpoint with a scheme is read as a base address is.
                let own = Upstream::parse(&self.draft.base_url).is_err();
                let name = if own { "base_url" } else { "mcp_endpoint" };
                let rule = "must be an absolute http:// or https:// URL without user, query or fragment";
                (name, format!("{rule}: {why}"))
            }
            InvalidConnection::Field { field, reason } => {
                let group = MCP_MEMBERS.iter().find(|name| self.has(name) && !self.replaced.contains(name));
                match field {
                    "mcp_*" => (group.copied().unwrap_or("protocol"), reason),
                    "mcp tool list" => {
                        let lists = MCP_MEMBERS.iter().filter(|name| name.contains("tool"));
                        let list = lists.clone().find(|name| self.has(name) && !self.replaced.contains(name));
                        (list.copied().unwrap_or("protocol"), reason)
                    }
                    field => (field, reason),
                }
            }
            InvalidConnection::SecretCharacters | InvalidConnection::SecretEmpty => ("secrets", invalid.to_string()),
        }
    }

    /// Puts something harmless where something wrong stood.
    fn replace(&mut self, name: &'static str) {
        let draft = &mut self.draft;
        match name {
            "id" => SOME_ID.clone_into(&mut draft.id),
            "base_url" => SOME_BASE_URL.clone_into(&mut draft.base_url),
            "auth_secret_key" => SOME_ID.clone_into(&mut draft.auth_secret_key),
            "name" => draft.name.clear(),
            "protocol" => draft.protocol.clear(),
            "path_prefix" => draft.path_prefix.clear(),
            "auth_mode" => draft.auth_mode.clear(),
            "auth_header_name" => draft.auth_header_name = None,
            "auth_prefix" => draft.auth_prefix = None,
            "rotation_interval_days" => draft.rotation_interval_days = 0,
            "allowed_methods" => draft.allowed_methods.clear(),
            "allowed_paths" => draft.allowed_paths.clear(),
            "upgrades" => draft.upgrades.clear(),
            "response_timeout_ms" => draft.response_timeout_ms = None,
            "max_stream_seconds" => draft.max_stream_seconds = None,
            "extra_headers" => draft.extra_headers.clear(),
            "mcp_transport" => draft.mcp_transport.clear(),
            "mcp_endpoint" => draft.mcp_endpoint.clear(),
            "mcp_tool_allowlist" => draft.mcp_policy.allow.clear(),
            "mcp_tool_denylist" => draft.mcp_policy.deny.clear(),
            "mcp_max_tools_exposed" => draft.mcp_policy.max_tools = None,
            "mcp_subject_tool_policies" => draft.mcp_subjects.clear(),
            _ => {}
        }
        self.replaced.push(name);
    }
}

/// One member of a tool policy, of all subjects or of one.
fn set_policy(policy: &mut ToolPolicy, member: &Member, node: Node, path: &Path<'_>, mistakes: &mut Vec<Mistake>) {
    let mut reader = Reader { mistakes };
    match member.name {
        "mcp_tool_allowlist" | "allowlist" => policy.allow = reader.texts(node, member, path).unwrap_or_default(),
        "mcp_tool_denylist" | "denylist" => policy.deny = reader.texts(node, member, path).unwrap_or_default(),
        // 0 is no limit, as in the admin API.
        _ => {
            let most = reader.whole(&node, member, path).and_then(|most| u32::try_from(most).ok());
            policy.max_tools = most.filter(|most| *most > 0);
        }
    }
}

/// Tool policies by subject.
fn subjects(
    node: Node,
    member_of: &Member,
    path: &Path<'_>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, ToolPolicy> {
    let most = member_of.form.most();
    let mark = node.mark;
    let mut policies = BTreeMap::new();
    let subjects = entries(node, path, mistakes).unwrap_or_default();
    if subjects.len() > most {
        blame(mistakes, mark, path, &format!("has more than {most} entries"));
        return policies;
    }
    for Entry { key: subject, value, .. } in subjects {
        let path = Path::Member(path, &subject);
        let mut policy = ToolPolicy::default();
        for Entry { key, mark, value } in entries(value, &path, mistakes).unwrap_or_default() {
            let path = Path::Member(&path, &key);
            match member(TOOLS, &key) {
                Ok(_) if value.is_nothing() => {}
                Ok(member) => set_policy(&mut policy, member, value, &path, mistakes),
                Err(known) => blame(mistakes, mark, &path, &format!("is not known; known are {known}")),
            }
        }
        policies.insert(subject, policy);
    }
    policies
}
