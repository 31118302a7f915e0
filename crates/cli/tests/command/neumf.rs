//! NeuMF through the command: known users, histories, similar items, and what it refuses.

use serde_json::Value;

use crate::screen::{Folder, assert_screen, filters};

const TINY: &str =
    "--factors 8 --mlp-factors 8 --hidden 16,8 --batch-size 32 --learning-rate 0.01 --device cpu";

/// Users of two kinds, each with the items of their kind but for a few.
fn kinds() -> Folder {
    let folder = Folder::new();
    let mut text = String::from("user,item\n");
    for user in 0..40 {
        for item in (user % 2..24).step_by(2).filter(|item| (item + user) % 5 != 0) {
            text += &format!("u{user},i{item}\n");
        }
    }
    folder.write("events.csv", text);
    folder
}

/// The numbers of the items that a question is answered with.
fn items(folder: &Folder, arguments: &str, list: &str) -> Vec<u32> {
    let answer: Value = serde_json::from_str(&folder.succeeds(&format!("{arguments} --json"))).unwrap();
    let items = answer[list].as_array().unwrap().iter();
    items.map(|item| item["item_id"].as_str().unwrap()[1..].parse().unwrap()).collect()
}

#[test]
fn neumf_goes_the_whole_way() {
    let folder = kinds();
    let train = format!("train neumf events.csv --out model {TINY}");
    let screen = folder.screen(&format!("{train} --refit --iterations 15"));
    let mut filters: Vec<(&str, &str)> = filters();
    filters.extend([
        (r"\d\.\d{2,}", "[NUMBER]"),
        (r"(?m)^epoch .*\n", ""),
        (r"(?m)^stopped: .*\n", ""),
        (r"\b\d+ epochs?", "[N] epochs"),
        (r"keeping epoch \d+ of \d+", "keeping epoch [N] of [N]"),
    ]);
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!("neumf-train", screen);
    });
    let odd = |items: Vec<u32>| items.iter().filter(|item| *item % 2 == 1).count();
    assert_eq!(odd(items(&folder, "recommend model --user u1 --k 2", "recommendations")), 2);
    let history = "recommend model --history-items i1,i5,i9,i13 --k 4";
    assert_eq!(odd(items(&folder, history, "recommendations")), 4);
    assert_eq!(odd(items(&folder, "similar model --item i3 --k 4", "similar")), 4);
    let goes_on = format!("{train} --from model --iterations 1");
    folder.succeeds(&goes_on);
    assert_screen!("neumf-from-fewer-layers", folder.screen(&format!("{goes_on} --hidden 16 --quiet")));
    assert_screen!("neumf-export", folder.screen("export model --vectors items.parquet"));
    assert_screen!("neumf-dry-run", folder.screen(&format!("{train} --dry-run")));
}

#[test]
fn neumf_says_what_is_wrong_with_its_flags() {
    let folder = kinds();
    let train = "train neumf events.csv --out model --mlp-factors 0 --hidden 0 --n-negatives 0 --dropout 1";
    assert_screen!("neumf-wrong", folder.screen(train));
}
