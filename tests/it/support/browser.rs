//! A person's browser: Debian's Chromium without a screen, driven through chromedriver, with a profile of its own.
//! Remembers what the console said and what the network carried.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::Client;
use fantoccini::ClientBuilder;
use fantoccini::Locator;
use fantoccini::elements::Element;
use fantoccini::wd::Capabilities;
use fantoccini::wd::WebDriverCompatibleCommand;
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::gateway::LIMIT;
use super::gateway::Running;

/// What the browser may say nothing with: it phones nobody, and needs no screen, card or sandbox of its own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
];
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(50);
/// Width and height of a window on a desk, in CSS pixels.
const DESK: (u32, u32) = (1280, 900);
/// The same of a phone.
const PHONE: (u32, u32) = (390, 844);

/// One window.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    console: Vec<Value>,
    network: Vec<Value>,
    _driver: Running,
    _profile: TempDir,
}

/// A command chromedriver has beyond the standard.
#[derive(Debug)]
struct Beyond {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Beyond {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// Opens one; `None` where `SIGILUM_TEST_BROWSER=off` says that there is none.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with more flags.
    pub fn start_with(flags: &[&str]) -> Option<Self> {
        if env::var("SIGILUM_TEST_BROWSER").is_ok_and(|value| value == "off") {
            println!("left out: SIGILUM_TEST_BROWSER=off");
            return None;
        }
        let profile = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
        let mut command = Command::new("chromedriver");
        command
            .args(["--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("HOME", profile.path());
        let found = |program: &str| {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        assert!(
            found("chromedriver") && found("chromium"),
            "this test needs a browser: apt-get install chromium chromium-driver (or SIGILUM_TEST_BROWSER=off)"
        );
        let mut driver = Running::spawn_in(command, Some(profile.path()));
        let begun = Instant::now();
        let port = loop {
            let said = driver.said();
            let port = said.rsplit_once("successfully on port ").and_then(|(_, rest)| rest.split_once('.'));
            if let Some(port) = port.and_then(|(port, _)| port.parse::<u16>().ok()) {
                break port;
            }
            assert!(driver.ended().is_none() && begun.elapsed() < LIMIT, "chromedriver does not start");
            std::thread::sleep(POLL);
        };
        let runtime = Runtime::new().unwrap();
        let mut arguments: Vec<String> = FLAGS.iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().join("profile").display()));
        arguments.push(format!("--window-size={},{}", DESK.0, DESK.1));
        let wanted = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let capabilities: Capabilities = wanted.as_object().unwrap().clone();
        let client = runtime.block_on(async {
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities)
                .connect(&format!("http://127.0.0.1:{port}"))
                .await
                .unwrap()
        });
        Some(Self { runtime, client, console: Vec::new(), network: Vec::new(), _driver: driver, _profile: profile })
    }

    /// Loads an address.
    pub fn go(&mut self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
        self.listen();
    }

    /// Where we are.
    pub fn url(&self) -> String {
        self.runtime.block_on(self.client.current_url()).unwrap().to_string()
    }

    /// The document as it is now.
    pub fn source(&self) -> String {
        self.runtime.block_on(self.client.source()).unwrap()
    }

    /// The value of a cookie, also where scripts cannot read it.
    pub fn cookie(&self, name: &'static str) -> String {
        self.runtime.block_on(self.client.get_named_cookie(name)).unwrap().value().to_owned()
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        self.script("return document.body.innerText", vec![]).as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page.
    pub fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.runtime.block_on(self.client.execute(script, arguments)).unwrap()
    }

    /// The element of a CSS selector, waited for.
    fn element(&self, selector: &str) -> Element {
        let begun = Instant::now();
        loop {
            match self.runtime.block_on(self.client.find(Locator::Css(selector))) {
                Ok(found) => return found,
                Err(_) if begun.elapsed() < LIMIT => std::thread::sleep(POLL),
                Err(error) => panic!("{selector}: {error}\n{}\n{}", self.url(), self.text()),
            }
        }
    }

    /// Clicks the element of a CSS selector.
    pub fn click(&mut self, selector: &str) {
        let element = self.element(selector);
        self.runtime.block_on(element.click()).unwrap_or_else(|error| panic!("{selector}: {error}\n{}", self.text()));
        self.listen();
    }

    /// Clicks the button, link or summary whose text is this, or begins with it and a blank.
    pub fn press(&mut self, text: &str) {
        let what = "//*[self::button or self::a or self::summary]";
        let path = format!("{what}[normalize-space(.)='{text}' or starts-with(normalize-space(.), '{text} ')]");
        let begun = Instant::now();
        loop {
            let found = self.runtime.block_on(self.client.find_all(Locator::XPath(&path))).unwrap();
            let seen = found.into_iter().find(|one| self.runtime.block_on(one.is_displayed()).unwrap_or(false));
            if let Some(element) = seen {
                self.runtime.block_on(element.click()).unwrap_or_else(|error| panic!("{text}: {error}"));
                self.listen();
                return;
            }
            assert!(begun.elapsed() < LIMIT, "there is no {text:?} on {}:\n{}", self.url(), self.text());
            std::thread::sleep(POLL);
        }
    }

    /// Types into the field of a CSS selector, in place of what is there.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.runtime.block_on(async {
            element.clear().await.unwrap();
            element.send_keys(text).await.unwrap();
        });
    }

    /// Chooses an option by its text.
    pub fn choose(&mut self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.runtime.block_on(element.select_by_label(text)).unwrap();
    }

    /// Waits until a person reads this.
    pub fn until(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < LIMIT, "{text:?} does not appear on {}:\n{}", self.url(), self.text());
            std::thread::sleep(POLL);
        }
        self.listen();
    }

    /// Pictures of the page, in light and dark, on a desk and on a phone: `target/screenshots/<name>-<kind>.png`.
    pub fn pictures(&mut self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        fs::create_dir_all(&folder).unwrap();
        for (kind, scheme, (width, height)) in
            [("light", "light", DESK), ("dark", "dark", DESK), ("phone", "light", PHONE), ("phone-dark", "dark", PHONE)]
        {
            self.chrome(
                "Emulation.setEmulatedMedia",
                json!({ "features": [
                    { "name": "prefers-color-scheme", "value": scheme },
                    { "name": "prefers-reduced-motion", "value": "reduce" },
                ] }),
            );
            let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
            self.chrome("Emulation.setDeviceMetricsOverride", metrics);
            let wide = self.script("return document.documentElement.scrollWidth", vec![]).as_u64().unwrap();
            assert!(wide <= u64::from(width), "{name} ({kind}) is {wide} pixels wide, and the window {width}");
            let taken = self.chrome("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
            let bytes = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
            fs::write(folder.join(format!("{name}-{kind}.png")), bytes).unwrap();
        }
        self.chrome("Emulation.clearDeviceMetricsOverride", json!({}));
        self.chrome("Emulation.setEmulatedMedia", json!({ "features": [] }));
    }

    /// A command of the Chrome DevTools protocol.
    fn chrome(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.runtime.block_on(self.client.issue_cmd(Beyond { path: "goog/cdp/execute", body })).unwrap()
    }

    /// From here on no script of a page runs; what a test runs itself still does.
    pub fn without_scripts(&self) {
        self.chrome("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Runs this on every page from here on, before anything of the page.
    pub fn before_pages(&self, script: &str) {
        self.chrome("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// Takes over what was logged since the last time.
    fn listen(&mut self) {
        for (kind, kept) in [("browser", &mut self.console), ("performance", &mut self.network)] {
            let command = Beyond { path: "se/log", body: json!({ "type": kind }) };
            let said = self.runtime.block_on(self.client.issue_cmd(command)).unwrap();
            kept.extend(said.as_array().cloned().unwrap_or_default());
        }
    }

    /// What the console said so far that is no mere information: errors, refusals of the Content-Security-Policy.
    pub fn complaints(&mut self) -> Vec<String> {
        self.listen();
        let loud = self.console.iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        loud.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Everything the network carried so far, as the browser tells it: addresses, headers, bodies of forms.
    pub fn traffic(&mut self) -> String {
        self.listen();
        self.network.iter().map(|entry| entry["message"].as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let client = self.client.clone();
        // Ends the browser; the driver ends when it is dropped.
        let _ = self.runtime.block_on(client.close());
    }
}
