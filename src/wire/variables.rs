//! JSON of credential variables. Values are only ever read, never written.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::domain::secret::Secret;

/// `POST /credential-variables`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = VariableSet)]
pub struct VariableSetBody {
    /// 2 to 128 of `A-Za-z0-9._-`. Required.
    #[schema(example = "SLACK_TOKEN")]
    pub key: Option<String>,
    /// 1 to 16384 bytes once trimmed, or `sealed:v1:…`, sealed to the gateway's key. Required. Written only: no answer ever holds
    /// it.
    #[schema(value_type = Option<String>, write_only)]
    value: Option<Value>,
    /// Who made it, for the record; the header `sigilum-subject` counts before it, the first one before all later.
    pub created_by_subject: Option<String>,
}

/// Moved into its type as it is read.
#[derive(Debug)]
struct Value(Secret);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new).map(Self)
    }
}

impl VariableSetBody {
    /// The value; empty where there is none.
    pub fn take_value(&mut self) -> Secret {
        self.value.take().map_or_else(|| Secret::new(String::new()), |Value(secret)| secret)
    }
}

/// The query of `DELETE /credential-variables/{key}`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct VariableDeleteQuery {
    /// `true`: also where connections refer to it; those that inject it are without a secret afterwards.
    pub force: Option<String>,
}

/// `GET /credential-variables`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = VariableList)]
pub struct VariableListBody {
    /// By key.
    pub variables: Vec<VariableBody>,
}

/// A variable, without its value.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Variable)]
pub struct VariableBody {
    /// Its name.
    #[schema(example = "SLACK_TOKEN")]
    pub key: String,
    /// RFC 3339; of a declared one, when this process first saw it.
    pub created_at: String,
    /// When its value was set last.
    pub updated_at: String,
    /// Who made it, by their own word; absent where they gave none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by_subject: String,
    /// How many connections refer to it.
    pub used_by: u64,
    /// Whether the configuration file declares it: then it is changed there. Absent = no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// Whether a stored one of the same key does not count because this one is declared. Absent = no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadows_stored: bool,
    /// Why it has no value; absent where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `DELETE /credential-variables/{key}`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = VariableDeleted)]
pub struct VariableDeletedBody {
    /// `true`.
    pub deleted: bool,
    /// Its name.
    pub key: String,
    /// Ids of the connections that injected it and are without a secret now; absent where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::admin::decode;

    proptest! {
        #[test]
        fn any_body_is_read_or_refused_and_never_shown(
            body in prop::collection::vec(any::<u8>(), 0..200),
            value in "canary-[a-z]{8}",
        ) {
            let _ = decode::<VariableSetBody>(&body);
            let good = format!(r#"{{"key":"KEY","value":"{value}","unknown":[1]}}"#);
            let mut read = decode::<VariableSetBody>(good.as_bytes()).unwrap_or_default();
            let shown = format!("{read:?}");
            prop_assert!(!shown.contains(&value));
            let taken = read.take_value();
            prop_assert_eq!(taken.expose(), value);
        }
    }
}
