//! Headless Chromium: lays a page out, tells where its parts are and what the console says, takes pictures.

use std::{path::Path, process::Command};

use serde::{Deserialize, de::DeserializeOwned};

use crate::screen::Folder;

/// Set where a missing Chromium fails the tests that need it, as in CI.
const REQUIRED: &str = "RECMILL_REQUIRE_CHROMIUM";
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What is added to a copy of the page: it tells where the parts are, once everything has been laid out.
const PROBE: &str = r#"<script>
addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return { left: r.left, top: r.top + scrollY, width: r.width, height: r.height }; };
  const seen = e => { const r = e.getBoundingClientRect(); return e.matches(".bar") ? r.width * r.height > 4 : r.width + r.height > 4; };
  const charts = [...document.querySelectorAll("svg")].map(svg => ({
    name: svg.querySelector("title").textContent, ...box(svg),
    marks: [...svg.querySelectorAll(".bar, .line")].filter(seen).length,
    text_outside: Math.max(0, ...[...svg.querySelectorAll("text")].map(text => {
      const r = text.getBoundingClientRect(); return Math.max(-r.left, r.right - innerWidth); })),
  }));
  const sections = [...document.querySelectorAll("section")].map(section => ({ name: section.id, ...box(section) }));
  parent.postMessage(JSON.stringify({ page_width: document.documentElement.scrollWidth, sections, charts }), "*");
});
</script>"#;

/// The frame that gives the page a width: windows have a least one of their own.
const FRAME: &str = r#"<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe src="probed.html" style="border:0;width:WIDTHpx;height:900px"></iframe><pre id="found"></pre>
<script>addEventListener("message", event => { document.getElementById("found").textContent = event.data; });</script>"#;

/// Looks at the picture beside it, pixel by pixel: a browser is a decoder too.
const LOOK: &str = r#"<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre><img src="picture.png"><script>
addEventListener("load", () => {
  const image = document.querySelector("img"), canvas = document.createElement("canvas");
  const [width, height] = [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, width, height).data;
  let [white, black, blue] = [0, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    const [r, g, b] = [data[at], data[at + 1], data[at + 2]];
    white += Math.min(r, g, b) > 200;
    black += Math.max(r, g, b) < 60;
    blue += b - r > 60;
  }
  const [n, corner] = [width * height, Math.max(data[0], data[1], data[2])];
  document.getElementById("found").textContent =
    JSON.stringify({ width, height, corner, white: white / n, black: black / n, blue: blue / n });
});
</script>"#;

/// The colours that a reader's system asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scheme {
    Dark = 0,
    Light = 1,
}

/// Where the parts of a page are.
#[derive(Debug, Deserialize)]
pub(crate) struct LaidOut {
    pub(crate) page_width: f64,
    pub(crate) sections: Vec<Part>,
    pub(crate) charts: Vec<Part>,
    /// What the console said.
    #[serde(skip)]
    pub(crate) console: Vec<String>,
}

/// A rectangle, in CSS pixels from the page's corner.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// Bars and lines that can be seen, of a chart.
    #[serde(default)]
    pub(crate) marks: usize,
    /// Pixels by which a label of a chart leaves the window.
    #[serde(default)]
    pub(crate) text_outside: f64,
}

/// What a picture of a page has.
#[derive(Debug, Deserialize)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The brightest channel, from 0 to 255, of the pixel in the corner.
    pub(crate) corner: u8,
    /// The share of pixels that are nearly white.
    pub(crate) white: f64,
    /// The share of pixels that are nearly black.
    pub(crate) black: f64,
    /// The share of pixels that are blue.
    pub(crate) blue: f64,
}

/// A Chromium that runs here.
pub(crate) struct Browser(&'static str);

impl Browser {
    /// Returns the one that is installed; none, and says so, where there is none and none is required.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    pub(crate) fn find() -> Option<Self> {
        let runs =
            |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
        let found = NAMES.iter().find(runs).map(|&name| Self(name));
        if found.is_none() {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is none of {NAMES:?}"
            );
            println!("skipped: there is none of {NAMES:?}");
        }
        found
    }

    fn run(&self, scheme: Scheme, page: &Path, flags: &[&str]) -> (String, String) {
        let profile = tempfile::tempdir().unwrap();
        let output = Command::new(self.0)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--hide-scrollbars", "--force-device-scale-factor=1", "--enable-logging=stderr", "--v=0"])
            .arg(format!("--blink-settings=preferredColorScheme={}", scheme as u8))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(flags)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{stderr}");
        (stdout, stderr)
    }

    /// Lays the page `name` of `folder` out, `width` pixels wide.
    pub(crate) fn lay_out(&self, folder: &Folder, name: &str, width: u32) -> LaidOut {
        // The page as it is, for what the console says of it: its policy forbids the probe.
        let (_, said) = self.run(Scheme::Light, &folder.at(name), &["--dump-dom"]);
        let console = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        let page = fs_err::read_to_string(folder.at(name)).unwrap();
        let policy = page.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
        let end = policy + page[policy..].find('>').unwrap() + 1;
        let probed =
            format!("{}{}", &page[..policy], &page[end..]).replace("</body>", &format!("{PROBE}</body>"));
        folder.write("probed.html", probed);
        folder.write("frame.html", FRAME.replace("WIDTH", &width.to_string()));
        let flags = ["--dump-dom", "--window-size=1400,1000", "--virtual-time-budget=5000"];
        let (dom, _) = self.run(Scheme::Light, &folder.at("frame.html"), &flags);
        LaidOut { console, ..found(&dom) }
    }

    /// Takes a picture of the top of the page `name` of `folder`, and looks at it.
    pub(crate) fn look_at(&self, folder: &Folder, name: &str, scheme: Scheme) -> Picture {
        let shot = format!("--screenshot={}", folder.at("picture.png").display());
        self.run(scheme, &folder.at(name), &[&shot, "--window-size=1200,2400"]);
        folder.write("looked.html", LOOK);
        let flags = ["--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000"];
        found(&self.run(scheme, &folder.at("looked.html"), &flags).0)
    }
}

/// What a script left in the page.
fn found<T: DeserializeOwned>(dom: &str) -> T {
    let text = dom
        .split("<pre id=\"found\">")
        .nth(1)
        .and_then(|rest| rest.split("</pre>").next())
        .unwrap_or_default();
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {dom}"))
}
