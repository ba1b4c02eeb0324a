//! What every command works with: the way to the node, the output, the clock of the person who reads; and finding nodes by pattern.

use std::collections::BTreeSet;

use garage_api_admin::{
    endpoint::{Endpoint, GetBucketInfo, GetClusterLayout, GetClusterStatus, GetKeyInfo},
    types::{Bucket, BucketSearch, Key, KeySearch, Layout, NoParameters},
};

use super::{
    caller::{AdminCaller, call},
    error::{CliError, fail},
    format::LocalTime,
    output::Output,
};

/// One command under way.
pub(crate) struct Session<'a> {
    /// The way to the node.
    pub(crate) caller: &'a dyn AdminCaller,
    /// What will be printed.
    pub(crate) out: Output,
    /// The clock and zone of the reader.
    pub(crate) local: LocalTime,
}

impl<'a> Session<'a> {
    /// A command about to run.
    pub(crate) fn new(caller: &'a dyn AdminCaller, local: LocalTime) -> Self {
        Session { caller, out: Output::default(), local }
    }

    /// A typed call.
    pub(crate) async fn call<E: Endpoint>(&self, request: E::Request) -> Result<E::Response, CliError> {
        call::<E>(self.caller, request).await
    }

    /// The bucket that a pattern means: a global alias, an id, or a prefix of one.
    pub(crate) async fn bucket(&self, pattern: &str) -> Result<Bucket, CliError> {
        self.call::<GetBucketInfo>(BucketSearch { search: Some(pattern.to_owned()), ..BucketSearch::default() }).await
    }

    /// The key that a pattern means: a prefix of its id, or its name.
    pub(crate) async fn key(&self, pattern: &str) -> Result<Key, CliError> {
        self.call::<GetKeyInfo>(KeySearch { search: Some(pattern.to_owned()), ..KeySearch::default() }).await
    }

    /// The current layout and what is staged.
    pub(crate) async fn layout(&self) -> Result<Layout, CliError> {
        self.call::<GetClusterLayout>(NoParameters).await
    }

    /// Ids of all nodes that a pattern may mean: known ones and those of the layout.
    pub(crate) async fn node_ids(&self, layout: &Layout) -> Result<BTreeSet<String>, CliError> {
        let status = self.call::<GetClusterStatus>(NoParameters).await?;
        let roles = layout.roles.iter().map(|role| role.id.clone());
        let staged = layout.staged_role_changes.iter().map(|change| change.id().to_owned());
        Ok(status.nodes.into_iter().map(|node| node.id).chain(roles).chain(staged).collect())
    }
}

/// The one node whose id starts with `pattern`.
pub(crate) fn find_node(ids: &BTreeSet<String>, pattern: &str) -> Result<String, CliError> {
    let lower = pattern.to_ascii_lowercase();
    let matching: Vec<&String> = ids.iter().filter(|id| id.starts_with(&lower)).collect();
    match matching.as_slice() {
        [id] => Ok(id.to_string()),
        others => fail(format!("{} nodes match '{pattern}'", others.len())),
    }
}
