//! Members of a JSON object that are read one by one: what is not needed costs nothing, and one of another type than was
//! hoped for spoils none of the others.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A member as a value of one type; `None` where it is absent or of another.
pub fn member<'a, T: Deserialize<'a>>(member: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(member?.get()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_member_of_another_type_is_as_good_as_absent() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(member::<String>(Some(&raw(r#""a""#))), Some("a".to_owned()));
        for other in ["1", "null", "[]", r#""\ud800""#] {
            assert_eq!(member::<String>(Some(&raw(other))), None, "{other}");
        }
        assert_eq!(member::<u16>(Some(&raw("70000"))), None);
        assert_eq!(member::<String>(None), None);
    }
}
