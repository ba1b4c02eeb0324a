//! From an HTTP request to the payload of an endpoint: which query parameters are read, and where the body goes.

use serde_json::{Map, Value};

use crate::{AdminError, EndpointInfo, Method, ParameterKind, Payload, find_endpoint};

/// The endpoint that `/v2/<name>` with this method means.
///
/// Errors: `InvalidRequest`, since the interface knows neither 404 nor 405 for routes.
pub fn route(method: &str, path: &str) -> Result<&'static EndpointInfo, AdminError> {
    let name = path.strip_prefix("/v2/").unwrap_or_default();
    let endpoint = find_endpoint(name).ok_or_else(|| AdminError::invalid(format!("unknown API endpoint: {path}")))?;
    let expected = match endpoint.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    if method == expected { Ok(endpoint) } else { Err(AdminError::invalid(format!("{name} must be called with {expected}, not {method}"))) }
}

/// The payload of `endpoint` from the decoded query parameters and the body.
///
/// Unknown parameters are ignored, an empty value counts as absent.
/// Errors: `InvalidRequest` on a repeated, missing or malformed parameter, or a body that is no JSON where one is needed.
pub fn payload(endpoint: &EndpointInfo, query: &[(String, String)], body: &[u8]) -> Result<Value, AdminError> {
    let parameters = parameters(endpoint, query)?;
    match endpoint.payload {
        Payload::Parameters if endpoint.parameters.is_empty() => Ok(Value::Null),
        Payload::Parameters => Ok(Value::Object(parameters)),
        Payload::Body => json(endpoint, body),
        Payload::ParametersAndBody => {
            let mut payload = parameters;
            payload.insert("body".into(), json(endpoint, body)?);
            Ok(Value::Object(payload))
        }
    }
}

fn json(endpoint: &EndpointInfo, body: &[u8]) -> Result<Value, AdminError> {
    serde_json::from_slice(body).map_err(|error| AdminError::invalid(format!("{} needs a JSON body: {error}", endpoint.name)))
}

fn parameters(endpoint: &EndpointInfo, query: &[(String, String)]) -> Result<Map<String, Value>, AdminError> {
    let mut found = Map::new();
    for parameter in endpoint.parameters {
        let name = parameter.name;
        let mut values = query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next().unwrap_or_default();
        if values.next().is_some() {
            return Err(AdminError::invalid(format!("query parameter {name} is given more than once")));
        }
        if value.is_empty() {
            if parameter.required {
                return Err(AdminError::invalid(format!("query parameter {name} is missing")));
            }
            continue;
        }
        found.insert(name.into(), read_parameter(name, parameter.kind, value)?);
    }
    Ok(found)
}

fn read_parameter(name: &str, kind: ParameterKind, value: &str) -> Result<Value, AdminError> {
    let wrong = |what: &str| AdminError::invalid(format!("query parameter {name} must be {what}, not {value:?}"));
    match kind {
        ParameterKind::Text => Ok(value.into()),
        ParameterKind::Number => value.parse::<u64>().map(Value::from).map_err(|_| wrong("a number")),
        ParameterKind::Flag => value.parse::<bool>().map(Value::from).map_err(|_| wrong("true or false")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(method: &str, path: &str, query: &[(&str, &str)], body: &str) -> Result<Value, String> {
        let query: Vec<_> = query.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        route(method, path).and_then(|endpoint| payload(endpoint, &query, body.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_become_fields_and_the_body_stands_beside_them() {
        assert_eq!(check("GET", "/v2/GetClusterStatus", &[], "rubbish"), Ok(Value::Null), "a body nobody asked for is not looked at");
        assert_eq!(
            check("GET", "/v2/GetKeyInfo", &[("id", "GK1"), ("search", ""), ("showSecretKey", "true"), ("other", "1")], ""),
            Ok(json!({"id": "GK1", "showSecretKey": true}))
        );
        assert_eq!(check("POST", "/v2/CreateKey", &[], "{\"name\": \"x\"}"), Ok(json!({"name": "x"})));
        assert_eq!(check("POST", "/v2/UpdateKey", &[("id", "GK1")], "{}"), Ok(json!({"id": "GK1", "body": {}})));
        assert_eq!(check("GET", "/v2/ListKeys", &[("limit", "5")], ""), Ok(json!({"limit": 5})));
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (method, path, query, body, expected) in [
            ("PUT", "/v2/CreateKey", &[][..], "{}", "CreateKey must be called with POST, not PUT"),
            ("GET", "/v2/getKeyInfo", &[], "", "unknown API endpoint: /v2/getKeyInfo"),
            ("GET", "/v2/GetKeyInfo/", &[], "", "unknown API endpoint"),
            ("POST", "/v2/DeleteKey", &[], "", "query parameter id is missing"),
            ("GET", "/v2/ListKeys", &[("limit", "many")], "", "query parameter limit must be a number"),
            ("GET", "/v2/GetKeyInfo", &[("id", "a"), ("id", "b")], "", "given more than once"),
            ("GET", "/v2/GetKeyInfo", &[("id", "a"), ("showSecretKey", "1")], "", "must be true or false"),
            ("POST", "/v2/CreateKey", &[], "", "CreateKey needs a JSON body"),
        ] {
            let message = check(method, path, query, body).unwrap_err();
            assert!(message.starts_with("InvalidRequest (400): ") && message.contains(expected), "{path}: {message}");
        }
    }
}
