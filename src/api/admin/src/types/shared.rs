//! Forms that several endpoints share: ids, pages, the envelope of calls that run on several nodes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// The payload of an endpoint that takes none. Written as `null`; whatever is sent instead is ignored, as the interface has always done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoParameters;

impl Serialize for NoParameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for NoParameters {
    // Through an option, so that a field of this type may also be missing.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = NoParameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything or nothing")
            }
            fn visit_none<E>(self) -> Result<NoParameters, E> {
                Ok(NoParameters)
            }
            fn visit_unit<E>(self) -> Result<NoParameters, E> {
                Ok(NoParameters)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NoParameters, D::Error> {
                serde::de::IgnoredAny::deserialize(deserializer).map(|_| NoParameters)
            }
        }
        deserializer.deserialize_option(Anything)
    }
}

/// An id alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Id {
    /// The id.
    pub id: String,
}

/// A change to what `id` names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ById<B> {
    /// The id.
    pub id: String,
    /// The change.
    pub body: B,
}

/// Which part of a list is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The first id to return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// How many; each list has its own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Rights of a key on a bucket. In requests each may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Permissions {
    /// Objects may be read and listed.
    pub read: bool,
    /// Objects may be written and deleted.
    pub write: bool,
    /// The bucket itself may be changed.
    pub owner: bool,
}

/// A request for the nodes that `node` selects: `*`, `self`, or a prefix of one node's id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnNode<B> {
    /// Which nodes.
    pub node: String,
    /// What is asked of each.
    pub body: B,
}

/// One answer or error for each node asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswers<T> {
    /// Answers by node id.
    pub success: BTreeMap<String, T>,
    /// Errors by node id.
    pub error: BTreeMap<String, String>,
}

impl<T> Default for NodeAnswers<T> {
    fn default() -> Self {
        NodeAnswers { success: BTreeMap::new(), error: BTreeMap::new() }
    }
}
