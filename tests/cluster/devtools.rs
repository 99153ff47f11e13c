//! A real browser without a window, driven over the pipe that Chromium speaks its DevTools protocol on: no driver, no
//! socket, no other program.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for an answer of the browser, which may have to share the machine.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest wait for something to show on the page.
const SHOW: Duration = Duration::from_secs(60);

/// Says that a test without a browser has failed, as CI does; else it is skipped, and that is said.
const REQUIRED: &str = "BASALT_BROWSER_TEST";

/// The browser of this machine. Nothing where there is none and none is required.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = folders.find_map(|folder| {
        let mut files = names.iter().map(|name| folder.join(name));
        files.find(|file| file.is_file())
    });
    if found.is_none() {
        let is_required = std::env::var(REQUIRED).is_ok_and(|value| value == "required");
        assert!(
            !is_required,
            "there is no Chromium here, and {REQUIRED}=required: apt-get install chromium"
        );
        // Straight to the terminal: the output of a test that passes is not shown.
        let text = "\n*** SKIPPED: the web page was not tested, as there is no Chromium here (apt-get install chromium) ***\n\n";
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    /// What the browser has told of by itself.
    events: Vec<Value>,
    home: TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    pub(crate) fn start(program: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (asked, answered) = (home.path().join("asked"), home.path().join("answered"));
        for pipe in [&asked, &answered] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        // Open at both ends, so that nobody waits for anybody.
        let open = |path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap()
        };
        let (to, answers) = (open(&asked), open(&answered));
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$ASKED\" 4>\"$ANSWERED\""])
            .arg(program)
            .args([
                "--headless=new",
                // The sandbox wants privileges that a container does not give; it loads nothing but the page under test.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!(
                "--user-data-dir={}",
                home.path().join("profile").display()
            ))
            .arg("about:blank")
            .env("ASKED", &asked)
            .env("ANSWERED", &answered)
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (tell, from) = mpsc::channel();
        std::thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|len| len > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap();
                if tell.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            session: None,
            next: 0,
            events: Vec::new(),
            home,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = &page["targetId"];
        let attach = json!({"targetId": target, "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks the browser for something.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        let until = Instant::now() + ANSWER;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(message) = self.from.recv_timeout(left) else {
                let log = fs::read_to_string(self.home.path().join("log"));
                panic!(
                    "the browser does not answer {method}: {}",
                    log.unwrap_or_default()
                );
            };
            if message["id"] != self.next {
                self.events.push(message);
                continue;
            }
            assert!(message["error"].is_null(), "{method}: {}", message["error"]);
            return message["result"].clone();
        }
    }

    /// Goes to an address.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({"url": url}));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let done = self.call("Runtime.evaluate", params);
        assert!(done["exceptionDetails"].is_null(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// Waits until an expression is neither false, null nor empty; its value.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, script: &str) -> Value {
        let until = Instant::now() + SHOW;
        // While a page loads, what the script speaks of may not be there.
        let script = format!("(() => {{ try {{ return ({script}); }} catch {{ return null; }} }})()");
        loop {
            let value = self.eval(&script);
            let is_there = match &value {
                Value::Null => false,
                Value::Bool(is) => *is,
                Value::String(text) => !text.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            };
            if is_there {
                return value;
            }
            if Instant::now() > until {
                let text = self.eval("document.body.innerText");
                panic!("not in {SHOW:?}: {what}; the page says: {text}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the window so large, in CSS pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Has the page believe that its user likes it dark, or light.
    pub(crate) fn dark(&mut self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value},
            {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" }});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Keeps a picture of the page under `target/screenshots`.
    pub(crate) fn picture(&mut self, name: &str) {
        let params = json!({"format": "webp", "quality": 82, "captureBeyondViewport": false});
        let taken = self.call("Page.captureScreenshot", params);
        let bytes = from_base64(taken["data"].as_str().unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![root.join("target/screenshots")];
        if std::env::var_os("REGENERATE").is_some() {
            folders.push(root.join("docs/screenshots"));
        }
        for folder in folders {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{name}.webp")), &bytes).unwrap();
        }
    }

    /// What went wrong in the page, and what it asked of anybody but `host`. Answers that are refusals are no complaints.
    pub(crate) fn complaints(&self, host: &str) -> Vec<String> {
        let own = format!("http://{host}/");
        let mut complaints = Vec::new();
        for event in &self.events {
            let params = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => complaints.push(params.to_string()),
                "Runtime.consoleAPICalled" => complaints.push(params.to_string()),
                "Log.entryAdded" if params["entry"]["source"] != "network" => {
                    complaints.push(params.to_string());
                }
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    if !url.starts_with(&own) && url != "about:blank" {
                        complaints.push(format!("it asks {url}"));
                    }
                }
                _ => {}
            }
        }
        complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its children go with it.
        let message = json!({"id": 0, "method": "Browser.close"}).to_string();
        let _ = self.to.write_all(format!("{message}\0").as_bytes());
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values: HashMap<u8, u32> = letters.iter().copied().zip(0..).collect();
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let sum = four.iter().fold(0, |sum, letter| sum << 6 | values[letter]);
        let sum = sum << (6 * (4 - four.len()));
        bytes.extend_from_slice(&sum.to_be_bytes()[1..four.len()]);
    }
    bytes
}
