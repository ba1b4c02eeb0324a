//! Bucket policies: documents that say who may do what with a bucket and its objects, and their evaluation. Pure.
//!
//! Reading order: `json` (a reader that refuses what others pass over), `actions` (the names of S3's actions), `pattern` (wildcards and
//! variables), `condition` (operators and keys), `parse` (document to [`Policy`]), this file (evaluation), `public` (who is everyone).
//!
//! Invariants:
//! - a document is taken as a whole or refused as a whole: an element, operator or key that is not known here is an error, never ignored;
//! - a statement that denies wins over all that allow, whatever their order;
//! - what a statement needs to know and the request does not tell makes it grant nothing.
//!
//! Source: AWS IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements reference"; s3 reference §3.12.

pub mod actions;
mod condition;
mod json;
mod parse;
mod pattern;
mod public;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use actions::Action;
use condition::Condition;
pub use condition::{CONDITION_KEYS, canonical_key};
pub use parse::{POLICY_MAX_BYTES, PolicyError};
use pattern::Pattern;

/// What is known of a request: condition keys, spelled as by [`canonical_key`], and their values. A key that is absent is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, Vec<String>>);

impl Facts {
    /// Notes a value of a key; a key may have several.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.entry(canonical_key(key)).or_default().push(value.into());
    }
    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(&canonical_key(key));
    }
    fn get(&self, canonical: &str) -> Option<&[String]> {
        self.0.get(canonical).map(Vec::as_slice)
    }
}

/// A request, as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The id of the access key that signed it; `None`: nobody did.
    pub key_id: Option<&'a str>,
    /// What it wants to do.
    pub action: Action,
    /// `bucket` or `bucket/key`, after `arn:aws:s3:::`.
    pub resource: &'a str,
    /// What else is known.
    pub facts: &'a Facts,
}

/// What a policy says of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A statement denies it.
    Denied,
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement speaks of it.
    Silent,
}

/// A bucket policy, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    Allow,
    Deny,
}

/// Whom a statement names.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Principals {
    everyone: bool,
    key_ids: BTreeSet<String>,
}

impl Principals {
    fn has(&self, key_id: Option<&str>) -> bool {
        self.everyone || key_id.is_some_and(|id| self.key_ids.contains(id))
    }
}

/// An element that names things, or names all but these.
#[derive(Clone, PartialEq, Debug)]
enum Scope<T> {
    Only(T),
    AllBut(T),
}

impl<T> Scope<T> {
    fn named(&self) -> &T {
        match self {
            Scope::Only(named) | Scope::AllBut(named) => named,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Statement {
    effect: Effect,
    principals: Scope<Principals>,
    actions: Scope<Vec<Pattern>>,
    resources: Scope<Vec<Pattern>>,
    conditions: Vec<Condition>,
}

impl Policy {
    /// Reads a document that stands on the bucket called `bucket_name`. Errors: a sentence for `MalformedPolicy`.
    pub fn parse(text: &str, bucket_name: &str) -> Result<Policy, PolicyError> {
        parse::policy(text, bucket_name)
    }

    /// What the policy says of a request.
    pub fn evaluate(&self, asked: &Asked<'_>) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in self.statements.iter().filter(|statement| statement.speaks_of(asked)) {
            match statement.effect {
                Effect::Deny => return Verdict::Denied,
                Effect::Allow => verdict = Verdict::Allowed,
            }
        }
        verdict
    }

    /// The same with one statement more, which denies everything to everyone.
    #[must_use]
    pub fn with_denial(mut self) -> Policy {
        let all = || Scope::Only(vec![Pattern::new("*", pattern::Syntax { wildcards: true, variables: false })]);
        let principals = Scope::Only(Principals { everyone: true, key_ids: BTreeSet::new() });
        let conditions = Vec::new();
        self.statements.push(Statement { effect: Effect::Deny, principals, actions: all(), resources: all(), conditions });
        self
    }

    /// The access keys that it names.
    pub fn key_ids(&self) -> BTreeSet<&str> {
        self.statements.iter().flat_map(|statement| &statement.principals.named().key_ids).map(String::as_str).collect()
    }

    /// Whether a condition asks for tags that the object has already, so that they must be read before the policy is evaluated.
    pub fn needs_existing_tags(&self) -> bool {
        self.conditions().any(|condition| condition.key().starts_with(condition::EXISTING_TAG))
    }

    /// Whether everyone may do something by it; AWS S3 User Guide, "The meaning of public".
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(public::is_public)
    }

    fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.statements.iter().flat_map(|statement| &statement.conditions)
    }
}

impl Statement {
    fn speaks_of(&self, asked: &Asked<'_>) -> bool {
        let principal = match &self.principals {
            Scope::Only(named) => named.has(asked.key_id),
            Scope::AllBut(named) => !named.has(asked.key_id),
        };
        principal
            && self.has_action(asked.action)
            && self.has_resource(asked)
            && self.conditions.iter().all(|condition| condition.holds(asked.facts))
    }

    fn has_action(&self, action: Action) -> bool {
        let name = format!("s3:{}", action.name()).to_ascii_lowercase();
        let is_named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches_text(&name));
        match &self.actions {
            Scope::Only(patterns) => is_named(patterns),
            Scope::AllBut(patterns) => !is_named(patterns),
        }
    }

    fn has_resource(&self, asked: &Asked<'_>) -> bool {
        let arn = format!("{}{}", parse::ARN_PREFIX, asked.resource);
        match &self.resources {
            Scope::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(&arn, asked.facts) == Some(true)),
            // A variable without value names nothing here: then a statement grants nothing, and denies everything.
            Scope::AllBut(patterns) => patterns.iter().all(|pattern| match pattern.matches(&arn, asked.facts) {
                Some(matches) => !matches,
                None => self.effect == Effect::Deny,
            }),
        }
    }
}
