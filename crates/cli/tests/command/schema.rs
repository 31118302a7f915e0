//! `recmill schema`: what is guessed is told with its reason, and what is printed can be edited and read again.

use crate::screen::{Folder, assert_screen};

/// A folder with `clicks.csv`: an id, texts, numbers, a bag, a leak and a label.
fn with_clicks() -> Folder {
    let folder = Folder::new();
    let mut text = String::from("request_id,user_id,genres,price,city,clicked,outcome\n");
    for row in 0..200 {
        let clicked = row * row / 7 % 3 % 2;
        let genres = ["drama", "drama|comedy", "war|comedy", ""][row % 4];
        let city = ["Oslo", "Bergen", "?"][row % 3];
        let outcome = ["none yet", "bought"][clicked];
        text += &format!("{},{},{genres},{}.5,{city},{clicked},{outcome}\n", row + 900, row % 23, row % 31);
    }
    folder.write("clicks.csv", text);
    folder
}

#[test]
fn guesses_are_told_and_can_be_read_again() {
    let folder = with_clicks();
    let screen = folder.screen("schema clicks.csv");
    assert_screen!("schema", screen);
    let printed = folder.succeeds("schema clicks.csv --quiet --ignore outcome --categorical price");
    folder.write("schema.toml", &printed);
    // Reasons are comments; without them both are the same.
    let bare = |text: &str| {
        let kept = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        kept.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(bare(&folder.succeeds("schema clicks.csv --schema schema.toml")), bare(&printed));
    assert!(
        printed.contains("# named by --ignore\n[[columns]]\nname = \"outcome\"\nkind = \"ignore\"\n"),
        "{printed}"
    );
    let json: serde_json::Value = serde_json::from_str(&folder.succeeds("schema clicks.csv --json")).unwrap();
    assert_eq!(json["schema"]["columns"][5]["kind"], "label");
    assert_eq!(json["report"]["guesses"][1]["flag"], "--numeric user_id");
}

#[test]
fn what_cannot_be_done_is_told() {
    let folder = with_clicks();
    folder.write("typo.toml", "[[columns]]\nname = \"price\"\nkind = \"numerical\"\n");
    folder.write(
        "twice.toml",
        "[[columns]]\nname = \"a\"\nkind = \"numeric\"\n[[columns]]\nname = \"a\"\nkind = \"label\"\n",
    );
    folder.write("short.csv", "label,x\n1,2\n0\n");
    folder.write("header.csv", "label,x\n");
    assert_screen!("schema-no-rows", folder.screen("schema header.csv"));
    assert_screen!("schema-no-such-column", folder.screen("schema clicks.csv --label click"));
    assert_screen!("schema-two-flags", folder.screen("schema clicks.csv --numeric city --ignore city"));
    assert_screen!("schema-and-flags", folder.screen("schema clicks.csv --schema typo.toml --label clicked"));
    assert_screen!("schema-typo", folder.screen("schema clicks.csv --schema typo.toml"));
    assert_screen!("schema-twice", folder.screen("schema clicks.csv --schema twice.toml"));
    assert_screen!("schema-missing", folder.screen("schema clicks.csv --schema nowhere.toml"));
    assert_screen!("schema-bad-row", folder.screen("schema short.csv"));
}
