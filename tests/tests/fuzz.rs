//! Requests made from the `OpenAPI` document that the coordinator serves, with whatever values it allows
//! and many that it does not: what comes back is always what the document says.

use std::fmt::Write as _;
use std::sync::Arc;

use cdc_tests::pipeline::Pipeline;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::http;
use cdc_tests::wait::{SOON, check, until};
use fastrand::Rng;
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::holds::fill;

const REQUESTS: u64 = 800;
const AT_ONCE: usize = 8;

/// The document, and the names that mean something to this coordinator.
struct Api {
    document: Value,
    names: Vec<String>,
}

impl Api {
    /// Follows a reference.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    fn choice(schema: &Value) -> Option<&Vec<Value>> {
        ["oneOf", "anyOf"].iter().find_map(|word| schema[*word].as_array())
    }

    fn text(&self, rng: &mut Rng) -> String {
        match rng.u8(..10) {
            0..=5 => self.names[rng.usize(..self.names.len())].clone(),
            6 => String::new(),
            7 => "x".repeat(rng.usize(..3000)),
            8 => (0..rng.usize(..20)).map(|_| rng.char(..)).collect(),
            _ => ["../..", "a b", "%00", "'; --", "-1", "9223372036854775808", "\u{7f}", "null"]
                [rng.usize(..8)]
            .to_owned(),
        }
    }

    fn junk(&self, rng: &mut Rng) -> Value {
        match rng.u8(..8) {
            0 => Value::Null,
            1 => json!(rng.bool()),
            2 => json!(rng.i64(..)),
            3 => json!(f64::MAX),
            4 => json!([]),
            5 => json!({}),
            6 => json!({"": [{}]}),
            _ => json!(self.text(rng)),
        }
    }

    fn number(rng: &mut Rng) -> i64 {
        match rng.u8(..4) {
            0 => rng.i64(0..20),
            1 => [i64::MIN, -1, 0, i64::from(i32::MAX) + 1, i64::MAX][rng.usize(..5)],
            _ => rng.i64(0..4),
        }
    }

    /// A value of a schema, and one in so many of something else; 0: never.
    fn value(&self, schema: &Value, rng: &mut Rng, wrong: u32) -> Value {
        if wrong > 0 && rng.u32(..wrong) == 0 {
            return self.junk(rng);
        }
        let schema = self.resolved(schema);
        if schema["nullable"] == true && rng.bool() {
            return Value::Null;
        }
        if let Some(all) = schema["allOf"].as_array() {
            return self.value(&all[0], rng, wrong);
        }
        let mut made = match Self::choice(schema) {
            Some(choice) => self.value(&choice[rng.usize(..choice.len())], rng, wrong),
            None => Value::Null,
        };
        if let Some(allowed) = schema["enum"].as_array() {
            return allowed[rng.usize(..allowed.len())].clone();
        }
        match schema["type"].as_str() {
            Some("string") => json!(self.text(rng)),
            Some("integer") => json!(Self::number(rng)),
            Some("number") => json!(rng.f64() * 1e6),
            Some("boolean") => json!(rng.bool()),
            Some("array") => (0..rng.usize(..3))
                .map(|_| self.value(&schema["items"], rng, wrong))
                .collect::<Vec<_>>()
                .into(),
            Some("object") if made.is_null() || made.is_object() => {
                let fields = self.fields(schema, rng, wrong);
                match made.as_object_mut() {
                    Some(made) => made.extend(fields),
                    None => made = Value::Object(fields),
                }
                made
            }
            _ => made,
        }
    }

    fn fields(&self, schema: &Value, rng: &mut Rng, wrong: u32) -> Map<String, Value> {
        let empty = Map::new();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let mut fields = Map::new();
        for (name, of) in properties {
            let is_left = wrong > 0 && rng.u32(..4 * wrong) == 0;
            if (required.contains(&name.as_str()) || rng.bool()) && !is_left {
                fields.insert(name.clone(), self.value(of, rng, wrong));
            }
        }
        if wrong > 0 && rng.u32(..10) == 0 {
            fields.insert(self.text(rng), self.junk(rng));
        }
        fields
    }

    /// What of an answer is not as its schema says.
    fn trouble(&self, schema: &Value, found: &Value, place: &str) -> Option<String> {
        let schema = self.resolved(schema);
        if schema["nullable"] == true && found.is_null() {
            return None;
        }
        if let Some(all) = schema["allOf"].as_array() {
            return all.iter().find_map(|one| self.trouble(one, found, place));
        }
        if let Some(choice) = Self::choice(schema) {
            let fits = choice.iter().any(|one| self.trouble(one, found, place).is_none());
            return (!fits).then(|| format!("{place}: {found} is none of the choices"));
        }
        let fits = match schema["type"].as_str() {
            Some("string") => found.is_string(),
            Some("integer") => found.is_i64() || found.is_u64(),
            Some("number") => found.is_number(),
            Some("boolean") => found.is_boolean(),
            Some("array") => found.is_array(),
            Some("object") => found.is_object(),
            _ => true,
        };
        let is_allowed = schema["enum"].as_array().is_none_or(|allowed| allowed.contains(found));
        if !fits || !is_allowed {
            return Some(format!("{place}: {found} is not {schema}"));
        }
        let items = found.as_array().into_iter().flatten();
        let mut items = items.map(|item| self.trouble(&schema["items"], item, place));
        if let Some(trouble) = items.find_map(|trouble| trouble) {
            return Some(trouble);
        }
        let required = schema["required"].as_array().into_iter().flatten();
        let mut required = required.filter_map(Value::as_str);
        if let Some(lacking) = required.find(|name| found.get(name).is_none()) {
            return Some(format!("{place}: {lacking} is missing"));
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .filter_map(|(name, of)| Some((name, of, found.get(name)?)))
            .find_map(|(name, of, field)| self.trouble(of, field, &format!("{place}.{name}")))
    }

    /// What is wrong with an answer.
    fn judge(&self, operation: &Value, status: u16, body: &str) -> Option<String> {
        let Ok(answer) = serde_json::from_str::<Value>(body) else {
            return Some("it is no JSON".to_owned());
        };
        let of =
            |word: &str| &operation["responses"][word]["content"]["application/json"]["schema"];
        if status == 200 {
            return self.trouble(of("200"), &answer, "answer");
        }
        if let Some(trouble) = self.trouble(of("default"), &answer, "failure") {
            return Some(trouble);
        }
        let shape = self.resolved(of("default"));
        let codes = &shape["properties"]["code"]["x-codes"];
        let code = answer["code"].as_str().unwrap_or_default();
        let allowed = codes[code].as_array().is_some_and(|all| all.contains(&json!(status)));
        // Everything around it is well.
        (!allowed || status == 500).then(|| format!("{code} with {status} is not documented"))
    }
}

/// A part of an address or of a query, with everything that means something in it taken out of use.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn request(api: &Api, rng: &mut Rng) -> (Method, String, Value, Option<Value>) {
    let paths: Vec<_> = api.document["paths"].as_object().unwrap().iter().collect();
    // The one that changes things has the most to say.
    let commands = paths.iter().position(|(path, _)| path.ends_with("/commands")).unwrap();
    let index = if rng.bool() { commands } else { rng.usize(..paths.len()) };
    let (path, operations) = paths[index];
    let operations: Vec<_> = operations.as_object().unwrap().iter().collect();
    let (method, operation) = operations[rng.usize(..operations.len())];
    let (mut path, mut query) = (path.clone(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        // An empty part makes another path.
        let value = match rng.u8(..3) {
            0 => Api::number(rng).to_string(),
            _ => Some(api.text(rng)).filter(|text| !text.is_empty()).unwrap_or("x".to_owned()),
        };
        let value = encoded(&value);
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), &value);
        } else if rng.u8(..4) == 0 {
            query.push(format!("{name}={value}"));
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    // Most are right, or nearly so: what is wrong at once does not get far.
    let wrong = [0, 0, 40, 10][rng.usize(..4)];
    let body = (!schema.is_null()).then(|| api.value(schema, rng, wrong));
    let method = method.to_uppercase().parse().unwrap();
    (method, path, operation.clone(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_the_answer_is_what_the_document_says() {
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| if delivery.offset == 2 { 422 } else { 204 });
    let mut pipeline = Pipeline::new("fuzz");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    fill(&topic, schemas, 0, 0..9);
    pipeline.committed(0, 9).await;
    let base = format!("http://{}", pipeline.config["coordinator"]["bind"].as_str().unwrap());
    let document = http().get(format!("{base}/v1/openapi.json")).send().await.unwrap();
    let names = ["wh", "ev", "none", "2", "0/16B3748", "binlog.000001:4", "run", "http_422", "{}"];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.extend([topic.clone(), format!("{}.t", pipeline.id), pipeline.id.clone()]);
    names.push(format!("{topic}-value"));
    let api = Arc::new(Api { document: document.json().await.unwrap(), names });
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let client = http();
    let asked = futures::stream::iter(0..REQUESTS).map(|number| {
        let (api, client, base) = (Arc::clone(&api), client.clone(), base.clone());
        async move {
            let mut rng = Rng::with_seed(seed.wrapping_add(number));
            let (method, path, operation, body) = request(&api, &mut rng);
            let mut request = client.request(method.clone(), format!("{base}{path}"));
            if let Some(body) = &body {
                request = request.json(body);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            let trouble = api.judge(&operation, status, &text);
            assert_eq!(trouble, None, "{number}: {method} {path} {body:?}: {status} {text}");
            status
        }
    });
    let found: Vec<u16> = asked.buffer_unordered(AT_ONCE).collect().await;
    let done = found.iter().filter(|status| **status == 200).count();
    println!("{done} of {REQUESTS} were carried out");
    assert!(done > 100, "it reaches what lies behind the checks: {done}");
    until("the coordinator is as well as before", SOON, async || {
        let health = pipeline.health().await?;
        check(health["coordinator"]["leader"] == true, health["coordinator"].to_string())
    })
    .await;
    assert!(!coordinator.output().contains("panicked"), "{}", coordinator.output());
}
