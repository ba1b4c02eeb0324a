//! What every endpoint does, over the services of one node.
//!
//! [`AdminApi::call`] takes a payload and gives an answer, both JSON; the HTTP front, the calls of other nodes and of the command line
//! all end there. Reading order: this file (the way in and the table of handlers), `nodes` (calls that run on several nodes), `cluster`,
//! `layout`, `keys`, `buckets`, `bucket_change`, `uploads`, `node_info`, `maintenance`, `maintenance_blocks`, `variables`, `failure` (errors of the services as those of the interface).

mod bucket_change;
mod buckets;
mod cluster;
mod failure;
mod keys;
mod layout;
mod layout_view;
mod maintenance;
mod maintenance_blocks;
mod node_info;
mod nodes;
mod rules;
mod statistics;
mod uploads;
mod variables;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use garage_model::{RequestContext, node::Node};
use garage_rpc::RouterBuilder;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    AdminAnswer, AdminCall, AdminError, Endpoint, call::from_json, decode_request, endpoint, find_endpoint, limits::REQUEST_TIMEOUT,
};

/// What the interface says of this node and cannot find out by itself.
#[derive(Clone, Debug, Default)]
pub struct AdminOptions {
    /// Version of this release, as `v0.1.0`.
    pub version: String,
    /// Features this release was built with.
    pub features: Option<Vec<String>>,
    /// The compiler it was built with.
    pub rust_version: String,
    /// Name of the metadata store.
    pub db_engine: String,
    /// `s3_api.s3_region`.
    pub region: String,
    /// `s3_api.public_endpoint`.
    pub s3_endpoint: Option<String>,
    /// `s3_api.public_endpoint_path_style`: clients are to put buckets in the path.
    pub s3_path_style: bool,
    /// `s3_api.root_domain`.
    pub s3_root_domain: Option<String>,
    /// `s3_web.root_domain`.
    pub web_root_domain: Option<String>,
    /// `k2v_api.public_endpoint`.
    pub k2v_endpoint: Option<String>,
}

/// The administration interface of one node. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    node: Node,
    options: Arc<AdminOptions>,
}

impl AdminApi {
    /// The interface over a node's services.
    pub fn new(node: Node, options: AdminOptions) -> AdminApi {
        AdminApi { node, options: Arc::new(options) }
    }

    /// The node it administers.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it was made with.
    pub fn options(&self) -> &AdminOptions {
        &self.options
    }

    /// Answers administration calls of other nodes and of the command line.
    pub fn register(&self, router: RouterBuilder) -> RouterBuilder {
        let api = self.clone();
        router.on_plain::<AdminCall, _>(move |caller, context, call: AdminCall| {
            let api = api.clone();
            async move {
                tracing::debug!(endpoint = %call.endpoint, from = %caller.node.short(), "administration call");
                let context = RequestContext { deadline: context.deadline.min(Instant::now() + REQUEST_TIMEOUT), trace: context.trace };
                let answer = match from_json(&call.body, "the payload") {
                    Ok(payload) => api.call_in(&call.endpoint, payload, context).await,
                    Err(error) => Err(AdminError::invalid(error.message)),
                };
                Ok(AdminAnswer::of(answer))
            }
        })
    }

    /// Calls `endpoint` with a payload: parameters as fields, the body as payload or as the field `body` beside them.
    ///
    /// Errors: `InvalidRequest` for an unknown endpoint or a payload it cannot read, `NotImplemented`, and those of the endpoint.
    pub async fn call(&self, endpoint: &str, payload: Value) -> Result<Value, AdminError> {
        let trace = self.node.cluster.runtime().random_u64();
        self.call_in(endpoint, payload, RequestContext { deadline: Instant::now() + REQUEST_TIMEOUT, trace }).await
    }

    /// The same within a deadline, as a step of a traced request.
    pub async fn call_in(&self, endpoint: &str, payload: Value, context: RequestContext) -> Result<Value, AdminError> {
        let known = find_endpoint(endpoint).ok_or_else(|| AdminError::invalid(format!("there is no endpoint {endpoint:?}")))?;
        let handler = self.handler(known.name, payload, context).ok_or_else(|| AdminError::not_implemented(known.name))?;
        match tokio::time::timeout_at(context.deadline, handler).await {
            Ok(answer) => answer,
            Err(_) => Err(AdminError::unavailable(format!("{endpoint} took longer than its time limit; nodes may be down: try again"))),
        }
    }

    /// The work of one endpoint; `None`: this release has none.
    fn handler<'a>(&'a self, name: &str, payload: Value, context: RequestContext) -> Option<Handling<'a>> {
        self.cluster_handler(name, &payload, context)
            .or_else(|| self.key_handler(name, &payload, context))
            .or_else(|| self.bucket_handler(name, &payload, context))
            .or_else(|| self.maintenance_handler(name, &payload, context))
    }

    fn cluster_handler<'a>(&'a self, name: &str, payload: &Value, context: RequestContext) -> Option<Handling<'a>> {
        Some(match name {
            "GetClusterStatus" => handle::<endpoint::GetClusterStatus, _>(payload, |_| async { Ok(self.cluster_status()) }),
            "GetClusterHealth" => handle::<endpoint::GetClusterHealth, _>(payload, |_| async { Ok(self.cluster_health()) }),
            "GetClusterStatistics" => handle::<endpoint::GetClusterStatistics, _>(payload, move |_| self.cluster_statistics(context)),
            "ConnectClusterNodes" => handle::<endpoint::ConnectClusterNodes, _>(payload, |nodes| self.connect_nodes(nodes)),
            "GetClusterLayout" => handle::<endpoint::GetClusterLayout, _>(payload, |_| async { Ok(self.layout()) }),
            "GetClusterLayoutHistory" => handle::<endpoint::GetClusterLayoutHistory, _>(payload, |_| async { Ok(self.layout_history()) }),
            "UpdateClusterLayout" => handle::<endpoint::UpdateClusterLayout, _>(payload, |update| self.update_layout(update)),
            "PreviewClusterLayoutChanges" => handle::<endpoint::PreviewClusterLayoutChanges, _>(payload, |_| self.preview_layout()),
            "ApplyClusterLayout" => handle::<endpoint::ApplyClusterLayout, _>(payload, |wanted| self.apply_layout(wanted.version)),
            "RevertClusterLayout" => handle::<endpoint::RevertClusterLayout, _>(payload, |_| self.revert_layout()),
            "RecoverClusterLayout" => handle::<endpoint::RecoverClusterLayout, _>(payload, |recover| self.recover_layout(recover)),
            "ClusterLayoutSkipDeadNodes" => handle::<endpoint::ClusterLayoutSkipDeadNodes, _>(payload, |skip| self.skip_dead_nodes(skip)),
            "GetNodeInfo" => handle::<endpoint::GetNodeInfo, _>(payload, move |request| {
                self.on_nodes::<endpoint::GetNodeInfo, _, _, _>(request, context, |_| async { Ok(self.node_info()) })
            }),
            "GetNodeStatistics" => handle::<endpoint::GetNodeStatistics, _>(payload, move |request| {
                self.on_nodes::<endpoint::GetNodeStatistics, _, _, _>(request, context, |_| self.node_statistics())
            }),
            _ => return None,
        })
    }

    fn maintenance_handler<'a>(&'a self, name: &str, payload: &Value, context: RequestContext) -> Option<Handling<'a>> {
        Some(match name {
            "CreateMetadataSnapshot" => handle::<endpoint::CreateMetadataSnapshot, _>(payload, move |request| {
                self.on_nodes::<endpoint::CreateMetadataSnapshot, _, _, _>(request, context, |_| self.create_snapshot())
            }),
            "LaunchRepairOperation" => handle::<endpoint::LaunchRepairOperation, _>(payload, move |request| {
                self.on_nodes::<endpoint::LaunchRepairOperation, _, _, _>(request, context, |repair| self.launch_repair(repair.repair_type))
            }),
            "ListWorkers" => handle::<endpoint::ListWorkers, _>(payload, move |request| {
                self.on_nodes::<endpoint::ListWorkers, _, _, _>(
                    request,
                    context,
                    move |filter| async move { Ok(self.list_workers(filter)) },
                )
            }),
            "GetWorkerInfo" => handle::<endpoint::GetWorkerInfo, _>(payload, move |request| {
                self.on_nodes::<endpoint::GetWorkerInfo, _, _, _>(
                    request,
                    context,
                    move |worker| async move { self.worker_info(worker.id) },
                )
            }),
            "GetWorkerVariable" => handle::<endpoint::GetWorkerVariable, _>(payload, move |request| {
                self.on_nodes::<endpoint::GetWorkerVariable, _, _, _>(request, context, move |which| async move {
                    self.variables(which.variable)
                })
            }),
            "SetWorkerVariable" => handle::<endpoint::SetWorkerVariable, _>(payload, move |request| {
                self.on_nodes::<endpoint::SetWorkerVariable, _, _, _>(request, context, |variable| self.set_variable(variable))
            }),
            "ListBlockErrors" => handle::<endpoint::ListBlockErrors, _>(payload, move |request| {
                self.on_nodes::<endpoint::ListBlockErrors, _, _, _>(request, context, |_| self.list_block_errors())
            }),
            "GetBlockInfo" => handle::<endpoint::GetBlockInfo, _>(payload, move |request| {
                self.on_nodes::<endpoint::GetBlockInfo, _, _, _>(request, context, |block| self.block_info(block.block_hash))
            }),
            "RetryBlockResync" => handle::<endpoint::RetryBlockResync, _>(payload, move |request| {
                self.on_nodes::<endpoint::RetryBlockResync, _, _, _>(request, context, |which| self.retry_blocks(which))
            }),
            "PurgeBlocks" => handle::<endpoint::PurgeBlocks, _>(payload, move |request| {
                self.on_nodes::<endpoint::PurgeBlocks, _, _, _>(request, context, move |hashes| self.purge_blocks(hashes, context))
            }),
            _ => return None,
        })
    }

    fn key_handler<'a>(&'a self, name: &str, payload: &Value, context: RequestContext) -> Option<Handling<'a>> {
        Some(match name {
            "ListKeys" => handle::<endpoint::ListKeys, _>(payload, move |page| self.list_keys(page, context)),
            "ListKeysInfo" => handle::<endpoint::ListKeysInfo, _>(payload, move |page| self.list_keys_info(page, context)),
            "GetKeyInfo" => handle::<endpoint::GetKeyInfo, _>(payload, move |search| self.key_info(search, context)),
            "CreateKey" => handle::<endpoint::CreateKey, _>(payload, move |update| self.create_key(update, context)),
            "ImportKey" => handle::<endpoint::ImportKey, _>(payload, move |import| self.import_key(import, context)),
            "UpdateKey" => handle::<endpoint::UpdateKey, _>(payload, move |update| self.update_key(update.id, update.body, context)),
            "DeleteKey" => handle::<endpoint::DeleteKey, _>(payload, move |key| self.delete_key(key.id, context)),
            _ => return None,
        })
    }

    fn bucket_handler<'a>(&'a self, name: &str, payload: &Value, context: RequestContext) -> Option<Handling<'a>> {
        Some(match name {
            "ListBuckets" => handle::<endpoint::ListBuckets, _>(payload, move |page| self.list_buckets(page, context)),
            "ListBucketsInfo" => handle::<endpoint::ListBucketsInfo, _>(payload, move |page| self.list_buckets_info(page, context)),
            "GetBucketInfo" => handle::<endpoint::GetBucketInfo, _>(payload, move |search| self.bucket_info(search, context)),
            "CreateBucket" => handle::<endpoint::CreateBucket, _>(payload, move |new| self.create_bucket(new, context)),
            "UpdateBucket" => {
                handle::<endpoint::UpdateBucket, _>(payload, move |update| self.update_bucket(update.id, update.body, context))
            }
            "DeleteBucket" => handle::<endpoint::DeleteBucket, _>(payload, move |bucket| self.delete_bucket(bucket.id, context)),
            "AllowBucketKey" => handle::<endpoint::AllowBucketKey, _>(payload, move |change| self.allow_bucket_key(change, context)),
            "DenyBucketKey" => handle::<endpoint::DenyBucketKey, _>(payload, move |change| self.deny_bucket_key(change, context)),
            "AddBucketAlias" => handle::<endpoint::AddBucketAlias, _>(payload, move |alias| self.add_alias(alias, context)),
            "RemoveBucketAlias" => handle::<endpoint::RemoveBucketAlias, _>(payload, move |alias| self.remove_alias(alias, context)),
            "CleanupIncompleteUploads" => {
                handle::<endpoint::CleanupIncompleteUploads, _>(payload, move |cleanup| self.cleanup_uploads(cleanup, context))
            }
            _ => return None,
        })
    }
}

/// The one endpoint whose payload is a list.
const TAKES_A_LIST: &str = <endpoint::ConnectClusterNodes as Endpoint>::NAME;

/// One endpoint at work.
type Handling<'a> = BoxFuture<'a, Result<Value, AdminError>>;

/// Decodes the payload, runs the handler, encodes the answer.
fn handle<'a, E: Endpoint, F>(payload: &Value, handler: impl FnOnce(E::Request) -> F) -> Handling<'a>
where
    F: Future<Output = Result<E::Response, AdminError>> + Send + 'a,
{
    // An object with fields can be read from a list of their values; nobody means that, and `[]` would be taken for `{}`.
    if payload.is_array() && E::NAME != TAKES_A_LIST {
        return std::future::ready(Err(AdminError::invalid(format!("{} needs an object, not a list", E::NAME)))).boxed();
    }
    match decode_request::<E>(payload.clone()) {
        Ok(request) => {
            let handling = handler(request);
            async move { encode(&handling.await?) }.boxed()
        }
        Err(error) => std::future::ready(Err(error)).boxed(),
    }
}

fn encode<T: serde::Serialize>(answer: &T) -> Result<Value, AdminError> {
    serde_json::to_value(answer).map_err(|error| AdminError::internal(format!("the answer cannot be written: {error}")))
}
