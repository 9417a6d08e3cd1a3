//! Which values a setting takes: the loader checks by it, and the schema for editors is made from it.

/// Least and most of a number, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Least.
    pub least: u64,
    /// Most.
    pub most: u64,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text. The pattern (ECMA-262) is one that every accepted value matches; empty = none.
    Text(&'static str),
    /// One of these words. `true` and `false` among them also as truth values.
    Choice(&'static [&'static str]),
    /// A whole number.
    Whole(Bounds),
    /// A number from 0 to 1.
    Ratio,
    /// A truth value.
    Boolean,
    /// A list of texts, or one text in which they stand with commas.
    Words,
    /// A list of texts, at most so many.
    Texts(usize),
    /// Texts by name, at most so many.
    TextMap(usize),
    /// The same, shown by name only: people put secrets there all the same.
    Masked(usize),
    /// Where one secret lives.
    Secret,
    /// Secrets by name, at most so many.
    Secrets(usize),
    /// A mapping with these members.
    Object(&'static [Member]),
    /// A list of mappings, at most so many.
    Objects(&'static [Member], usize),
    /// Mappings by name, at most so many. Names match the pattern.
    Named(&'static [Member], &'static str, usize),
    /// Secrets by name; names match the pattern.
    NamedSecrets(&'static str, usize),
    /// Mappings by name, at most so many, of one of several kinds, which the member `source` tells. Names match the pattern.
    Sourced(&'static [(&'static str, &'static [Member])], &'static str, usize),
}

impl Form {
    /// The bounds of a number; none for what is no number.
    pub(super) const fn bounds(self) -> Bounds {
        if let Self::Whole(bounds) = self { bounds } else { Bounds { least: 0, most: u64::MAX } }
    }

    /// The words of a choice.
    pub(super) const fn words(self) -> &'static [&'static str] {
        if let Self::Choice(words) = self { words } else { &[] }
    }

    /// The most entries of what has entries.
    pub(super) const fn most(self) -> usize {
        match self {
            Self::Texts(most)
            | Self::TextMap(most)
            | Self::Masked(most)
            | Self::Secrets(most)
            | Self::Objects(_, most)
            | Self::Named(_, _, most)
            | Self::NamedSecrets(_, most)
            | Self::Sourced(_, _, most) => most,
            Self::Text(_)
            | Self::Choice(_)
            | Self::Whole(_)
            | Self::Ratio
            | Self::Boolean
            | Self::Words
            | Self::Secret
            | Self::Object(_) => usize::MAX,
        }
    }
}

/// One member of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub form: Form,
    /// Whether it must be there.
    pub needed: bool,
    /// What is taken where it is absent, as text; empty = nothing.
    pub fallback: &'static str,
    /// What it means; Markdown.
    pub meaning: &'static str,
}

impl Member {
    pub(super) const fn new(name: &'static str, form: Form, fallback: &'static str, meaning: &'static str) -> Self {
        Self { name, form, needed: false, fallback, meaning }
    }

    pub(super) const fn needed(name: &'static str, form: Form, meaning: &'static str) -> Self {
        Self { name, form, needed: true, fallback: "", meaning }
    }
}

/// A whole number within bounds.
pub(super) const fn whole(least: u64, most: u64) -> Form {
    Form::Whole(Bounds { least, most })
}
