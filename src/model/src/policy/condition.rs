//! Conditions of statements: an operator, a key, and values of which one must fit.
//!
//! Source: AWS IAM User Guide, "IAM JSON policy elements: Condition operators", "Single-valued and multivalued context keys"; s3 reference
//! §3.12.

use std::{cmp::Ordering, net::IpAddr};

use super::{
    Facts,
    pattern::{Pattern, Syntax},
};

/// Where keys that name a tag of the object begin, lower-case.
pub const EXISTING_TAG: &str = "s3:existingobjecttag/";
/// Where keys that name a tag of the request begin, lower-case.
const REQUEST_TAG: &str = "s3:requestobjecttag/";
/// Where keys that name a grant header begin, lower-case.
const GRANT: &str = "s3:x-amz-grant-";

/// Keys that may stand in a condition, lower-case; those with a name after a slash are apart.
pub const CONDITION_KEYS: &[&str] = &[
    "aws:currenttime",
    "aws:epochtime",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:principaltype",
    "aws:referer",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceip",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:useragent",
    "aws:userid",
    "aws:username",
    "s3:authtype",
    "s3:delimiter",
    "s3:if-match",
    "s3:if-none-match",
    "s3:locationconstraint",
    "s3:max-keys",
    "s3:object-lock-legal-hold",
    "s3:object-lock-mode",
    "s3:object-lock-remaining-retention-days",
    "s3:object-lock-retain-until-date",
    "s3:objectcreationoperation",
    "s3:prefix",
    "s3:requestobjecttagkeys",
    "s3:signatureage",
    "s3:signatureversion",
    "s3:tlsversion",
    "s3:versionid",
    "s3:x-amz-acl",
    "s3:x-amz-content-sha256",
    "s3:x-amz-copy-source",
    "s3:x-amz-metadata-directive",
    "s3:x-amz-object-ownership",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
    "s3:x-amz-storage-class",
    "s3:x-amz-website-redirect-location",
];

/// One spelling of a condition key: lower-case, but for the name of a tag.
pub fn canonical_key(key: &str) -> String {
    match key.split_once('/') {
        Some((family, name)) => format!("{}/{name}", family.to_ascii_lowercase()),
        None => key.to_ascii_lowercase(),
    }
}

fn is_known(key: &str) -> bool {
    let has_name = |family: &str| key.strip_prefix(family).is_some_and(|name| !name.is_empty());
    let grants = ["read", "write", "read-acp", "write-acp", "full-control"];
    CONDITION_KEYS.contains(&key)
        || has_name(EXISTING_TAG)
        || has_name(REQUEST_TAG)
        || key.strip_prefix(GRANT).is_some_and(|name| grants.contains(&name))
}

/// How a value is compared with that of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Text.
    Text {
        /// Whatever its case.
        ignore_case: bool,
        /// With wildcards.
        like: bool,
    },
    /// Numbers, by their order.
    Number(Order),
    /// Moments, by their order.
    Date(Order),
    /// Truth.
    Bool,
    /// A network that the address is in.
    Network,
    /// A resource name, part by part, with wildcards.
    Arn,
    /// Whether the key is absent.
    Null,
}

/// What order a request's value must have to the policy's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn has(self, ordering: Ordering) -> bool {
        match self {
            Order::Equal => ordering.is_eq(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// How the values of a key that may have several are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quantifier {
    /// It has one.
    Single,
    /// One of them must fit.
    Any,
    /// Each of them must fit.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Operator {
    comparison: Comparison,
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
}

impl Operator {
    fn parse(name: &str) -> Option<Operator> {
        let (quantifier, name) = match name.split_once(':') {
            Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
            Some(("ForAllValues", rest)) => (Quantifier::All, rest),
            Some(_) => return None,
            None => (Quantifier::Single, name),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let text = |ignore_case, like| Comparison::Text { ignore_case, like };
        let (comparison, negated) = match name {
            "StringEquals" => (text(false, false), false),
            "StringNotEquals" => (text(false, false), true),
            "StringEqualsIgnoreCase" => (text(true, false), false),
            "StringNotEqualsIgnoreCase" => (text(true, false), true),
            "StringLike" => (text(false, true), false),
            "StringNotLike" => (text(false, true), true),
            "NumericEquals" => (Comparison::Number(Order::Equal), false),
            "NumericNotEquals" => (Comparison::Number(Order::Equal), true),
            "NumericLessThan" => (Comparison::Number(Order::Less), false),
            "NumericLessThanEquals" => (Comparison::Number(Order::LessOrEqual), false),
            "NumericGreaterThan" => (Comparison::Number(Order::Greater), false),
            "NumericGreaterThanEquals" => (Comparison::Number(Order::GreaterOrEqual), false),
            "DateEquals" => (Comparison::Date(Order::Equal), false),
            "DateNotEquals" => (Comparison::Date(Order::Equal), true),
            "DateLessThan" => (Comparison::Date(Order::Less), false),
            "DateLessThanEquals" => (Comparison::Date(Order::LessOrEqual), false),
            "DateGreaterThan" => (Comparison::Date(Order::Greater), false),
            "DateGreaterThanEquals" => (Comparison::Date(Order::GreaterOrEqual), false),
            "Bool" => (Comparison::Bool, false),
            "IpAddress" => (Comparison::Network, false),
            "NotIpAddress" => (Comparison::Network, true),
            "ArnEquals" | "ArnLike" => (Comparison::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Comparison::Arn, true),
            // Whether a key is there is no question of its values.
            "Null" if quantifier == Quantifier::Single && !if_exists => (Comparison::Null, false),
            _ => return None,
        };
        Some(Operator { comparison, negated, if_exists, quantifier })
    }
}

/// A value of a policy, read for its operator.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Text(Pattern),
    Number(f64),
    Moment(i64),
    Bool(bool),
    Network(Network),
    Arn(Pattern),
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    operator: Operator,
    key: String,
    wanted: Vec<Wanted>,
}

impl Condition {
    /// Reads one. Errors: a sentence.
    pub fn parse(operator: &str, key: &str, values: &[String], variables: bool) -> Result<Condition, String> {
        let parsed = Operator::parse(operator).ok_or_else(|| format!("Invalid Condition type : {operator}"))?;
        let key = canonical_key(key);
        if !is_known(&key) {
            return Err(format!("Policy has an invalid condition key - {key}"));
        }
        if values.is_empty() {
            return Err(format!("Condition {operator} on {key} has no value"));
        }
        let wanted = values.iter().map(|value| {
            read_value(parsed.comparison, value, variables).ok_or_else(|| format!("Invalid value {value:?} for condition {operator}"))
        });
        Ok(Condition { operator: parsed, key, wanted: wanted.collect::<Result<_, _>>()? })
    }

    /// The key, in its one spelling.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it holds for a request.
    pub fn holds(&self, facts: &Facts) -> bool {
        let values = facts.get(&self.key).filter(|values| !values.is_empty());
        if self.operator.comparison == Comparison::Null {
            return self.wanted.contains(&Wanted::Bool(values.is_none()));
        }
        let Some(values) = values else {
            return self.operator.if_exists
                || match self.operator.quantifier {
                    Quantifier::All => true,
                    Quantifier::Any => false,
                    Quantifier::Single => self.operator.negated,
                };
        };
        let fits = |value: &String| self.wanted.iter().any(|wanted| compare(self.operator.comparison, value, wanted, facts));
        let passes = |value: &String| fits(value) != self.operator.negated;
        match self.operator.quantifier {
            Quantifier::All => values.iter().all(passes),
            Quantifier::Any => values.iter().any(passes),
            // A request that gives a single-valued key several values must not pass by the one that fits.
            Quantifier::Single => values.iter().all(passes),
        }
    }

    /// Whether it holds only for requests whose key has one of a few values named in the policy.
    pub fn fixes_values(&self) -> bool {
        let is_exact = |wanted: &Wanted| match wanted {
            Wanted::Text(pattern) | Wanted::Arn(pattern) => !pattern.is_wide() && !pattern.text().contains('*'),
            Wanted::Network(network) => network.is_narrow(),
            Wanted::Number(_) | Wanted::Moment(_) | Wanted::Bool(_) => false,
        };
        let compares = matches!(self.operator.comparison, Comparison::Text { .. } | Comparison::Arn | Comparison::Network);
        let needs_value = !self.operator.negated && !self.operator.if_exists && self.operator.quantifier != Quantifier::All;
        compares && needs_value && self.wanted.iter().all(is_exact)
    }
}

fn read_value(comparison: Comparison, value: &str, variables: bool) -> Option<Wanted> {
    Some(match comparison {
        Comparison::Text { ignore_case, like } => {
            let text = if ignore_case { value.to_lowercase() } else { value.to_owned() };
            Wanted::Text(Pattern::new(&text, Syntax { wildcards: like, variables }))
        }
        Comparison::Number(_) => Wanted::Number(number(value)?),
        Comparison::Date(_) => Wanted::Moment(moment_ms(value)?),
        Comparison::Bool | Comparison::Null => Wanted::Bool(truth(value)?),
        Comparison::Network => Wanted::Network(Network::parse(value)?),
        Comparison::Arn => Wanted::Arn(Pattern::new(value, Syntax { wildcards: true, variables })),
    })
}

/// A value that can't be read as what the operator compares fits nothing.
fn compare(comparison: Comparison, value: &str, wanted: &Wanted, facts: &Facts) -> bool {
    match (comparison, wanted) {
        (Comparison::Text { ignore_case: true, .. }, Wanted::Text(pattern)) => pattern.matches(&value.to_lowercase(), facts) == Some(true),
        (_, Wanted::Text(pattern)) => pattern.matches(value, facts) == Some(true),
        (_, Wanted::Arn(pattern)) => arn_fits(pattern, value, facts),
        (Comparison::Number(order), Wanted::Number(wanted)) => {
            number(value).and_then(|value| value.partial_cmp(wanted)).is_some_and(|ordering| order.has(ordering))
        }
        (Comparison::Date(order), Wanted::Moment(wanted)) => moment_ms(value).is_some_and(|value| order.has(value.cmp(wanted))),
        (Comparison::Bool, Wanted::Bool(wanted)) => truth(value) == Some(*wanted),
        (_, Wanted::Network(network)) => value.parse().is_ok_and(|address| network.has(address)),
        _ => false,
    }
}

/// Resource names have six parts; a wildcard does not reach from one into the next.
fn arn_fits(pattern: &Pattern, value: &str, facts: &Facts) -> bool {
    if pattern.matches(value, facts) != Some(true) {
        return false;
    }
    let (wanted, given) = (arn_parts(pattern.text()), arn_parts(value));
    let part_fits = |(wanted, given): (&&str, &&str)| {
        let syntax = Syntax { wildcards: true, variables: true };
        Pattern::new(wanted, syntax).matches(given, facts) == Some(true)
    };
    wanted.len() == given.len() && wanted.iter().zip(&given).all(part_fits)
}

/// The parts between colons; a colon inside a variable's name separates nothing.
fn arn_parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut in_variable) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') => in_variable = true,
            '}' => in_variable = false,
            ':' if !in_variable && parts.len() < 5 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse::<f64>().ok().filter(|number| is_plain && number.is_finite())
}

fn truth(text: &str) -> Option<bool> {
    match () {
        () if text.eq_ignore_ascii_case("true") => Some(true),
        () if text.eq_ignore_ascii_case("false") => Some(false),
        () => None,
    }
}

/// Milliseconds since 1970 of an ISO 8601 date (with time and zone, or midnight UTC) or of seconds since 1970.
fn moment_ms(text: &str) -> Option<i64> {
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return text.parse::<f64>().ok().filter(|seconds| *seconds < 1e12).map(|seconds| (seconds * 1000.0) as i64);
    }
    let date = text.parse::<jiff::civil::Date>().ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let width = bits(address).1;
        let prefix_bits = match prefix {
            None => width,
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok().filter(|bits| *bits <= width)?,
            Some(_) => return None,
        };
        Some(Network { address, prefix_bits })
    }
    fn has(self, address: IpAddr) -> bool {
        // An IPv4 client of a listener for both is seen under a mapped address.
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address.to_canonical()));
        let shift = width - self.prefix_bits;
        width == other_width && own.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    }
    /// Narrow enough not to be everyone: AWS S3 User Guide, "The meaning of public".
    fn is_narrow(self) -> bool {
        let least = if self.address.is_ipv4() { 8 } else { 32 };
        least <= self.prefix_bits
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}
