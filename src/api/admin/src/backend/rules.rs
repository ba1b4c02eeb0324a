//! CORS and routing rules between the API's form and the stored one.

use garage_model::rows::rules::{self, REDIRECT_STATUS_DEFAULT, Redirect, Replacement, RuleError};

use crate::{
    AdminError,
    types::{CorsRule, RedirectTarget, RoutingCondition, RoutingRule},
};

fn refused(what: &str, error: &RuleError) -> AdminError {
    AdminError::invalid(format!("{what}: {error}"))
}

/// The stored form of CORS rules, checked.
pub(super) fn read_cors(given: Vec<CorsRule>) -> Result<Vec<rules::CorsRule>, AdminError> {
    let read = given.into_iter().map(read_cors_rule).collect::<Result<Vec<_>, _>>()?;
    rules::check_cors(&read).map_err(|error| refused("corsRules", &error))?;
    Ok(read)
}

fn read_cors_rule(rule: CorsRule) -> Result<rules::CorsRule, AdminError> {
    let max_age_s = rule.max_age_seconds.map(u32::try_from).transpose();
    let max_age_s = max_age_s.map_err(|_| AdminError::invalid("corsRules: MaxAgeSeconds must be a number of seconds from 0 on"))?;
    Ok(rules::CorsRule {
        id: rule.id,
        allowed_origins: rule.allowed_origin,
        allowed_methods: rule.allowed_method,
        allowed_headers: rule.allowed_header,
        expose_headers: rule.expose_header,
        max_age_s,
    })
}

/// The API's form of a CORS rule.
pub(super) fn show_cors(rule: &rules::CorsRule) -> CorsRule {
    CorsRule {
        id: rule.id.clone(),
        max_age_seconds: rule.max_age_s.map(i64::from),
        allowed_origin: rule.allowed_origins.clone(),
        allowed_method: rule.allowed_methods.clone(),
        allowed_header: rule.allowed_headers.clone(),
        expose_header: rule.expose_headers.clone(),
    }
}

/// The stored form of routing rules, checked.
pub(super) fn read_routing(given: Vec<RoutingRule>) -> Result<Vec<rules::RoutingRule>, AdminError> {
    let read = given.into_iter().map(read_routing_rule).collect::<Result<Vec<_>, _>>()?;
    rules::check_routing(&read).map_err(|error| refused("routingRules", &error))?;
    Ok(read)
}

fn read_routing_rule(rule: RoutingRule) -> Result<rules::RoutingRule, AdminError> {
    let condition = rule.condition;
    let code = condition.as_ref().and_then(|condition| condition.http_error_code_returned_equals);
    if code.is_some_and(|code| code != 404) {
        return Err(AdminError::invalid("routingRules: HttpErrorCodeReturnedEquals must be 404 or absent"));
    }
    Ok(rules::RoutingRule {
        key_prefix: condition.and_then(|condition| condition.key_prefix_equals),
        only_missing: code.is_some(),
        redirect: read_redirect(rule.redirect)?,
    })
}

fn read_redirect(target: RedirectTarget) -> Result<Redirect, AdminError> {
    let replacement = match (target.replace_key_prefix_with, target.replace_key_with) {
        (Some(_), Some(_)) => {
            return Err(AdminError::invalid("routingRules: ReplaceKeyPrefixWith and ReplaceKeyWith exclude each other"));
        }
        (Some(prefix), None) => Replacement::Prefix(prefix),
        (None, Some(key)) => Replacement::Key(key),
        (None, None) => Replacement::Root,
    };
    let status = target.http_redirect_code.unwrap_or(i64::from(REDIRECT_STATUS_DEFAULT));
    // What is no status at all becomes one that the check refuses.
    let status = u16::try_from(status).unwrap_or(0);
    Ok(Redirect { protocol: target.protocol, host: target.host_name, replacement, status })
}

/// The API's form of a routing rule.
pub(super) fn show_routing(rule: &rules::RoutingRule) -> RoutingRule {
    let has_condition = rule.only_missing || rule.key_prefix.is_some();
    let condition = has_condition.then(|| RoutingCondition {
        http_error_code_returned_equals: rule.only_missing.then_some(404),
        key_prefix_equals: rule.key_prefix.clone(),
    });
    let Redirect { protocol, host, replacement, status } = rule.redirect.clone();
    let (replace_key_prefix_with, replace_key_with) = match replacement {
        Replacement::Root => (None, None),
        Replacement::Prefix(prefix) => (Some(prefix), None),
        Replacement::Key(key) => (None, Some(key)),
    };
    let http_redirect_code = Some(i64::from(status));
    RoutingRule {
        condition,
        redirect: RedirectTarget { host_name: host, protocol, http_redirect_code, replace_key_prefix_with, replace_key_with },
    }
}

#[cfg(test)]
mod tests {
    use super::{read_cors, read_routing, show_cors, show_routing};
    use crate::types::{CorsRule, RoutingRule};

    #[test]
    fn rules_come_back_as_they_were_set_with_the_status_filled_in() {
        let cors = r#"{"ID":"a","MaxAgeSeconds":60,"AllowedOrigin":["*"],"AllowedMethod":["GET"],"AllowedHeader":["x-*"],"ExposeHeader":["etag"]}"#;
        let cors: CorsRule = serde_json::from_str(cors).unwrap();
        assert_eq!(show_cors(&read_cors(vec![cors.clone()]).unwrap()[0]), cors);
        for (given, shown) in [
            (r#"{"Condition":null,"Redirect":{}}"#, r#"{"Condition":null,"Redirect":{"HttpRedirectCode":302}}"#),
            (
                r#"{"Condition":{"KeyPrefixEquals":"a/","HttpErrorCodeReturnedEquals":404},"Redirect":{"HttpRedirectCode":200,"ReplaceKeyWith":"x"}}"#,
                r#"{"Condition":{"KeyPrefixEquals":"a/","HttpErrorCodeReturnedEquals":404},"Redirect":{"HttpRedirectCode":200,"ReplaceKeyWith":"x"}}"#,
            ),
        ] {
            let given: RoutingRule = serde_json::from_str(given).unwrap();
            let shown: RoutingRule = serde_json::from_str(shown).unwrap();
            assert_eq!(show_routing(&read_routing(vec![given]).unwrap()[0]), shown);
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        for rule in [
            r#"{"Condition":{"HttpErrorCodeReturnedEquals":403},"Redirect":{}}"#,
            r#"{"Condition":null,"Redirect":{"ReplaceKeyWith":"a","ReplaceKeyPrefixWith":"b"}}"#,
            r#"{"Condition":null,"Redirect":{"HttpRedirectCode":-1}}"#,
        ] {
            assert!(read_routing(vec![serde_json::from_str(rule).unwrap()]).is_err(), "{rule}");
        }
    }
}
