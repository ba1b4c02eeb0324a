//! Holds answers against the OpenAPI document: types, required fields, and no field that is not documented.

use std::sync::LazyLock;

use garage_api_admin::OPENAPI;
use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(OPENAPI).expect("the document is JSON"));

/// Panics unless `answer` is what `endpoint` is documented to answer.
pub fn check_answer(endpoint: &str, answer: &Value) {
    let path = &DOCUMENT["paths"][format!("/v2/{endpoint}")];
    let operation = if path["get"].is_object() { &path["get"] } else { &path["post"] };
    let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert!(answer.is_null(), "{endpoint}: {answer}");
        return;
    }
    if let Err(mismatch) = check(schema, answer) {
        panic!("{endpoint}: {mismatch} in {answer:#}");
    }
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return check(&DOCUMENT["components"]["schemas"][name], value).map_err(|mismatch| format!("{name}: {mismatch}"));
    }
    if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let mismatches: Vec<String> = choices.iter().filter_map(|choice| check(choice, value).err()).collect();
        return if mismatches.len() < choices.len() { Ok(()) } else { Err(mismatches.join(" / ")) };
    }
    check_type(schema, value)?;
    match value {
        Value::Array(items) if schema["items"].is_object() => items.iter().try_for_each(|item| check(&schema["items"], item)),
        Value::Object(_) if schema["properties"].is_object() || schema["additionalProperties"].is_object() => check_object(schema, value),
        _ => Ok(()),
    }
}

fn check_object(schema: &Value, value: &Value) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let of_field = match schema["properties"].get(name) {
            Some(schema) => schema,
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => return Err(format!("{name} is not documented")),
        };
        check(of_field, field).map_err(|mismatch| format!("{name}: {mismatch}"))?;
    }
    Ok(())
}

fn check_type(schema: &Value, value: &Value) -> Result<(), String> {
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is_of = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{value} is none of {allowed:?}"));
    }
    if names.iter().any(|name| is_of(name)) { Ok(()) } else { Err(format!("{value} is not of type {names:?}")) }
}

#[test]
fn the_check_itself_finds_what_is_wrong() {
    let good = serde_json::json!({"layoutVersion": 1, "nodes": []});
    check_answer("GetClusterStatus", &good);
    for wrong in [
        serde_json::json!({"nodes": []}),
        serde_json::json!({"layoutVersion": "1", "nodes": []}),
        serde_json::json!({"layoutVersion": 1, "nodes": [{}]}),
        serde_json::json!({"layoutVersion": 1, "nodes": [], "more": 1}),
    ] {
        assert!(std::panic::catch_unwind(|| check_answer("GetClusterStatus", &wrong)).is_err(), "{wrong}");
    }
}
