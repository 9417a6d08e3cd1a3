//! Where a secret lives, in all the forms it may be written. No message repeats what stands there: it may be the secret.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::config::declaration::SecretSource;
use crate::config::declared::Path;
use crate::config::declared::absolute;
use crate::config::declared::blame;
use crate::config::declared::entries;
use crate::config::declared::into_text;
use crate::config::declared::providers::Providers;
use crate::config::mistake::Mistake;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::domain::record::MAX_SECRET_BYTES;
use crate::domain::record::MAX_SECRET_NAME_BYTES;
use crate::domain::record::MAX_SECRETS;
use crate::domain::reference::DEFAULT_PROVIDER;
use crate::domain::reference::SecretRef;
use crate::domain::reference::SourceKind;
use crate::domain::reference::WHOLE_FILE;
use crate::domain::secret::Secret;

/// What a reference may look like, for messages.
const FORMS: &str = "{source, provider, id}, {env: NAME}, {file: PATH}, {file: PATH, pointer: /a/b}, \
                     {exec: ID, provider: NAME}, {store: KEY}, $NAME or \"{{KEY}}\"";

/// By what references are judged.
pub(in crate::config) struct Rules<'a> {
    /// The providers there are.
    pub(in crate::config) providers: &'a Providers,
    /// Whether a secret may stand in the file itself.
    pub(in crate::config) allow_literals: bool,
    /// What `~/` means.
    pub(in crate::config) home: Option<&'a str>,
    /// Which credential variables are referred to, and where.
    pub(in crate::config) uses: RefCell<Vec<Use>>,
}

/// A reference to a credential variable.
pub(in crate::config) struct Use {
    /// The variable's key.
    pub(in crate::config) key: String,
    /// Where it is referred to, by names.
    pub(in crate::config) path: String,
    /// The same as a position.
    pub(in crate::config) mark: Mark,
}

impl Rules<'_> {
    /// The secrets of a connection by name.
    pub(super) fn secrets(
        &self,
        node: Node,
        path: &Path<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> BTreeMap<String, SecretSource> {
        let mark = node.mark;
        let mut sources = BTreeMap::new();
        let Some(entries) = entries(node, path, mistakes) else { return sources };
        if entries.len() > MAX_SECRETS {
            blame(mistakes, mark, path, &format!("has more than {MAX_SECRETS} entries"));
            return sources;
        }
        for Entry { key, mark, value } in entries {
            let name = key.trim();
            if name.is_empty() || name.len() > MAX_SECRET_NAME_BYTES || name.chars().any(char::is_control) {
                let what = format!("holds a name that has not 1 to {MAX_SECRET_NAME_BYTES} printable characters");
                blame(mistakes, mark, path, &what);
                continue;
            }
            let Some(source) = self.source(value, &Path::Member(path, name), mistakes) else { continue };
            if sources.insert(name.to_owned(), source).is_some() {
                blame(mistakes, mark, &Path::Member(path, name), "occurs twice");
            }
        }
        sources
    }

    /// Where one secret lives; `None` where something is wrong with it, which is then in `mistakes`.
    pub(super) fn source(&self, node: Node, path: &Path<'_>, mistakes: &mut Vec<Mistake>) -> Option<SecretSource> {
        let mark = node.mark;
        let read = match node.value {
            Value::Map(entries) => self.mapping(entries, path, mistakes)?,
            Value::List(_) => Err(format!("must be a reference, found a list; one is {FORMS}")),
            Value::Plain(_) | Value::Text(_) => into_text(node).and_then(|text| self.text(text)),
        };
        let source = read.map_err(|what| blame(mistakes, mark, path, &what)).ok()?;
        if let Some(key) = source.variable() {
            self.uses.borrow_mut().push(Use { key: key.to_owned(), path: path.to_string(), mark });
        }
        Some(source)
    }

    /// A text: one of the short forms, or the secret itself.
    fn text(&self, text: String) -> Result<SecretSource, String> {
        if let Some(short) = SecretRef::short(text.trim()) {
            let short = short.map_err(|invalid| format!("begins like a reference and is none: {invalid}"))?;
            let provider = match short.source() {
                SourceKind::Env => self.providers.default_of(SourceKind::Env),
                SourceKind::File | SourceKind::Exec | SourceKind::Store => DEFAULT_PROVIDER,
            };
            return self.reference(short.source(), provider, short.id());
        }
        if !self.allow_literals {
            return Err(format!(
                "is not a reference, and secrets.allow_literals is not set: a secret does not stand in this file. \
                 A reference is {FORMS}"
            ));
        }
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err("is empty".to_owned());
        }
        if trimmed.len() > MAX_SECRET_BYTES {
            return Err(format!("has more than {MAX_SECRET_BYTES} bytes"));
        }
        if trimmed.starts_with("{{") && trimmed.ends_with("}}") {
            return Err("refers to a credential variable by what is no key of one".to_owned());
        }
        let secret = if trimmed.len() == text.len() { text } else { trimmed.to_owned() };
        Ok(SecretSource::Literal(Secret::new(secret)))
    }

    /// A mapping: the long form, or one of those named by their source. `None`: already in `mistakes`.
    fn mapping(
        &self,
        entries: Vec<Entry>,
        path: &Path<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Result<SecretSource, String>> {
        let before = mistakes.len();
        let mut fields = Fields::default();
        for Entry { key, mark, value } in entries {
            let Some(field) = fields.named(&key) else {
                // The name is not repeated: `{sk-live-…}` without quotes is a mapping to YAML.
                blame(mistakes, mark, path, &format!("has a member that no reference has; one is {FORMS}"));
                continue;
            };
            let mark = value.mark;
            match into_text(value) {
                Ok(text) => *field = Some(text.trim().to_owned()),
                Err(what) => blame(mistakes, mark, &Path::Member(path, &key), &what),
            }
        }
        (mistakes.len() == before).then(|| self.fields(fields))
    }

    fn fields(&self, fields: Fields) -> Result<SecretSource, String> {
        let Fields { source, provider, id, env, file, pointer, exec, store } = fields;
        let of = |kind: SourceKind| provider.as_deref().unwrap_or_else(|| self.providers.default_of(kind));
        match (source, env, file, exec, store) {
            (Some(source), None, None, None, None) if pointer.is_none() => {
                let kind = SourceKind::parse(&source).ok_or("has a source that is not env, file, exec or store")?;
                self.reference(kind, of(kind), &id.ok_or("has no id")?)
            }
            (None, Some(name), None, None, None) if id.is_none() && pointer.is_none() => {
                self.reference(SourceKind::Env, of(SourceKind::Env), &name)
            }
            (None, None, Some(file), None, None) if id.is_none() && provider.is_none() => {
                let id = pointer.unwrap_or_else(|| WHOLE_FILE.to_owned());
                // The grammar of the id is that of a provider's file.
                SecretRef::new(SourceKind::File, DEFAULT_PROVIDER, &id)
                    .map_err(|_| "has a pointer that is no JSON pointer such as /providers/openai/key".to_owned())?;
                Ok(SecretSource::File { path: absolute(&file, self.home)?, id })
            }
            (None, None, None, Some(exec), None) if id.is_none() && pointer.is_none() => {
                self.reference(SourceKind::Exec, of(SourceKind::Exec), &exec)
            }
            (None, None, None, None, Some(key)) if id.is_none() && pointer.is_none() && provider.is_none() => {
                self.reference(SourceKind::Store, DEFAULT_PROVIDER, &key)
            }
            _ => Err(format!("is no reference; one is {FORMS}")),
        }
    }

    /// A reference whose provider exists and is of its source.
    fn reference(&self, source: SourceKind, provider: &str, id: &str) -> Result<SecretSource, String> {
        let reference =
            SecretRef::new(source, provider, id).map_err(|invalid| format!("is no reference: {invalid}"))?;
        self.providers.judge(&reference)?;
        Ok(SecretSource::Reference(reference))
    }
}

/// The members a reference may have.
#[derive(Default)]
struct Fields {
    source: Option<String>,
    provider: Option<String>,
    id: Option<String>,
    env: Option<String>,
    file: Option<String>,
    pointer: Option<String>,
    exec: Option<String>,
    store: Option<String>,
}

impl Fields {
    fn named(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "source" => Some(&mut self.source),
            "provider" => Some(&mut self.provider),
            "id" => Some(&mut self.id),
            "env" => Some(&mut self.env),
            "file" => Some(&mut self.file),
            "pointer" => Some(&mut self.pointer),
            "exec" => Some(&mut self.exec),
            "store" => Some(&mut self.store),
            _ => None,
        }
    }
}
