//! The schema, the walker and the table of keys say the same.
//!
//! JSON is YAML, so one value serves as a file for the walker and as an instance for the schema.

use evener_engine::config::schema;
use serde_json::{Value, json};

use super::parse;

/// A file to include.
const INCLUDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/included.yaml");

/// A file that has every key there is.
fn full() -> Value {
    json!({
        "service": "s",
        "include": [INCLUDED],
        "listen": {
            "http": {
                "address": "127.0.0.1:1",
                "tls": {"cert": "/proc/self/exe", "key": "/proc/self/exe"},
                "insecure": false,
            },
            "api": {
                "address": "127.0.0.1:2",
                "tls": {"cert": "/proc/self/exe", "key": "/proc/self/exe"},
                "insecure": true,
            },
        },
        "stages": {"a": {
            "python": "m:f", "workers": 1, "timeout": "1s", "retries": 1, "retry_on": ["error"],
            "backoff": "1s", "queue": 1, "env": {"A": "1"}, "cwd": "/", "interpreter": "python3",
            "memory": "1GiB", "max_jobs_per_worker": 1, "start_timeout": "1s", "grace": "1s",
            "on_cancel": "kill", "reload": "stop-first", "batch": {"max": 2, "wait": "1ms", "weight": ".w"}, "goto": ["p"],
        }},
        "pipelines": {
            "p": [{
                "scatter": {"x": "a", "y": ["a"]}, "timeout": "1s", "on_failure": "collect", "fallback": 7,
                "fallback_on": ["error"],
            }],
            "e": [{
                "each": ".items", "do": "a", "max_in_flight": 7, "timeout": "1s", "on_failure": "fail", "fallback": 7,
                "fallback_on": ["error"],
            }],
        },
        "routes": [{
            "path": "/", "methods": ["GET"], "pipeline": "p", "timeout": "1s", "fallback": 7,
            "fallback_on": ["error"], "input": "body", "decode": "json", "body": 7, "fairness": ".client",
            "health": false, "priority": -7, "on_error": "p",
            "cors": {
                "origins": ["https://a.example"], "methods": ["GET"], "headers": ["X-A"], "expose": ["X-B"],
                "credentials": true, "max_age": "1s",
            },
            "compression": true,
        }],
        "cors": {
            "origins": ["https://a.example"], "methods": ["GET"], "headers": ["X-A"], "expose": ["X-B"],
            "credentials": true, "max_age": "1s",
        },
        "compression": true,
        "triggers": [{
            "cron": "0 3 * * *", "timezone": "UTC", "pipeline": "p", "name": "t", "input": 7, "timeout": "1s",
            "priority": 1, "on_error": "a", "overlap": "run",
        }],
        "functions": {"f": {
            "workers": 1, "queue": 1, "env": {"A": "1"}, "cwd": "/", "interpreter": "python3", "memory": "1GiB",
            "max_jobs_per_worker": 1, "start_timeout": "1s", "grace": "1s", "on_cancel": "tell", "output": "1MiB",
        }},
        "tests": [{
            "name": "t",
            "request": {"path": "/", "method": "PUT", "headers": {"A": "1"}, "json": 7},
            "expect": {
                "status": 204, "headers": {"A": "1"}, "body": "", "json": ". == 7", "within": "2s", "at_least": "1s",
            },
            "with": {"debug": false},
        }],
        "limits": {
            "body": 1, "queue": 1, "memory": 1000, "connections": 1, "max_hops": 1, "headers": "1KiB",
            "header_timeout": "1s", "body_timeout": "1s", "idle_timeout": "1s",
        },
        "drain": "1s",
        "debug": true,
    })
}

fn walk(file: &Value) -> Result<(), String> {
    parse(&file.to_string()).map(|_| ()).map_err(|report| report.to_string())
}

/// The kinds of stages other than that of the full file: a stage has one.
const ANOTHER_KIND: &[&str] =
    &["jq", "rust", "command", "protocol", "output", "max_output", "threads", "concurrency", "affinity", "every", "on"];

/// Calls `visit` with the pointer of every value that has a schema, and that schema.
fn each_property(schema: &Value, file: &Value, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(at, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            let value = match file.get(name) {
                Some(value) => value,
                None if ANOTHER_KIND.contains(&name.as_str())
                    && (file.get("python").or(file.get("cron"))).is_some() =>
                {
                    continue;
                }
                None if name == "body" && file.get("json").is_some() => continue,
                None => panic!("the full file has no {at}/{name}"),
            };
            each_property(property, value, &format!("{at}/{name}"), visit);
        }
        for name in file.as_object().unwrap().keys() {
            assert!(properties.contains_key(name), "the schema has no {at}/{name}");
        }
    } else if let Some(inner) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        for (name, value) in file.as_object().unwrap() {
            each_property(inner, value, &format!("{at}/{name}"), visit);
        }
    } else if let Some(items) = schema.get("items") {
        each_property(items, &file[0], &format!("{at}/0"), visit);
    } else if let Some(shapes) = schema["anyOf"].as_array()
        && file.is_object()
        && let Some(mapping) = shapes.iter().find(|shape| is_for(shape, file))
    {
        each_property(mapping, file, at, visit);
    }
}

/// Whether a shape is for mappings like this one: it has all keys that the shape requires.
fn is_for(shape: &Value, file: &Value) -> bool {
    let required = shape["required"].as_array().into_iter().flatten();
    shape["type"] == "object" && required.clone().all(|key| file.get(key.as_str().unwrap()).is_some())
}

#[test]
fn the_walker_takes_every_key_of_the_schema() {
    walk(&full()).unwrap();
    each_property(&schema(), &full(), "", &mut |_, _| {});
}

#[test]
fn the_walker_reads_every_key_of_the_schema() {
    let mut places = Vec::new();
    each_property(&schema(), &full(), "", &mut |at, _| places.push(at.to_string()));
    assert!(places.len() > 60, "{places:?}");
    for at in places {
        let mut file = full();
        *file.pointer_mut(&at).unwrap() = json!([{"nonsense": []}]);
        match ["/fallback", "/json", "/triggers/0/input"].iter().any(|end| at.ends_with(end)) {
            true => walk(&file).unwrap(),
            false => assert!(walk(&file).is_err(), "nobody looks at {at}"),
        }
    }
}

#[test]
fn the_schema_accepts_and_refuses_what_the_walker_does() {
    let schema = schema();
    let check = |file: &Value| valid(&schema, file, &schema);
    assert!(check(&full()));
    for (at, value, good) in [
        ("/stages/a/workers", json!("auto"), true),
        ("/stages/a/workers", json!("many"), false),
        ("/stages/a/workers", json!(-1), false),
        ("/stages/a/workers", json!(1.5), false),
        ("/stages/a/retry_on", json!(["last"]), false),
        ("/stages/a/retry_on", json!("lost"), false),
        ("/stages/a/memory", json!(1 << 30), true),
        ("/stages/a/timeout", json!(5), false),
        ("/stages/a", json!({"command": ["cat", 1, true], "output": "json", "max_output": "1KiB"}), true),
        ("/stages/a", json!({"command": ["cat"], "protocol": "frames", "concurrency": 2}), true),
        ("/stages/a", json!({"command": ["cat"], "protocol": "http"}), false),
        ("/stages/a", json!({"command": ["cat"], "output": "xml"}), false),
        ("/stages/a", json!({"command": []}), false),
        ("/stages/a", json!({"command": [["cat"]]}), false),
        ("/stages/a", json!({"command": "cat"}), false),
        ("/pipelines/p", json!([]), false),
        ("/pipelines/p", json!(["a", {"scatter": {"x": "a"}}, {"each": ".", "do": "a"}]), true),
        ("/pipelines/p", json!([{"scatter": {}}]), false),
        ("/pipelines/p", json!([{"each": "."}]), false),
        ("/pipelines/p", json!([{"do": "a"}]), false),
        ("/pipelines/p/0/on_failure", json!("go on"), false),
        ("/pipelines/e/0/max_in_flight", json!(0), false),
        ("/listen/http", json!("127.0.0.1:80"), true),
        ("/listen/http", json!(80), false),
        ("/debug", json!("yes"), false),
        ("/routes", json!([]), true),
        ("/routes/0/methods", json!([]), false),
        ("/routes/0/priority", json!(-128), true),
        ("/routes/0/priority", json!(-129), false),
        ("/routes/0/cors", json!(false), true),
        ("/routes/0/cors", json!(true), false),
        ("/routes/0/cors", json!({}), false),
        ("/cors", json!(false), true),
        ("/cors/origins", json!([]), false),
        ("/cors/headers", json!([]), true),
        ("/cors/methods", json!([]), false),
        ("/routes/0/compression", json!("gzip"), false),
        ("/include", json!([]), true),
        ("/include", json!(INCLUDED), false),
        ("/include/0", json!(7), false),
        ("/tests", json!([]), true),
        ("/tests/0", json!({"name": "t", "request": {"path": "/"}}), true),
        ("/tests/0", json!({"request": {"path": "/"}}), false),
        ("/tests/0/request", json!({}), false),
        ("/tests/0/request/json", json!(null), true),
        ("/tests/0/expect", json!({}), true),
        ("/tests/0/expect/status", json!(600), false),
        ("/tests/0/expect/body", json!(7), false),
        ("/tests/0/with", json!([]), false),
        ("/limits/queue", json!(0), false),
        ("/drain", json!(null), false),
        ("/functions", json!({}), false),
        ("/functions", json!(null), false),
        ("/functions", json!(["f"]), false),
        ("/functions/f", json!({}), true),
        ("/functions/f", json!(null), true),
        ("/functions/f", json!(4), false),
        ("/functions/f/workers", json!("auto"), true),
        ("/functions/f/output", json!(0), true),
        ("/functions/f/output", json!(null), false),
    ] {
        let mut file = full();
        *file.pointer_mut(at).unwrap() = value;
        assert_eq!(walk(&file).is_ok(), good, "walker: {at}\n{file}");
        // Patterns are left to real validators; whatever differs here differs without them.
        assert_eq!(check(&file), good, "schema: {at}\n{file}");
    }
    for (kept, good) in [("stages", true), ("functions", true), ("debug", false)] {
        let mut file = json!({"service": "s", "pipelines": {}});
        file[kept] = full()[kept].clone();
        if kept == "stages" {
            file["pipelines"] = full()["pipelines"].clone();
        }
        assert_eq!((walk(&file).is_ok(), check(&file)), (good, good), "{kept}");
    }
    for at in [
        "",
        "/stages/a",
        "/functions/f",
        "/listen",
        "/listen/http",
        "/listen/http/tls",
        "/routes/0",
        "/cors",
        "/limits",
    ] {
        let mut file = full();
        let mapping = file.pointer_mut(at).unwrap().as_object_mut().unwrap();
        mapping.insert("unknown".into(), json!(1));
        assert!(!check(&file) && walk(&file).is_err(), "{at}");
    }
}

#[test]
fn every_key_is_described() {
    let schema = schema();
    each_property(&schema, &full(), "", &mut |at, property| {
        let named = !at.is_empty() && !at.ends_with("/0") && !at.contains("/env/") && !at.contains("/headers/");
        if named
            && !["/stages/a", "/pipelines/p", "/pipelines/e", "/functions/f"].contains(&at)
            && property.get("anyOf").is_none()
        {
            let mapping = property.get("properties").is_some();
            assert!(mapping || property["description"].is_string(), "{at} has no description");
        }
    });
    let stage = &schema["properties"]["stages"]["additionalProperties"]["properties"];
    for (name, default) in [
        ("workers", json!(1)),
        ("timeout", json!("60s")),
        ("retries", json!(2)),
        ("retry_on", json!(["lost"])),
        ("start_timeout", json!("5m")),
        ("grace", json!("5s")),
        ("on_cancel", json!("tell")),
    ] {
        assert_eq!(stage[name]["default"], default, "{name}");
        assert!(stage[name]["description"].is_string(), "{name}");
    }
    let shapes = schema["properties"]["functions"]["additionalProperties"]["anyOf"].as_array().unwrap();
    let pool = &shapes.iter().find(|shape| shape["type"] == "object").unwrap()["properties"];
    for (name, default) in [
        ("workers", json!("auto")),
        ("start_timeout", json!("5m")),
        ("grace", json!("5s")),
        ("on_cancel", json!("kill")),
        ("output", json!("8MiB")),
    ] {
        assert_eq!(pool[name]["default"], default, "{name}");
    }
    let limits = &schema["properties"]["limits"]["properties"];
    assert_eq!(limits["body"]["default"], "10MiB");
    assert_eq!(limits["idle_timeout"]["default"], "75s");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], json!(["service"]));
    assert_eq!(schema["anyOf"], json!([{"required": ["stages"]}, {"required": ["functions"]}]));
}

/// As much of JSON Schema as the schema uses, without patterns: a pattern only tells texts from texts
/// here, and `variable` is told by its `${`, and `duration` and `size` by their first digit.
fn valid(schema: &Value, value: &Value, root: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return true };
    schema.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$ref" => {
            let pointer = rule.as_str().unwrap().trim_start_matches('#');
            valid(root.pointer(pointer).unwrap(), value, root)
        }
        "anyOf" => rule.as_array().unwrap().iter().any(|one| valid(one, value, root)),
        "type" => match rule.as_str() {
            Some(name) => is(name, value),
            None => rule.as_array().unwrap().iter().any(|name| is(name.as_str().unwrap(), value)),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        "minLength" | "maxLength" => true,
        "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
        "minProperties" => value.as_object().is_none_or(|map| map.len() as u64 >= rule.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|one| valid(rule, one, root))),
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(name, one)| rule.get(name).is_none_or(|rule| valid(rule, one, root)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let mut others = object
                .iter()
                .filter(|(name, _)| schema.get("properties").is_none_or(|known| known.get(name).is_none()));
            others.all(|(_, one)| *rule != json!(false) && valid(rule, one, root))
        }),
        "required" => value.as_object().is_none_or(|object| {
            rule.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
        }),
        "pattern" => value.as_str().is_none_or(|text| {
            let pattern = rule.as_str().unwrap();
            if pattern.starts_with("\\$") {
                text.contains("${")
            } else if pattern.starts_with("^[0-9]") {
                text.starts_with(|c: char| c.is_ascii_digit())
            } else if pattern.starts_with("^[A-Z]") {
                text.starts_with(|c: char| c.is_ascii_uppercase())
            } else {
                true
            }
        }),
        "propertyNames" | "description" | "default" | "title" | "$schema" | "$defs" => true,
        other => panic!("the schema uses {other}"),
    })
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the schema uses the type {other}"),
    }
}
