//! Admin tokens.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An admin token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminToken {
    /// 24 hex digits; `null` for a token of the configuration file.
    pub id: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// For people.
    pub name: String,
    /// From when on it is refused.
    pub expiration: Option<Timestamp>,
    /// Whether that has come.
    pub expired: bool,
    /// Endpoints it opens, `*` for all.
    pub scope: Vec<String>,
}

/// A token just made: the only time its secret is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewAdminToken {
    /// The token.
    #[serde(flatten)]
    pub token: AdminToken,
    /// `<24 hex digits>.<43 characters>`, for the header `Authorization: Bearer`.
    pub secret_token: String,
}

/// What to set; what is left out stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminTokenUpdate {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new expiration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Timestamp>,
    /// No expiration; not together with one.
    #[serde(default)]
    pub never_expires: bool,
    /// The new scope, in place of the old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Vec<String>>,
}

/// Which token: by id, or by a prefix of the id or the name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSearch {
    /// The id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A prefix of the id, or the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}
