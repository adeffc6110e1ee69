//! A headless Chromium, told what to do over its debugging pipe (the protocol of its developer tools: JSON texts
//! with a zero byte between them).

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::{SOON, check, until};

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: String,
    number: u64,
    /// Mistakes that the page has made: exceptions, and what its policy forbade.
    pub mistakes: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts it.
    ///
    /// # Panics
    /// When there is none: `deploy/local/stack install browser`.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success(), "mkfifo {}", path.display());
            path
        };
        let (into, out) = (pipe("into"), pipe("out"));
        let child = Command::new("sh")
            .args(["-c", r#"exec chromium "$@" 3<"$INTO" 4>"$OUT""#, "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .env("INTO", &into)
            .env("OUT", &out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        assert!(
            Command::new("chromium").arg("--version").stdout(Stdio::null()).status().is_ok(),
            "there is no chromium: deploy/local/stack install browser"
        );
        // Each of them waits for the other end.
        let commands = OpenOptions::new().write(true).open(into).unwrap();
        let mut lines = BufReader::new(File::open(out).unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            while lines.read_until(0, &mut text).is_ok_and(|read| read > 0) {
                let message = serde_json::from_slice(text.strip_suffix(&[0]).unwrap_or(&text));
                if message.is_ok_and(|message| sender.send(message).is_err()) {
                    break;
                }
                text.clear();
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            session: String::new(),
            number: 0,
            mistakes: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}));
        }
        browser
    }

    /// One command of the protocol.
    ///
    /// # Panics
    /// When it fails or is not answered.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut command = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).unwrap();
        loop {
            let message = self.answers.recv_timeout(ANSWER);
            let message = message.unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.number {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.overhear(&message);
        }
    }

    fn overhear(&mut self, message: &Value) {
        let entry = &message["params"]["entry"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.mistakes.push(message["params"].to_string()),
            // Answers that are no success are logged as well, by the network; those are no mistake.
            Some("Log.entryAdded") if entry["level"] == "error" && entry["source"] != "network" => {
                self.mistakes.push(entry.to_string());
            }
            _ => {}
        }
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// The value of a JavaScript expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        until(what, SOON, async || {
            let value = self.value(&format!(
                "(() => {{ try {{ return ({expression}) === true || document.body.innerText; }} \
                 catch (error) {{ return String(error); }} }})()"
            ));
            check(value == true, value.to_string())
        })
        .await;
    }

    /// Presses a key that writes nothing, or the one that submits.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            other => panic!("{other} has no code here"),
        };
        let event = |kind: &str, text: &str| {
            json!({"type": kind, "key": key, "code": key, "text": text,
                   "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code})
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", &event(down, text));
        self.call("Input.dispatchKeyEvent", &event("keyUp", ""));
    }

    /// Writes into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses Tab until what has the focus has this name.
    ///
    /// # Panics
    /// When the keyboard does not get there.
    pub fn focus(&mut self, name: &str) {
        let focused = "document.activeElement.getAttribute('aria-label') || \
                       document.activeElement.id || document.activeElement.textContent";
        let mut met = Vec::new();
        for _ in 0..60 {
            self.press("Tab");
            let found = self.value(focused);
            if found == name {
                return;
            }
            met.push(found);
        }
        panic!("no way to {name} by Tab: {met:?}");
    }

    /// Size of the page, and whether it is to be dark.
    pub fn shape(&mut self, width: u32, height: u32, dark: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}),
        );
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// The page as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }
}
