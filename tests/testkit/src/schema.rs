//! Validates JSON with the subset of JSON Schema (2020-12) that the description of `/v1` uses. An unsupported keyword is an error, so that
//! nothing remains unchecked.

use serde_json::{Map, Value};

/// Validates `value` with this schema, whose references are resolved in `document`.
///
/// # Errors
/// The first violation, with its position.
pub fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    match schema {
        Value::Bool(true) => Ok(()),
        Value::Object(keywords) => keywords.iter().try_for_each(|(name, keyword)| {
            check_keyword(document, keywords, name, keyword, value)
        }),
        other @ (Value::Null
        | Value::Bool(false)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => Err(format!("{other} is not a schema")),
    }
}

fn check_keyword(
    document: &Value,
    keywords: &Map<String, Value>,
    name: &str,
    keyword: &Value,
    value: &Value,
) -> Result<(), String> {
    let fits = |schema| check(document, schema, value).is_ok();
    let is_right = match name {
        "title" | "description" | "default" | "format" => true,
        "$ref" => {
            let pointer = keyword.as_str().and_then(|text| text.strip_prefix('#'));
            let target = pointer.and_then(|pointer| document.pointer(pointer));
            let target = target.ok_or_else(|| format!("{keyword} leads nowhere"))?;
            return check(document, target, value);
        }
        "type" => match keyword {
            Value::Array(kinds) => kinds
                .iter()
                .filter_map(Value::as_str)
                .any(|kind| is_of(kind, value)),
            Value::String(kind) => is_of(kind, value),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        },
        "const" => keyword == value,
        "enum" => list(keyword).contains(value),
        "anyOf" => list(keyword).iter().any(fits),
        "oneOf" => list(keyword).iter().filter(|schema| fits(schema)).count() == 1,
        "allOf" => {
            let mut all = list(keyword).iter();
            return all.try_for_each(|schema| check(document, schema, value));
        }
        "minimum" => value
            .as_f64()
            .is_none_or(|number| Some(number) >= keyword.as_f64()),
        "maximum" => value
            .as_f64()
            .is_none_or(|number| Some(number) <= keyword.as_f64()),
        "required" => value.as_object().is_none_or(|members| {
            let mut names = list(keyword).iter().filter_map(Value::as_str);
            names.all(|name| members.contains_key(name))
        }),
        "properties" => {
            let properties = keyword.as_object().expect("properties are an object");
            for (name, schema) in properties {
                if let Some(member) = value.get(name) {
                    let checked = check(document, schema, member);
                    checked.map_err(|error| format!("{name}: {error}"))?;
                }
            }
            true
        }
        "additionalProperties" => {
            let properties = keywords.get("properties").and_then(Value::as_object);
            let named = |name: &String| properties.is_some_and(|all| all.contains_key(name));
            let members = value.as_object().into_iter().flatten();
            for (name, member) in members.filter(|(name, _)| !named(name)) {
                let checked = check(document, keyword, member);
                checked.map_err(|error| format!("{name}: {error}"))?;
            }
            true
        }
        "items" => {
            for item in value.as_array().into_iter().flatten() {
                check(document, keyword, item)?;
            }
            true
        }
        other => return Err(format!("the keyword {other} is not known here")),
    };
    match is_right {
        true => Ok(()),
        false => Err(format!("{name} {keyword}: {value}")),
    }
}

fn list(keyword: &Value) -> &[Value] {
    keyword.as_array().expect("the keyword has a list")
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn violations_are_found() {
        let document = json!({
            "named": {
                "type": "object",
                "properties": {"n": {"type": ["integer", "null"], "minimum": 1}, "kind": {"enum": ["a", "b"]}},
                "additionalProperties": {"type": "string"},
                "required": ["n"],
            },
        });
        let schema = json!({"type": "array", "items": {"$ref": "#/named"}});
        let fits = |value: Value| check(&document, &schema, &value).is_ok();
        assert!(fits(json!([])));
        assert!(fits(
            json!([{"n": 1, "kind": "a", "more": "text"}, {"n": null}])
        ));
        for wrong in [
            json!({}),
            json!([5]),
            json!([{}]),
            json!([{"n": 0}]),
            json!([{"n": 1.5}]),
            json!([{"n": "1"}]),
            json!([{"n": 1, "kind": "c"}]),
            json!([{"n": 1, "more": 5}]),
        ] {
            assert!(!fits(wrong.clone()), "{wrong}");
        }
        for schema in [
            json!({"$ref": "#/nowhere"}),
            json!({"patternProperties": {}}),
            json!(false),
            json!({"oneOf": [{"type": "integer"}, {"minimum": 0}]}),
        ] {
            assert!(check(&document, &schema, &json!(5)).is_err(), "{schema}");
        }
    }
}
