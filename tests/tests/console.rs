//! The console in a real browser: what it shows, what it does, by keyboard, in the dark, on a phone.

use cdc_tests::browser::Browser;
use cdc_tests::kafka::Producer;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::receiver::Receiver;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_shown_decoded_and_replayed() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("letters");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    receiver.answer(|_| 400);
    Producer::default().put(&topic, 0, &schemas.key(7), &schemas.insert(7, "bad"));
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.committed(0, 1).await;
    let mut browser = Browser::start();
    browser.shape(1280, 900, false);
    browser.open(&format!("{}#letters", address(&pipeline)));
    let listed = "document.querySelector('#letter-rows').textContent.includes('http_400')";
    browser.until("the letter", listed).await;
    browser.focus(&format!("Show {topic}[0]@0"));
    browser.press("Enter");
    let shown = "document.querySelector('#letter').open && \
                 document.querySelector('#letter-key').textContent.includes('7') && \
                 document.querySelector('#letter-value').textContent.includes('bad') && \
                 document.querySelector('#letter-headers').textContent.includes('dlq.error_type')";
    browser.until("it is decoded", shown).await;
    keep(&mut browser, "letter");
    receiver.answer(|_| 204);
    browser.value("document.querySelector('#letter-replay').click()");
    browser.until("the question", "document.querySelector('#confirm').open").await;
    browser.press("Enter");
    receiver.has(&[(0, 0)].into()).await;
    browser.value("document.querySelector('#letter-state').value = 'replayed'");
    let settled = "document.querySelector('#letter-rows').textContent.includes('replayed')";
    browser.until("it counts as replayed", settled).await;
    assert_eq!(browser.mistakes, [""; 0]);
}

/// Pictures go into the folder that `CDC_TEST_PICTURES` names, to be looked at.
fn keep(browser: &mut Browser, name: &str) {
    let picture = browser.picture();
    if let Some(folder) = cdc_shared::config::process_variables().remove("CDC_TEST_PICTURES") {
        std::fs::write(format!("{folder}/{name}.png"), picture).unwrap();
    }
}

fn address(pipeline: &Pipeline) -> String {
    format!("http://{}/", pipeline.config["coordinator"]["bind"].as_str().unwrap())
}

const CARD: &str = "document.querySelector('[aria-label=\"Sink wh\"]')";

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_seen_paused_and_resumed_by_keyboard() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("console");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let producer = Producer::default();
    for id in 0..20 {
        producer.put(&topic, (id % 2) as i32, &schemas.key(id), &schemas.insert(id, "x"));
    }
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.committed(0, 10).await;
    let mut browser = Browser::start();
    browser.shape(1280, 900, false);
    browser.open(&address(&pipeline));
    let running = format!("{CARD}.querySelector('.badge').textContent === 'running'");
    browser.until("the sink's card", &running).await;
    let caught_up = format!("{CARD}.textContent.includes('0 records')");
    browser.until("its lag", &caught_up).await;
    assert_eq!(browser.value("document.querySelector('#pipeline').textContent"), pipeline.id);
    keep(&mut browser, "overview");

    browser.focus("Pause sink wh");
    browser.press("Enter");
    browser.until("the question", "document.querySelector('#confirm').open").await;
    // Nothing happens without the answer.
    browser.press("Escape");
    browser.until("no question", "!document.querySelector('#confirm').open").await;
    let directive = pipeline.sink_health("wh").await.unwrap()["directive"].clone();
    assert_eq!(directive, "run");
    browser.focus("Pause sink wh");
    browser.press("Enter");
    browser.until("the question", "document.querySelector('#confirm').open").await;
    browser.value("document.querySelector('#reason').focus()");
    browser.write("<img src=x onerror=alert(1)> maintenance");
    browser.press("Enter");
    let paused = format!("{CARD}.querySelector('.badge').textContent === 'paused'");
    browser.until("the pause, without a reload", &paused).await;
    let told = format!("{CARD}.textContent.includes('<img src=x onerror=alert(1)> maintenance')");
    browser.until("the reason, as text", &told).await;
    assert_eq!(browser.value("document.querySelectorAll('img').length"), 0);
    let finding = "document.querySelector('#reasons').textContent.includes('sink_paused')";
    browser.until("the finding", finding).await;

    browser.value("document.querySelector('[aria-label=\"Resume sink wh\"]').click()");
    browser.until("the question", "document.querySelector('#confirm').open").await;
    browser.press("Enter");
    browser.until("it runs again", &running).await;

    browser.value("location.hash = '#partitions'");
    let rows = "[...document.querySelectorAll('#partition-rows tr')]";
    let owned =
        format!("{rows}.length === 2 && {rows}.every(r => r.cells[4].textContent === '10')");
    browser.until("both partitions with their watermarks", &owned).await;
    keep(&mut browser, "partitions");
    browser.value("location.hash = '#audit'");
    let audit = "document.querySelector('#audit-rows').textContent.includes('paused')";
    browser.until("the audit trail", audit).await;

    is_readable_on_a_phone_in_the_dark(&mut browser).await;
    assert_eq!(browser.mistakes, [""; 0]);
}

async fn is_readable_on_a_phone_in_the_dark(browser: &mut Browser) {
    browser.value("location.hash = '#overview'");
    browser.shape(360, 740, true);
    browser.until("the card", &format!("{CARD}.offsetWidth > 0")).await;
    let wide = "[document.documentElement.scrollWidth, innerWidth]";
    assert_eq!(browser.value(wide), json!([360, 360]), "nothing is wider than the phone");
    let dark = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.value(dark), "rgb(13, 17, 23)");
    keep(browser, "phone-dark");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_a_token_and_keeps_it_for_the_tab() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("token");
    pipeline.webhook("wh", &receiver.url());
    pipeline.config["coordinator"]["tokens"] = json!({"operator": "open-sesame", "reader": "look"});
    pipeline.topics(1).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let mut browser = Browser::start();
    browser.open(&address(&pipeline));
    browser.until("the question for a token", "document.querySelector('#token-dialog').open").await;
    browser.write("wrong");
    browser.press("Enter");
    let refused = "document.querySelector('#trouble').textContent.includes('token') && \
                   document.querySelector('#token-dialog').open";
    browser.until("a wrong one is refused", refused).await;
    browser.value("document.querySelector('#token').focus()");
    browser.write("open-sesame");
    browser.press("Enter");
    browser.until("the card", &format!("{CARD} !== null")).await;
    assert_eq!(browser.value("document.querySelector('#trouble').hidden"), true);
    browser.value("location.hash = '#schemas'");
    browser.until("the list", "!document.querySelector('#view-schemas').hidden").await;
    assert_eq!(browser.mistakes, [""; 0]);
    let stored: Value = browser.value("[localStorage.length, document.cookie]");
    assert_eq!(stored, json!([0, ""]), "the token ends with the tab");
}
