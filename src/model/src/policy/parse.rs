//! From a document to a policy, or to the sentence that says what is wrong with it.
//!
//! Source: s3 reference §3.12; the sentences are those of S3 where it has one.

use std::collections::BTreeSet;

use super::{
    Effect, Policy, Principals, Scope, Statement,
    actions::{self, Action, Level},
    condition::Condition,
    json::Json,
    pattern::{Pattern, Syntax},
};

/// Bytes of a policy document. Source: AWS S3 User Guide, "Bucket policies".
pub const POLICY_MAX_BYTES: usize = 20 << 10;
/// How resource names of buckets and objects begin.
pub(super) const ARN_PREFIX: &str = "arn:aws:s3:::";
const USER_ARN_PREFIX: &str = "arn:aws:iam::";

/// Why a document is no policy: S3's `MalformedPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

fn refuse<T>(message: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(message.into()))
}

type Fields = [(String, Json)];

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a Json> {
    fields.iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

fn only(fields: &Fields, known: &[&str]) -> Result<(), PolicyError> {
    match fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((unknown, _)) => refuse(format!("Unknown field {unknown}")),
        None => Ok(()),
    }
}

pub(super) fn policy(text: &str, bucket_name: &str) -> Result<Policy, PolicyError> {
    if POLICY_MAX_BYTES < text.len() {
        return refuse(format!("Normalized policy document exceeds the maximum allowed size of {POLICY_MAX_BYTES} bytes"));
    }
    if !text.trim_start().starts_with('{') {
        return refuse("Policies must be valid JSON and the first byte must be '{'");
    }
    let json = Json::parse(text);
    let json = json.map_err(|reason| PolicyError(format!("Policies must be valid JSON and the first byte must be '{{' ({reason})")))?;
    let Json::Object(fields) = json else { return refuse("Policies must be valid JSON and the first byte must be '{'") };
    only(&fields, &["Version", "Id", "Statement"])?;
    let variables = match field(&fields, "Version").map(Json::as_text) {
        None | Some(Some("2008-10-17")) => false,
        Some(Some("2012-10-17")) => true,
        Some(_) => return refuse("The policy must contain a valid version string"),
    };
    check_text(&fields, "Id")?;
    let Some(list) = field(&fields, "Statement") else { return refuse("Missing required field Statement") };
    if list.as_list().is_empty() {
        return refuse("Missing required field Statement");
    }
    let reader = Reader { bucket_name, variables };
    let statements = list.as_list().iter().map(|json| reader.statement(json)).collect::<Result<Vec<_>, _>>()?;
    let mut sids = BTreeSet::new();
    for sid in list.as_list().iter().filter_map(|json| match json {
        Json::Object(fields) => field(fields, "Sid").and_then(Json::as_text),
        _ => None,
    }) {
        if !sid.is_empty() && !sids.insert(sid) {
            return refuse(format!("Statement IDs (SID) in a single policy must be unique: {sid}"));
        }
    }
    Ok(Policy { statements })
}

fn check_text(fields: &Fields, name: &str) -> Result<(), PolicyError> {
    match field(fields, name) {
        None | Some(Json::Text(_)) => Ok(()),
        Some(_) => refuse(format!("{name} must be a string")),
    }
}

struct Reader<'a> {
    bucket_name: &'a str,
    variables: bool,
}

impl Reader<'_> {
    fn statement(&self, json: &Json) -> Result<Statement, PolicyError> {
        let Json::Object(fields) = json else { return refuse("Statement must be an object or a list of objects") };
        only(fields, &["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"])?;
        check_text(fields, "Sid")?;
        let effect = match field(fields, "Effect") {
            None => return refuse("Missing required field Effect"),
            Some(effect) => match effect.as_text() {
                Some("Allow") => Effect::Allow,
                Some("Deny") => Effect::Deny,
                _ => return refuse(format!("Invalid effect: {}", effect.as_text().unwrap_or("not a string"))),
            },
        };
        let principals = one_of(fields, "Principal", "NotPrincipal")?.map_scope(principals)?;
        if effect == Effect::Allow && matches!(principals, Scope::AllBut(_)) {
            return refuse("Allow with NotPrincipal is not allowed");
        }
        let actions = one_of(fields, "Action", "NotAction")?.map_scope(action_patterns)?;
        let resources = one_of(fields, "Resource", "NotResource")?.map_scope(|json| self.resource_patterns(json))?;
        let conditions = self.conditions(field(fields, "Condition"))?;
        self.check_fit(&actions, &resources, &conditions)?;
        Ok(Statement { effect, principals, actions, resources, conditions })
    }

    fn resource_patterns(&self, json: &Json) -> Result<Vec<Pattern>, PolicyError> {
        let read = |json: &Json| {
            let text = json.as_text().ok_or_else(|| PolicyError("Policy has invalid resource".into()))?;
            if text == "*" {
                return Ok(Pattern::new(text, Syntax { wildcards: true, variables: false }));
            }
            let named = text.strip_prefix(ARN_PREFIX).filter(|named| !named.is_empty());
            let named = named.ok_or_else(|| PolicyError(format!("Policy has invalid resource - {text}")))?;
            let bucket = named.split_once('/').map_or(named, |(bucket, _)| bucket);
            let bucket = Pattern::new(bucket, Syntax { wildcards: true, variables: false });
            if !bucket.matches_text(self.bucket_name) {
                return refuse(format!("Policy has invalid resource - {text} is not in the bucket {}", self.bucket_name));
            }
            Ok(Pattern::new(text, Syntax { wildcards: true, variables: self.variables }))
        };
        not_empty(json.as_list().iter().map(read).collect::<Result<_, _>>()?, "Policy has invalid resource")
    }

    fn conditions(&self, json: Option<&Json>) -> Result<Vec<Condition>, PolicyError> {
        let operators = match json {
            None => return Ok(Vec::new()),
            Some(Json::Object(operators)) => operators,
            Some(_) => return refuse("Condition must be an object"),
        };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let Json::Object(keys) = keys else { return refuse(format!("Condition {operator} must be an object")) };
            for (key, values) in keys {
                let values: Option<Vec<String>> = values.as_list().iter().map(Json::as_scalar).collect();
                let Some(values) = values else { return refuse(format!("Invalid value of condition {operator} on {key}")) };
                conditions.push(Condition::parse(operator, key, &values, self.variables).map_err(PolicyError)?);
            }
        }
        Ok(conditions)
    }

    /// A statement none of whose resources one of its actions can be on is a mistake of whoever wrote it.
    fn check_fit(
        &self,
        actions: &Scope<Vec<Pattern>>,
        resources: &Scope<Vec<Pattern>>,
        conditions: &[Condition],
    ) -> Result<(), PolicyError> {
        let Scope::Only(actions) = actions else { return Ok(()) };
        if let Scope::Only(resources) = resources {
            let bucket = format!("{ARN_PREFIX}{}", self.bucket_name);
            let on_bucket = resources.iter().any(|resource| resource.matches_text(&bucket));
            let on_objects = resources.iter().any(|resource| resource.text().contains('/') || resource.is_wide());
            let fits = |action: &Action| match action.level() {
                Level::Service => false,
                Level::Bucket => on_bucket,
                Level::Object => on_objects,
            };
            if !actions.iter().all(|pattern| named_by(pattern).any(|action| fits(&action))) {
                return refuse("Action does not apply to any resource(s) in statement");
            }
        }
        const OF_LISTS: [&str; 3] = ["s3:prefix", "s3:delimiter", "s3:max-keys"];
        let of_lists = conditions.iter().any(|condition| OF_LISTS.contains(&condition.key()));
        let lists = actions.iter().flat_map(named_by).any(|action| action.name().starts_with("ListBucket"));
        if of_lists && !lists {
            return refuse("Conditions do not apply to combination of actions and resources in statement");
        }
        Ok(())
    }
}

/// The actions that a pattern names.
fn named_by(pattern: &Pattern) -> impl Iterator<Item = Action> {
    actions::ALL.iter().copied().filter(|action| pattern.matches_text(&format!("s3:{}", action.name()).to_ascii_lowercase()))
}

/// Exactly one of two fields.
fn one_of<'a>(fields: &'a Fields, name: &str, inverse: &str) -> Result<Scope<&'a Json>, PolicyError> {
    match (field(fields, name), field(fields, inverse)) {
        (Some(only), None) => Ok(Scope::Only(only)),
        (None, Some(all_but)) => Ok(Scope::AllBut(all_but)),
        (None, None) => refuse(format!("Missing required field {name}")),
        (Some(_), Some(_)) => refuse(format!("{name} and {inverse} can't stand in one statement")),
    }
}

impl Scope<&Json> {
    fn map_scope<T>(self, read: impl FnOnce(&Json) -> Result<T, PolicyError>) -> Result<Scope<T>, PolicyError> {
        Ok(match self {
            Scope::Only(json) => Scope::Only(read(json)?),
            Scope::AllBut(json) => Scope::AllBut(read(json)?),
        })
    }
}

fn not_empty<T>(list: Vec<T>, message: &str) -> Result<Vec<T>, PolicyError> {
    if list.is_empty() { refuse(message) } else { Ok(list) }
}

fn action_patterns(json: &Json) -> Result<Vec<Pattern>, PolicyError> {
    let read = |json: &Json| {
        let text = json.as_text().ok_or_else(|| PolicyError("Policy has invalid action".into()))?;
        let pattern = Pattern::new(&text.to_ascii_lowercase(), Syntax { wildcards: true, variables: false });
        let is_of_s3 = text == "*" || text.to_ascii_lowercase().starts_with("s3:");
        if is_of_s3 && named_by(&pattern).next().is_some() { Ok(pattern) } else { refuse(format!("Policy has invalid action - {text}")) }
    };
    not_empty(json.as_list().iter().map(read).collect::<Result<_, _>>()?, "Policy has invalid action")
}

fn principals(json: &Json) -> Result<Principals, PolicyError> {
    let mut named = Principals { everyone: false, key_ids: BTreeSet::new() };
    let invalid = || PolicyError("Invalid principal in policy".into());
    match json {
        Json::Text(text) if text == "*" => named.everyone = true,
        Json::Object(kinds) if !kinds.is_empty() => {
            for (kind, values) in kinds {
                if values.as_list().is_empty() {
                    return Err(invalid());
                }
                for value in values.as_list() {
                    let text = value.as_text().ok_or_else(invalid)?;
                    match (kind.as_str(), text) {
                        ("AWS", "*") => named.everyone = true,
                        ("AWS", text) => drop(named.key_ids.insert(key_id(text).ok_or_else(invalid)?.to_owned())),
                        ("CanonicalUser", text) => drop(named.key_ids.insert(bare_key_id(text).ok_or_else(invalid)?.to_owned())),
                        _ => return Err(invalid()),
                    }
                }
            }
        }
        _ => return Err(invalid()),
    }
    Ok(named)
}

fn bare_key_id(text: &str) -> Option<&str> {
    Some(text).filter(|id| crate::names::check_key_id(id).is_ok())
}

/// The access key that a principal names: `arn:aws:iam::…:user/<key id>`, `arn:aws:iam::<key id>:root`, or the key id alone. A key is its own
/// account here, so that what S3 shows as the owner's id can be named where AWS takes an account.
fn key_id(text: &str) -> Option<&str> {
    let Some(rest) = text.strip_prefix(USER_ARN_PREFIX) else { return bare_key_id(text) };
    let (account, name) = rest.split_once(':')?;
    match name.strip_prefix("user/") {
        // A user may stand under a path, of which the last part is its name.
        Some(path) => bare_key_id(path.rsplit('/').next()?),
        None if name == "root" => bare_key_id(account),
        None => None,
    }
}
