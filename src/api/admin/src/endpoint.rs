//! The table of all endpoints: name, HTTP method, query parameters, request and answer types.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AdminError,
    types::{
        AdminToken, AdminTokenUpdate, Alias, ApplyVersion, BlockError, BlockInfo, BlockName, Bucket, BucketCreate, BucketItem,
        BucketKeyChange, BucketSearch, BucketUpdate, ById, CleanedUploads, CleanupUploads, ClusterHealth, ClusterStatistics, ClusterStatus,
        ConnectResult, Id, Key, KeyImport, KeyItem, KeySearch, KeyUpdate, LaunchRepair, Layout, LayoutApply, LayoutHistory, LayoutPreview,
        LayoutUpdate, NewAdminToken, NoParameters, NodeAnswers, NodeInfo, NodeStatistics, ObjectInspection, ObjectName, OnNode, Page,
        PurgeResult, RecoverLayout, RecoveredLayout, RetriedBlocks, RetryBlocks, SkipDeadNodes, SkippedNodes, TokenSearch, Variable,
        VariableName, Variables, Worker, WorkerFilter, WorkerNumber,
    },
};

/// One endpoint, as a type: what it takes and what it gives.
pub trait Endpoint: Send + Sync + 'static {
    /// Its name, which is also the last part of its path and the token scope it needs.
    const NAME: &'static str;
    /// The payload.
    type Request: Serialize + DeserializeOwned + Send + 'static;
    /// The answer.
    type Response: Serialize + DeserializeOwned + Send + 'static;
}

/// The HTTP method of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes, or reads with a body.
    Post,
}

/// How a query parameter is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParameterKind {
    /// As it stands.
    Text,
    /// Decimal digits.
    Number,
    /// `true` or `false`.
    Flag,
}

/// One query parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Its name, also the field of the payload.
    pub name: &'static str,
    /// How it is read.
    pub kind: ParameterKind,
    /// Whether a request without it is refused.
    pub required: bool,
}

/// Where the request body goes in the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// There is none: the payload is the query parameters, or `null`.
    Parameters,
    /// It is the payload.
    Body,
    /// It is the field `body` beside the query parameters.
    ParametersAndBody,
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointInfo {
    /// Its name.
    pub name: &'static str,
    /// Its HTTP method.
    pub method: Method,
    /// Its query parameters.
    pub parameters: &'static [Parameter],
    /// Where the body goes.
    pub payload: Payload,
}

impl EndpointInfo {
    /// Whether it runs on the nodes that the parameter `node` selects, and answers with one result for each.
    pub fn is_multi_node(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == "node")
    }
}

const fn text(name: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Text, required: false }
}
const fn required(name: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Text, required: true }
}
const fn number(name: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Number, required: false }
}
const fn flag(name: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Flag, required: false }
}

macro_rules! endpoints {
    ($($(#[doc = $doc:literal])+ $method:ident $name:ident [$($parameter:expr),*] $payload:ident: $request:ty => $response:ty;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $name;
            impl Endpoint for $name {
                const NAME: &'static str = stringify!($name);
                type Request = $request;
                type Response = $response;
            }
        )+
        /// Every endpoint.
        pub const ENDPOINTS: &[EndpointInfo] = &[
            $(EndpointInfo { name: stringify!($name), method: Method::$method, parameters: &[$($parameter),*], payload: Payload::$payload }),+
        ];

        #[cfg(test)]
        /// Decodes and encodes a request of the named endpoint, for tests over the whole table.
        pub(crate) fn read_back_request(name: &str, payload: serde_json::Value) -> Option<Result<serde_json::Value, AdminError>> {
            match name {
                $(stringify!($name) => Some(decode_request::<$name>(payload).map(|request| serde_json::to_value(request).expect("what was decoded encodes"))),)+
                _ => None,
            }
        }

        #[cfg(test)]
        /// Decodes and encodes an answer of the named endpoint, for tests over the whole table.
        pub(crate) fn read_back_response(name: &str, answer: serde_json::Value) -> Option<serde_json::Result<serde_json::Value>> {
            match name {
                $(stringify!($name) => Some(
                    serde_json::from_value::<<$name as Endpoint>::Response>(answer).map(|answer| serde_json::to_value(answer).expect("what was decoded encodes"))
                ),)+
                _ => None,
            }
        }
    };
}

endpoints! {
    /// Nodes, their roles and whether they are up.
    Get GetClusterStatus [] Parameters: NoParameters => ClusterStatus;
    /// Whether the cluster can serve.
    Get GetClusterHealth [] Parameters: NoParameters => ClusterHealth;
    /// Space and counts.
    Get GetClusterStatistics [] Parameters: NoParameters => ClusterStatistics;
    /// Dials nodes.
    Post ConnectClusterNodes [] Body: Vec<String> => Vec<ConnectResult>;

    /// All admin tokens.
    Get ListAdminTokens [] Parameters: NoParameters => Vec<AdminToken>;
    /// One admin token.
    Get GetAdminTokenInfo [text("id"), text("search")] Parameters: TokenSearch => AdminToken;
    /// Makes an admin token.
    Post CreateAdminToken [] Body: AdminTokenUpdate => NewAdminToken;
    /// Changes an admin token.
    Post UpdateAdminToken [required("id")] ParametersAndBody: ById<AdminTokenUpdate> => AdminToken;
    /// Deletes an admin token.
    Post DeleteAdminToken [required("id")] Parameters: Id => ();
    /// The token this call came with.
    Get GetCurrentAdminTokenInfo [] Parameters: NoParameters => AdminToken;

    /// The current layout and what is staged.
    Get GetClusterLayout [] Parameters: NoParameters => Layout;
    /// Layout versions.
    Get GetClusterLayoutHistory [] Parameters: NoParameters => LayoutHistory;
    /// Stages changes.
    Post UpdateClusterLayout [] Body: LayoutUpdate => Layout;
    /// What applying would give.
    Post PreviewClusterLayoutChanges [] Parameters: NoParameters => LayoutPreview;
    /// Applies what is staged.
    Post ApplyClusterLayout [] Body: ApplyVersion => LayoutApply;
    /// Drops what is staged.
    Post RevertClusterLayout [] Parameters: NoParameters => Layout;
    /// Tells what is left after a loss, and goes on with that by force if the loss is accepted.
    Post RecoverClusterLayout [] Body: RecoverLayout => RecoveredLayout;
    /// Stops waiting for dead nodes of older layout versions.
    Post ClusterLayoutSkipDeadNodes [] Body: SkipDeadNodes => SkippedNodes;

    /// All access keys.
    Get ListKeys [text("offset"), number("limit")] Parameters: Page => Vec<KeyItem>;
    /// All access keys with their buckets.
    Get ListKeysInfo [text("offset"), number("limit")] Parameters: Page => Vec<Key>;
    /// One access key.
    Get GetKeyInfo [text("id"), text("search"), flag("showSecretKey")] Parameters: KeySearch => Key;
    /// Makes an access key.
    Post CreateKey [] Body: KeyUpdate => Key;
    /// Takes over an access key made elsewhere.
    Post ImportKey [] Body: KeyImport => Key;
    /// Changes an access key.
    Post UpdateKey [required("id")] ParametersAndBody: ById<KeyUpdate> => Key;
    /// Deletes an access key.
    Post DeleteKey [required("id")] Parameters: Id => ();

    /// All buckets.
    Get ListBuckets [text("offset"), number("limit")] Parameters: Page => Vec<BucketItem>;
    /// All buckets in full.
    Get ListBucketsInfo [text("offset"), number("limit")] Parameters: Page => Vec<Bucket>;
    /// One bucket.
    Get GetBucketInfo [text("id"), text("globalAlias"), text("search")] Parameters: BucketSearch => Bucket;
    /// Makes a bucket.
    Post CreateBucket [] Body: BucketCreate => Bucket;
    /// Changes a bucket.
    Post UpdateBucket [required("id")] ParametersAndBody: ById<BucketUpdate> => Bucket;
    /// Deletes an empty bucket.
    Post DeleteBucket [required("id")] Parameters: Id => ();
    /// Aborts old unfinished uploads.
    Post CleanupIncompleteUploads [] Body: CleanupUploads => CleanedUploads;
    /// Versions of one object.
    Get InspectObject [required("bucketId"), required("key")] Parameters: ObjectName => ObjectInspection;
    /// Gives a key rights on a bucket.
    Post AllowBucketKey [] Body: BucketKeyChange => Bucket;
    /// Takes rights on a bucket from a key.
    Post DenyBucketKey [] Body: BucketKeyChange => Bucket;
    /// Names a bucket.
    Post AddBucketAlias [] Body: Alias => Bucket;
    /// Drops a name of a bucket.
    Post RemoveBucketAlias [] Body: Alias => Bucket;

    /// Version, features, addresses of nodes.
    Get GetNodeInfo [required("node")] Parameters: OnNode<NoParameters> => NodeAnswers<NodeInfo>;
    /// Table and block counts of nodes.
    Get GetNodeStatistics [required("node")] Parameters: OnNode<NoParameters> => NodeAnswers<NodeStatistics>;
    /// Takes a snapshot of the metadata.
    Post CreateMetadataSnapshot [required("node")] Parameters: OnNode<NoParameters> => NodeAnswers<()>;
    /// Starts a repair.
    Post LaunchRepairOperation [required("node")] ParametersAndBody: OnNode<LaunchRepair> => NodeAnswers<()>;
    /// Background workers.
    Post ListWorkers [required("node")] ParametersAndBody: OnNode<WorkerFilter> => NodeAnswers<Vec<Worker>>;
    /// One background worker.
    Post GetWorkerInfo [required("node")] ParametersAndBody: OnNode<WorkerNumber> => NodeAnswers<Worker>;
    /// Settings of background workers.
    Post GetWorkerVariable [required("node")] ParametersAndBody: OnNode<VariableName> => NodeAnswers<Variables>;
    /// Changes a setting of background workers.
    Post SetWorkerVariable [required("node")] ParametersAndBody: OnNode<Variable> => NodeAnswers<Variable>;
    /// Blocks that could not be fetched.
    Get ListBlockErrors [required("node")] Parameters: OnNode<NoParameters> => NodeAnswers<Vec<BlockError>>;
    /// Who refers to a block.
    Post GetBlockInfo [required("node")] ParametersAndBody: OnNode<BlockName> => NodeAnswers<BlockInfo>;
    /// Tries blocks again now.
    Post RetryBlockResync [required("node")] ParametersAndBody: OnNode<RetryBlocks> => NodeAnswers<RetriedBlocks>;
    /// Deletes every object that needs blocks which are lost.
    Post PurgeBlocks [required("node")] ParametersAndBody: OnNode<Vec<String>> => NodeAnswers<PurgeResult>;
}

/// The endpoint of this exact name.
pub fn find_endpoint(name: &str) -> Option<&'static EndpointInfo> {
    ENDPOINTS.iter().find(|endpoint| endpoint.name == name)
}

/// Reads a payload. `null` and nothing at all also stand for "no parameters".
///
/// Errors: `InvalidRequest` that says which field is missing or wrong.
pub fn decode_request<E: Endpoint>(payload: serde_json::Value) -> Result<E::Request, AdminError> {
    let payload = if payload.is_null() { serde_json::json!({}) } else { payload };
    serde_json::from_value(payload).map_err(|error| AdminError::invalid(format!("{}: {error}", E::NAME)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        serde_json::from_str(crate::OPENAPI).unwrap()
    }

    #[test]
    fn the_table_is_the_openapi_document() {
        let document = document();
        let mut documented = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let Some(name) = path.strip_prefix("/v2/") else { continue };
            documented.insert(name.to_owned());
            let endpoint = find_endpoint(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            let method = if endpoint.method == Method::Get { "get" } else { "post" };
            let operation = operations.get(method).unwrap_or_else(|| panic!("{name}: method"));
            let parameters: Vec<(&str, bool)> = operation["parameters"]
                .as_array()
                .map(|list| list.iter().map(|entry| (entry["name"].as_str().unwrap(), entry["required"] == json!(true))).collect())
                .unwrap_or_default();
            let ours: Vec<(&str, bool)> = endpoint.parameters.iter().map(|parameter| (parameter.name, parameter.required)).collect();
            assert_eq!(ours, parameters, "{name}");
            assert_eq!(endpoint.payload != Payload::Parameters, operation.get("requestBody").is_some(), "{name}: body");
        }
        assert_eq!(documented.len(), ENDPOINTS.len());
    }

    /// A value of a schema with every property, or only the required ones.
    fn example(document: &Value, schema: &Value, every: bool) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            // Filters nest; one level is enough.
            let every = every && name != "lifecycle.Filter";
            return example(document, &document["components"]["schemas"][name], every);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut all = json!({});
            for part in parts {
                all.as_object_mut().unwrap().extend(example(document, part, every).as_object().unwrap().clone());
            }
            return all;
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let choice = choices.iter().find(|choice| choice["type"] != "null").unwrap();
            return example(document, choice, every);
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"].as_array()?.first()?.as_str()).unwrap_or("object");
        match kind {
            "string" if schema["enum"].is_array() => schema["enum"][0].clone(),
            "string" if schema["format"] == "date-time" => json!("2025-01-01T00:00:00Z"),
            "string" => json!("text"),
            "integer" => json!(7),
            "number" => json!(0.5),
            "boolean" => json!(true),
            "null" => Value::Null,
            "array" => match schema.get("items") {
                Some(items) if items.is_object() => json!([example(document, items, every)]),
                _ => json!(["name", "value"]),
            },
            _ => {
                let mut object = json!({});
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    let required = schema["required"].as_array().is_some_and(|list| list.contains(&json!(name)));
                    if every || required {
                        object[name] = example(document, property, every);
                    }
                }
                if let Some(more) = schema.get("additionalProperties").filter(|more| more.is_object()) {
                    object["ab"] = example(document, more, every);
                }
                object
            }
        }
    }

    /// Every field of `given` is in `read`: nothing was dropped, nothing renamed.
    fn covers(read: &Value, given: &Value) -> bool {
        match (read, given) {
            (Value::Object(read), Value::Object(given)) => {
                given.iter().all(|(name, value)| read.get(name).is_some_and(|ours| covers(ours, value)))
            }
            (Value::Array(read), Value::Array(given)) => {
                read.len() == given.len() && read.iter().zip(given).all(|(ours, value)| covers(ours, value))
            }
            (read, given) => read == given,
        }
    }

    #[test]
    fn every_documented_request_and_answer_is_read_without_losing_a_field() {
        let document = document();
        for endpoint in ENDPOINTS {
            let method = if endpoint.method == Method::Get { "get" } else { "post" };
            let operation = &document["paths"][format!("/v2/{}", endpoint.name)][method];
            for every in [false, true] {
                let mut payload = json!({});
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    if every || parameter["required"] == json!(true) {
                        payload[parameter["name"].as_str().unwrap()] = example(&document, &parameter["schema"], every);
                    }
                }
                if let Some(body) = operation.get("requestBody") {
                    let body = example(&document, &body["content"]["application/json"]["schema"], every);
                    if endpoint.payload == Payload::Body { payload = body } else { payload["body"] = body }
                }
                let read = read_back_request(endpoint.name, payload.clone()).unwrap().unwrap_or_else(|error| panic!("{payload}: {error}"));
                assert!(read.is_null() || covers(&read, &payload), "{}: {payload} was read as {read}", endpoint.name);

                let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
                let answer = example(&document, schema, every);
                let read = read_back_response(endpoint.name, answer.clone())
                    .unwrap()
                    .unwrap_or_else(|error| panic!("{}: {answer}: {error}", endpoint.name));
                assert!(covers(&read, &answer), "{}: {answer} was read as {read}", endpoint.name);
            }
        }
    }

    #[test]
    fn no_payload_means_no_parameters() {
        assert!(decode_request::<ListKeys>(Value::Null).is_ok());
        assert!(decode_request::<GetClusterStatus>(json!({"ignored": 1})).is_ok());
        assert!(decode_request::<GetNodeInfo>(json!({"node": "self"})).is_ok());
        let error = decode_request::<DeleteKey>(Value::Null).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("InvalidRequest (400): DeleteKey: missing field `id`"));
    }

    #[test]
    fn a_removal_with_false_is_not_taken_for_an_assignment() {
        let entry = json!({"id": "ab", "remove": false, "zone": "z", "tags": []});
        assert_eq!(
            serde_json::from_value::<crate::types::RoleChange>(entry).unwrap(),
            crate::types::RoleChange::Remove { id: "ab".into(), remove: false }
        );
    }
}
