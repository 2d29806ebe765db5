//! The JSON Schema of the service file, written from the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{Default, Key, SERVICE, Shape, Table};
use super::walk::units::{show_duration, show_size};

/// The JSON Schema (2020-12) of the service file, for editors and other tools.
///
/// It describes the file before `${NAME}` is expanded, so a text with a variable is good wherever a
/// number or a boolean is.
pub fn schema() -> Value {
    let mut root = Map::new();
    root.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".into(), json!("Evener service file"));
    root.extend(mapping(&SERVICE));
    root.insert("$defs".into(), definitions());
    Value::Object(root)
}

fn definitions() -> Value {
    json!({
        "name": {
            "description": "Letters, digits, underscores and dashes, not beginning with a digit or dash.",
            "type": "string",
            "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$",
            "maxLength": 64,
        },
        "variable": {
            "description": "A text with an environment variable, `${NAME}` or `${NAME:-default}`.",
            "type": "string",
            "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}",
        },
        "duration": {
            "description": "A number and a unit: `250ms`, `2s`, `5m` or `1h`.",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *(ms|s|m|h)$"},
                {"$ref": "#/$defs/variable"},
            ],
        },
        "size": {
            "description": "A number of bytes, or a number and a unit: `10KB` or `64MiB`.",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {
                    "type": "string",
                    "pattern": "^[0-9]+(\\.[0-9]+)? *(B|[KMGT]i?B|kB)?$",
                },
                {"$ref": "#/$defs/variable"},
            ],
        },
    })
}

fn mapping(table: &Table) -> Map<String, Value> {
    let required: Vec<_> = table.keys.iter().filter(|key| key.required).map(|k| k.name).collect();
    let properties: Map<_, _> = table.keys.iter().map(|key| (key.name.into(), property(key))).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    schema.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    if !table.some_of.is_empty() {
        let one = table.some_of.iter().map(|name| json!({"required": [name]}));
        schema.insert("anyOf".into(), one.collect());
    }
    schema.insert("additionalProperties".into(), json!(false));
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = Map::new();
    schema.insert("description".into(), json!(key.about));
    let default = match key.default {
        Default::None => None,
        Default::Text(text) => Some(json!(text)),
        Default::Words(words) => Some(json!(words)),
        Default::Number(number) => Some(json!(number)),
        Default::Bool(value) => Some(json!(value)),
        Default::Duration(duration) => Some(json!(show_duration(duration))),
        Default::Size(bytes) => Some(json!(show_size(bytes))),
    };
    if let Some(default) = default {
        schema.insert("default".into(), default);
    }
    schema.extend(shape(&key.shape));
    Value::Object(schema)
}

fn shape(shape_: &Shape) -> Map<String, Value> {
    let variable = json!({"$ref": "#/$defs/variable"});
    let schema = match shape_ {
        Shape::Name | Shape::Reference => {
            json!({"anyOf": [{"$ref": "#/$defs/name"}, variable]})
        }
        Shape::Text => json!({"type": "string", "minLength": 1}),
        Shape::Address => json!({"anyOf": [{"type": "string", "pattern": ":[0-9]{1,5}$"}, variable]}),
        Shape::Python => json!({"anyOf": [{"type": "string", "pattern": "^[^:]+:[^:]+$"}, variable]}),
        Shape::Method => json!({"anyOf": [{"type": "string", "pattern": "^[A-Z][A-Z0-9-]*$"}, variable]}),
        Shape::RoutePath => json!({"anyOf": [{"type": "string", "pattern": "^/"}, variable]}),
        Shape::Duration => json!({"$ref": "#/$defs/duration"}),
        Shape::Size => json!({"$ref": "#/$defs/size"}),
        Shape::Number { least, most } => {
            json!({"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, variable]})
        }
        Shape::Signed { least, most } => {
            json!({"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, variable]})
        }
        Shape::Bool => json!({"anyOf": [{"type": "boolean"}, variable]}),
        Shape::Off => json!({"anyOf": [{"enum": [false]}, variable]}),
        Shape::Choice(words) => json!({"anyOf": [{"enum": words}, variable]}),
        Shape::List(least, item) => {
            json!({"type": "array", "items": shape(item), "minItems": least})
        }
        Shape::Named(least, item) => json!({
            "type": "object",
            "minProperties": least,
            "propertyNames": {"$ref": "#/$defs/name"},
            "additionalProperties": shape(item),
        }),
        Shape::Env => json!({
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }),
        Shape::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Shape::Mapping(table) => Value::Object(mapping(table)),
        Shape::AnyMapping => json!({"type": "object"}),
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(shape).collect::<Vec<_>>()}),
        Shape::Nothing => json!({"type": "null"}),
        Shape::Anything => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}
