//! A file with nothing in it: taken at a start, refused while something is in force.

/// What stood where the file was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something, be it a comment.
    Text,
    /// A file with nothing but whitespace.
    Blank,
    /// No file.
    Missing,
}

impl Content {
    /// Of a file's text; `None` where there is no file.
    pub fn of(text: Option<&str>) -> Self {
        match text {
            Some(text) if text.trim().is_empty() => Self::Blank,
            Some(_) => Self::Text,
            None => Self::Missing,
        }
    }

    /// Why this does not count where `before` is in force; `None`: it does. A file that is emptied or gone is half of a
    /// replacement more often than it is somebody's will, and withdrawing everything is an outage.
    pub fn refused_after(self, before: Self) -> Option<&'static str> {
        match (before, self) {
            (Self::Text, Self::Blank) => Some(
                "the file is empty, and what stood in it stays in force: to withdraw everything write {} or a comment \
                 into it, or start the gateway anew",
            ),
            (Self::Text, Self::Missing) => Some(
                "the file is gone, and what stood in it stays in force: to withdraw everything write a file with {} or \
                 a comment, or start the gateway anew",
            ),
            (Self::Text, Self::Text) | (Self::Blank | Self::Missing, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_says_something_is_not_withdrawn_by_one_that_says_nothing() {
        for (text, content) in [
            (None, Content::Missing),
            (Some(""), Content::Blank),
            (Some(" \r\n\t\n"), Content::Blank),
            (Some("{}"), Content::Text),
            (Some("# nothing\n"), Content::Text),
        ] {
            assert_eq!(Content::of(text), content, "{text:?}");
            assert_eq!(content.refused_after(Content::Text).is_some(), content != Content::Text, "{text:?}");
            assert_eq!(content.refused_after(Content::Blank), None, "{text:?}");
            assert_eq!(content.refused_after(Content::Missing), None, "{text:?}");
        }
    }
}
