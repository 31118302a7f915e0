//! The model that learns from columns of users and items, through the command: who came after training is answered, and what did is found.

use serde_json::Value;

use crate::{
    running::{get, start, wait_for},
    screen::{Folder, assert_screen, filters},
};

const TINY: &str =
    "--factors 8 --batch-size 64 --n-negatives 8 --learning-rate 0.01 --id-dropout 0.3 --device cpu";

/// People of Oslo watch dramas, those of Bergen comedies; each has left some out.
fn films() -> Folder {
    let folder = Folder::new();
    let mut events = String::from("user,item,time\n");
    let (mut users, mut items) = (String::from("user,town,age\n"), String::from("item,title,genre,year\n"));
    for user in 0..40 {
        let town = if user % 2 == 0 { "Oslo" } else { "Bergen" };
        users += &format!("u{user},{town},{}\n", 20 + user);
        for item in (user % 2..24).step_by(2) {
            if (item + user) % 5 != 0 {
                events += &format!("u{user},i{item},{}\n", 100 + item * 7 % 24);
            }
        }
    }
    for item in 0..24 {
        let genre = if item % 2 == 0 { "drama" } else { "comedy" };
        items += &format!("i{item},Film {item},{genre},{}\n", 1990 + item % 3);
    }
    folder.write("events.csv", events);
    folder.write("users.csv", users);
    folder.write("items.csv", items);
    folder.write("new_users.csv", "user,town,age\nann,Oslo,30\nben,Bergen,31\nu3,Oslo,20\n");
    folder.write(
        "new_items.csv",
        "item,genre,title,year\nf0,drama,First night,1991\nf1,comedy,Second night,1990\n",
    );
    folder
}

fn list(folder: &Folder, arguments: &str) -> Vec<String> {
    let answer: Value =
        serde_json::from_str(&folder.succeeds(&format!("recommend {arguments} --json"))).unwrap();
    let items = answer["recommendations"].as_array().unwrap();
    items.iter().map(|item| item["item_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn new_users_are_answered_and_new_items_found_by_their_columns() {
    let folder = films();
    let train = format!(
        "train two-tower events.csv --items items.csv --users users.csv --out model --refit --iterations 25 {TINY}"
    );
    let screen = folder.screen(&train);
    let mut filters: Vec<(&str, &str)> = filters();
    filters.extend([
        (r"\d\.\d{2,}", "[NUMBER]"),
        (r"(?m)^epoch .*\n", ""),
        (r"\b\d+ (epochs?|of 25)", "[N] $1"),
        (r"(?m)^stopped: .*\n", ""),
        (r"keeping epoch \d+ of \d+", "keeping epoch [N] of [N]"),
    ]);
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!("two-tower-train", screen);
    });
    let number = |id: &String| id[1..].parse::<usize>().unwrap();
    let of_ann = list(&folder, "model --users new_users.csv --user ann --k 8");
    assert!(of_ann.iter().all(|id| number(id) % 2 == 0), "{of_ann:?}");
    let of_ben = list(&folder, "model --users new_users.csv --user ben --k 8");
    assert!(of_ben.iter().all(|id| number(id) % 2 == 1), "{of_ben:?}");
    let both = "model --users new_users.csv --items new_items.csv";
    let place = |arguments: &str, id: &str| {
        list(&folder, &format!("{arguments} --k 26")).iter().position(|found| found == id).unwrap()
    };
    for (user, own, other) in [("ann", "f0", "f1"), ("ben", "f1", "f0")] {
        assert!(place(&format!("{both} --user {user}"), own) < 13, "{user}");
        assert!(place(&format!("{both} --user {user}"), other) >= 13, "{user}");
    }
    // New items have titles, and conditions hold for them.
    folder.write("ids.txt", "ann\nu4\n");
    let lists = folder.succeeds(&format!("recommend {both} --users-file ids.txt --k 2"));
    assert_eq!(lists.lines().count(), 5, "{lists}");
    let found = folder.succeeds(&format!("recommend {both} --user ann --k 26 --where year=1991"));
    assert!(found.contains("First night") && !found.contains("Second night"), "{found}");
    // So does a server.
    let (mut child, mut lines) = start(&folder, &format!("serve {both} --bind 127.0.0.1:0 --drain-grace 0"));
    let told = wait_for(&mut lines, "listening on http://");
    let served = get(told.rsplit("http://").next().unwrap(), "/recommend?user_id=ann&k=26");
    for id in list(&folder, &format!("{both} --user ann --k 26")) {
        assert!(served.contains(&format!("\"item_id\":\"{id}\"")), "{id}: {served}");
    }
    assert!(served.contains("\"f0\"") && !served.contains("fallback"), "{served}");
    child.kill().unwrap();
    child.wait().unwrap();
    // Going on makes of columns what was made of them before.
    folder.succeeds(&format!(
        "train two-tower events.csv --from model --out model --holdout 0 {TINY} --iterations 1"
    ));
    assert_eq!(list(&folder, "model --users new_users.csv --user ann --k 8").len(), 8);
    let deeper =
        format!("train two-tower events.csv --from model --out model --holdout 0 --hidden 16 --quiet {TINY}");
    assert_screen!("two-tower-from-other", folder.screen(&deeper));
}

#[test]
fn what_has_learned_from_no_columns_places_nobody() {
    let folder = films();
    assert_screen!(
        "two-tower-ids-alone",
        folder.screen(&format!("train two-tower events.csv --dry-run {TINY}"))
    );
    folder.succeeds("train als events.csv --out model --factors 4 --iterations 1 --device cpu");
    assert_screen!("two-tower-als", folder.screen("recommend model --users new_users.csv --user ann"));
    assert_screen!(
        "two-tower-wrong-values",
        folder.screen("train two-tower events.csv --out model --temperature 0 --popularity-weight 101")
    );
}

#[test]
fn a_text_among_numbers_is_told_where_it_makes_categories_of_them() {
    let folder = films();
    let users =
        fs_err::read_to_string(folder.at("users.csv")).unwrap().replace("Oslo,24\n", "Oslo,unknown\n");
    folder.write("mixed.csv", users);
    let told = folder.screen("train two-tower events.csv --users mixed.csv --dry-run");
    let expected = "warning: mixed.csv: age is nearly always a number, but also `unknown`";
    assert!(told.starts_with("status: 0") && told.contains(expected), "{told}");
}
