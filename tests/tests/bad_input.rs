//! What a person gets wrong: each is said by name, with the place or the address and an exit code,
//! and never by a panic.

use std::process::Output;

use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::postgres;
use cdc_tests::proxy::Proxy;
use cdc_tests::stack::{Stack, free_port};
use serde_json::json;

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    for trace in ["panicked", "stack backtrace", "\tat org.", ".rs:"] {
        assert!(!said.contains(trace), "{trace}: {said}");
    }
    said
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "lacks {word:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_told_with_line_and_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let good = "pipeline_id: p\nsource:\n  database: d\n  tables: [public.t]\nsinks:\n  - sink_id: \
                a\n    sink_type: webhook\n    webhook: {url: 'http://localhost:1/'}\n";
    for (text, words) in [
        ("pipeline_id: [p\n".to_owned(), &["p.yaml:"][..]),
        (good.replace("webhook: {", "webhok: {"), &["webhok", "did you mean `webhook`"]),
        (format!("{good}max_buffered_messages: many\n"), &["p.yaml:9", "`many`"]),
        (good.replace("database: d", "database: ${NOT_THERE}"), &["NOT_THERE is not set"]),
        (
            format!(
                "{good}  - sink_id: a\n    sink_type: webhook\n    webhook: {{url: 'http://x'}}\n"
            ),
            &["`a` is also the id of sinks[0]"],
        ),
        (good.replace("sink_id: a", "sink_id: a.b"), &["a.b", "a dot"]),
        (good.replace("pipeline_id: p", "pipeline_id: p.q"), &["p.q", "a dot"]),
        (
            format!(
                "{good}  - sink_id: i\n    sink_type: iceberg\n    iceberg: {{catalog_uri: 'sqlite:////tmp/x', warehouse: 'file:///tmp/x', table_name: t, write_mode: upsert, partition_by: [id]}}\n"
            ),
            &["partition_by", "not built yet"],
        ),
        (String::new(), &["pipeline_id"]),
        ("- a\n- b\n".to_owned(), &["p.yaml"]),
        ("\u{0}\u{1}".to_owned(), &["p.yaml"]),
    ] {
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, &text).unwrap();
        let output = run_cdc(&["validate".to_owned(), file.display().to_string()]).await;
        says(&output, 78, words);
    }
    let output = run_cdc(&["validate".to_owned(), "/nowhere/p.yaml".to_owned()]).await;
    says(&output, 66, &["/nowhere/p.yaml"]);
    let output = run_cdc(&["validdate".to_owned()]).await;
    says(&output, 64, &["validdate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_or_is_not_there_is_named_with_its_address() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let port: u16 = nobody.rsplit(':').next().unwrap().parse().unwrap();
    let url = format!("http://{nobody}");
    let user = Stack::get().value("SOURCE_USER");
    let database_port = Stack::get().postgres_port().to_string();
    for (setting, value, code, words) in [
        ("/source/password", json!("wrong"), 77, &[user, &database_port][..]),
        ("/source/database", json!("nowhere_db"), 78, &["nowhere_db"]),
        // Connect's own word for it: it is Connect that cannot reach the address.
        ("/source/port", json!(port), 78, &[&nobody]),
        ("/kafka/bootstrap_servers", json!(nobody), 69, &["Kafka", &nobody]),
        ("/kafka/schema_registry_url", json!(url), 69, &["schema registry", &nobody]),
        ("/connector/connect_url", json!(url), 69, &["Connect", &nobody]),
    ] {
        let mut pipeline = Pipeline::new("wrong");
        pipeline.webhook("wh", "http://127.0.0.1:1/");
        create_table(&pipeline).await;
        *pipeline.config.pointer_mut(setting).unwrap() = value;
        let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
        let all = said(&output);
        assert!(!output.status.success(), "{setting}: {all}");
        for word in words {
            assert!(all.contains(word), "{setting}: validate lacks {word:?}: {all}");
        }
        assert!(!all.contains("wrong\""), "the password is not printed: {all}");
        if setting != "/kafka/schema_registry_url" {
            let output = pipeline.cdc(&["deploy", "FILE"]).await;
            says(&output, code, words);
        }
    }
}

async fn create_table(pipeline: &Pipeline) {
    let create = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text)";
    postgres::source_with(pipeline, create).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_connect_rejects_comes_back_in_its_words() {
    let mut pipeline = Pipeline::new("reject");
    create_table(&pipeline).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["source"]["connector_properties"] = json!({"binary.handling.mode": "origami"});
    let output = pipeline.cdc(&["deploy", "FILE"]).await;
    says(&output, 78, &["binary.handling.mode", "Value must be one of", Stack::get().connect()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_and_connect_take_a_user_and_a_password() {
    let stack = Stack::get();
    let basic = Some(("ada", "hunter2"));
    let registry = Proxy::start(stack.value("REGISTRY_ADDRESS"), basic).await;
    let connect = Proxy::start(stack.connect(), basic).await;
    let mut pipeline = Pipeline::new("basic");
    create_table(&pipeline).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["kafka"]["schema_registry_url"] = json!(registry.address());
    pipeline.config["connector"]["connect_url"] = json!(connect.address());
    pipeline.config["connector"]["registry_url"] = json!(stack.registry());
    let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
    assert!(!output.status.success());
    let all = said(&output);
    for word in [registry.address(), connect.address(), "401"] {
        assert!(all.contains(word), "lacks {word}: {all}");
    }
    pipeline.config["kafka"]["schema_registry"] = json!({"username": "ada", "password": "hunter2"});
    pipeline.config["connector"]["username"] = json!("ada");
    pipeline.config["connector"]["password"] = json!("hunter2");
    let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
    says(&output, 0, &[]);
    assert!(!said(&output).contains("hunter2"));
}
