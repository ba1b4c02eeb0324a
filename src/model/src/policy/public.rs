//! Whether a statement lets everyone in.
//!
//! Source: AWS S3 User Guide, "Blocking public access to your Amazon S3 storage", "The meaning of public".

use super::{Effect, Scope, Statement, condition::Condition};

/// Keys whose fixed value makes a statement speak of someone in particular.
const FIXING_KEYS: [&str; 11] = [
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceip",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "aws:username",
];

pub(super) fn is_public(statement: &Statement) -> bool {
    let everyone = match &statement.principals {
        Scope::Only(named) => named.everyone,
        Scope::AllBut(_) => true,
    };
    let is_fixing = |condition: &Condition| FIXING_KEYS.contains(&condition.key()) && condition.fixes_values();
    statement.effect == Effect::Allow && everyone && !statement.conditions.iter().any(is_fixing)
}
