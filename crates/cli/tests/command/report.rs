//! The page of `recmill report`: what it says, that hostile text stays text, and how it looks in a browser.

use serde_json::Value;

use crate::{
    browser::{Browser, Scheme},
    screen::{Folder, assert_screen},
};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A model of factors, with a test file and titles.
fn trained() -> Folder {
    let folder = Folder::with_ratings();
    folder.succeeds("split ratings.csv --out parts --leave-last-out");
    folder.succeeds(
        "train als parts/train.csv --out model --valid parts/valid.csv --items items.csv --factors 4 --iterations 6 --device cpu",
    );
    folder
}

fn page(folder: &Folder, name: &str) -> String {
    fs_err::read_to_string(folder.at(name)).unwrap()
}

#[test]
fn the_page_is_the_same_for_the_same_model() {
    let folder = trained();
    assert_screen!("report-write", folder.screen("report model --test parts/test.csv -k 3,5 --device cpu"));
    let first = page(&folder, "report.html");
    folder.succeeds("report model --test parts/test.csv -k 3,5 --device cpu --threads 1");
    assert_eq!(first, page(&folder, "report.html"), "a report is replaced by the same report");
    folder.succeeds("report model --test parts/test.csv -k 3,5 --device cpu --seed 1 --out other.html");
    assert_ne!(first, page(&folder, "other.html"), "another seed shows other users");
    for wanted in [
        "ndcg@3",
        "most popular",
        "The comedy number",
        "fingerprint",
        "unobserved_weight",
        "history.safetensors",
    ] {
        assert!(first.contains(wanted), "no `{wanted}`");
    }
}

#[test]
fn the_numbers_are_those_of_evaluate() {
    let folder = trained();
    let report = json(&folder.succeeds("report model --test parts/test.csv -k 3,5 --device cpu --json"));
    assert!(!folder.at("report.html").exists(), "numbers alone leave no page");
    let evaluated = json(&folder.succeeds("evaluate model --test parts/test.csv -k 3,5 --device cpu --json"));
    assert_eq!(report["test"]["model"]["all"]["metrics"], evaluated["metrics"]);
    folder.succeeds("train most-popular parts/train.csv --out popular");
    let popular = json(&folder.succeeds("evaluate popular --test parts/test.csv -k 3,5 --json"));
    assert_eq!(report["test"]["most_popular"]["all"]["metrics"], popular["metrics"]);
    let users = |groups: &Value| {
        groups.as_array().unwrap().iter().map(|group| group["users"].as_u64().unwrap()).sum()
    };
    let all: u64 = users(&report["test"]["model"]["by_activity"]);
    assert_eq!(Some(all), report["test"]["model"]["all"]["users"].as_u64());
    let bands: Vec<&str> = report["test"]["model"]["by_popularity"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["band"].as_str().unwrap())
        .collect();
    assert_eq!(bands, ["head", "middle", "tail"]);
    assert_eq!(report["users"].as_array().unwrap().len(), 3);
    assert!(report["kept_epoch"].is_u64() && report["refitted"] == false, "{report}");
}

#[test]
fn every_kind_of_model_has_a_page() {
    let folder = Folder::with_ratings();
    folder.succeeds("split ratings.csv --out parts --leave-last-out");
    for (kind, flags) in [
        ("als", "--factors 4 --iterations 2"),
        ("bpr", "--factors 4 --iterations 2"),
        ("lmf", "--factors 4 --iterations 2"),
        ("warp", "--factors 4 --iterations 2"),
        ("mf", "--factors 4 --iterations 2 --refit"),
        ("item-knn", ""),
        ("ease", ""),
        ("most-popular", ""),
        ("svd", "--factors 4 --iterations 2"),
        ("sasrec", "--factors 8 --layers 1 --max-length 8 --iterations 2"),
    ] {
        folder.succeeds(&format!("train {kind} parts/train.csv --out {kind} --device cpu --quiet {flags}"));
        for test in ["", "--test parts/test.csv"] {
            folder.succeeds(&format!("report {kind} {test} --device cpu --out {kind}.html --quiet"));
            let page = page(&folder, &format!("{kind}.html"));
            assert!(page.contains(&format!("<h1>{kind}</h1>")) && !page.contains("NaN"), "{kind} {test}");
            assert_eq!(page.contains("--test FILE"), test.is_empty(), "{kind} {test}");
        }
    }
    let all = |model: &str| {
        let told = folder.succeeds(&format!("inspect {model}"));
        told.lines().find(|line| line.starts_with("interactions")).unwrap().to_owned()
    };
    let with_held = all("sasrec");
    assert!(with_held.contains(" learned from, ") && with_held.ends_with(" held out"), "{with_held}");
    assert!(!all("mf").contains("held out"), "learned from in the end");
    let refitted = page(&folder, "mf.html");
    assert!(refitted.contains("trained again"), "{refitted}");
    assert!(folder.succeeds("inspect mf").contains("kept epoch"));
    assert!(page(&folder, "svd.html").contains("rmse"));
}

#[test]
fn models_of_rows_and_texts_have_a_page() {
    let folder = Folder::with_rows();
    folder.succeeds(
        "train logistic rows.csv --label clicked --ignore bought --out model --epochs 3 --device cpu --quiet",
    );
    folder.succeeds("report model --test rows.csv --device cpu --quiet");
    let rows = page(&folder, "report.html");
    assert!(rows.contains("auc") && rows.contains("table rows") && !rows.contains("--test FILE"), "{rows}");
    for beside in ["share of ones for all", "Are the scores right?"] {
        assert!(rows.contains(beside), "{beside}");
    }
    let object = json(&folder.succeeds("report model --test rows.csv --device cpu --json --quiet"));
    assert_eq!(object["test"]["baseline_metrics"]["auc"], 0.5);
    let groups = object["test"]["groups"]["by_score"][0]["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["rows"].as_u64().unwrap()).sum::<u64>(), 400);
    let all = fs_err::read_to_string(folder.at("rows.csv")).unwrap();
    let alike = |line: &&str| matches!(line.split(',').nth(5), Some("clicked" | "1"));
    folder.write("alike.csv", all.lines().filter(alike).map(|line| format!("{line}\n")).collect::<String>());
    folder.succeeds("report model --test alike.csv --out alike.html --device cpu --quiet");
    assert!(page(&folder, "alike.html").contains("In all test rows `clicked` is the same"));
    let refused = folder.screen("report model --users 2");
    assert!(
        refused.starts_with("status: 2") && refused.contains("--users is for models of users"),
        "{refused}"
    );

    let folder = Folder::with_messages();
    folder.succeeds("train text messages.csv --out model --quiet --epochs 3 --batch-size 16 --buckets 4096");
    folder.succeeds("report model --test messages.csv --quiet");
    let texts = page(&folder, "report.html");
    assert!(texts.contains("out_of_scope_recall") && texts.contains("weather"), "{texts}");
    let object = json(&folder.succeeds("report model --test messages.csv --json"));
    assert_eq!(object["test"]["counts"]["texts out of scope"], 100);
    assert!(
        texts.contains("most frequent class") && texts.contains("Which classes are told badly?"),
        "{texts}"
    );
    let classes = object["test"]["groups"]["by_class"].as_array().unwrap();
    let recall = |at: usize| classes[at]["right"].as_f64().unwrap() / classes[at]["texts"].as_f64().unwrap();
    assert!(classes.len() == 3 && recall(0) <= recall(1) && recall(1) <= recall(2), "{classes:?}");
}

#[test]
fn other_peoples_files_are_left_alone() {
    let folder = trained();
    folder.write("report.html", "<!DOCTYPE html><p>mine</p>");
    assert_screen!("report-not-ours", folder.screen("report model"));
    assert_eq!(page(&folder, "report.html"), "<!DOCTYPE html><p>mine</p>");
    folder.succeeds("report model --force");
    assert!(page(&folder, "report.html").contains("recmill report"));
    folder.succeeds("report model");
    assert_screen!("report-directory", folder.screen("report model --out parts"));
    assert_screen!("report-nowhere", folder.screen("report model --out nowhere/report.html"));
    assert_screen!("report-no-model", folder.screen("report parts"));
    assert_screen!("report-history-alone", folder.screen("report model --history parts/train.csv"));
    folder.write("strangers.csv", "user_id,item_id\nnobody,a1\n");
    assert_screen!(
        "report-strangers",
        folder.screen("report model --test strangers.csv --device cpu --out new.html")
    );
    assert!(!folder.at("new.html").exists());
}

const HOSTILE: &str = "</style></title><script>console.error(1)</script><img src=x onerror=console.error(2)>";

/// A model whose ids and titles try to be more than text.
fn hostile() -> Folder {
    let folder = Folder::new();
    let quoted = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
    let (mut ratings, mut items) = (String::from("user,item\n"), String::from("item,title\n"));
    for user in 0..30 {
        // Everyone goes through the items from another one on, so that what is held out is known from others.
        for item in (0..12).map(|item| (item + 5 * user) % 12).filter(|item| (item + user) % 5 != 0) {
            let (user, item) = (format!("{HOSTILE}u{user}"), format!("'\"><svg/onload=alert(1)>{item}"));
            ratings += &format!("{},{}\n", quoted(user), quoted(item));
        }
    }
    for item in 0..12 {
        let long = "unbreakable".repeat(5);
        items += &format!(
            "{},{}\n",
            quoted(format!("'\"><svg/onload=alert(1)>{item}")),
            quoted(format!("{HOSTILE}{long}"))
        );
    }
    folder.write("ratings.csv", ratings);
    folder.write("items.csv", items);
    folder.succeeds("split ratings.csv --out parts --leave-last-out");
    folder.succeeds(
        "train mf parts/train.csv --out model --items items.csv --factors 4 --iterations 5 --device cpu --quiet",
    );
    folder
}

#[test]
fn hostile_text_stays_text() {
    let folder = hostile();
    folder.succeeds("report model --test parts/test.csv --device cpu --quiet");
    let page = page(&folder, "report.html");
    for tag in ["<script", "<img", "<svg/"] {
        assert!(!page.contains(tag), "`{tag}` in {page}");
    }
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn the_page_looks_right_in_a_browser() {
    let Some(browser) = Browser::find() else { return };
    let folder = hostile();
    folder.succeeds("report model --test parts/test.csv --device cpu --quiet");
    for width in [1200, 400] {
        let found = browser.lay_out(&folder, "report.html", width);
        assert_eq!(found.console, Vec::<String>::new(), "at {width}");
        assert!(found.page_width <= f64::from(width), "the page is {} wide at {width}", found.page_width);
        assert_eq!(
            found.sections.iter().map(|section| section.name.as_str()).collect::<Vec<_>>(),
            [
                "result",
                "activity",
                "popularity",
                "training",
                "scores",
                "users",
                "data",
                "configuration",
                "size"
            ],
        );
        let mut below = 0.0;
        for part in &found.sections {
            assert!(part.height > 40.0 && part.width > 200.0, "{part:?} at {width}");
            assert!(part.left >= 0.0 && part.left + part.width <= f64::from(width), "{part:?} at {width}");
            assert!(part.top >= below - 0.5, "{part:?} covers what stands above it at {width}");
            below = part.top + part.height;
        }
        assert!(found.charts.len() >= 7, "{:?}", found.charts);
        for chart in &found.charts {
            assert!(chart.width > 200.0 && chart.height > 100.0, "{chart:?} at {width}");
            assert!(
                chart.left >= 0.0 && chart.left + chart.width <= f64::from(width),
                "{chart:?} at {width}"
            );
            assert!(chart.marks > 0, "{chart:?} has nothing in it");
            assert!(chart.text_outside < 2.0, "{chart:?} has labels outside of the window at {width}");
        }
    }
}

#[test]
fn the_page_is_light_or_dark_as_the_reader_wants() {
    let Some(browser) = Browser::find() else { return };
    let folder = trained();
    folder.succeeds("report model --test parts/test.csv --device cpu --quiet");
    for scheme in [Scheme::Light, Scheme::Dark] {
        let picture = browser.look_at(&folder, "report.html", scheme);
        assert_eq!((picture.width, picture.height), (1200, 2400));
        let (paper, other) = match scheme {
            Scheme::Light => (picture.white, picture.black),
            Scheme::Dark => (picture.black, picture.white),
        };
        // Mostly paper, some ink in the colour of the other, and the blue of a bar or a line.
        assert!((0.7..0.995).contains(&paper) && (0.001..0.2).contains(&other), "{picture:?} in {scheme:?}");
        assert!(picture.blue > 0.001, "{picture:?} in {scheme:?}");
        assert_eq!(picture.corner > 128, scheme == Scheme::Light, "{picture:?} in {scheme:?}");
    }
}
