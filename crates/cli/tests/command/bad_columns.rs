//! What is told of a bad value, a bad column or an empty file of features, and what `--on-bad-row skip` makes of it.

use crate::screen::{Folder, screen};

const TINY: &str =
    "--factors 4 --batch-size 64 --n-negatives 8 --iterations 2 --holdout 0 --device cpu --quiet";

/// A folder with ratings, columns of users and items, and the end of a `train two-tower` that reads them.
fn described() -> (Folder, String) {
    let folder = Folder::with_ratings();
    let mut users = String::from("user,town,age\n");
    for user in 0..20 {
        users += &format!("u{user},{},{}\n", ["Oslo", "Bergen"][user % 2], 20 + user % 7);
    }
    folder.write("users.csv", users);
    let train = format!("train two-tower ratings.csv --users users.csv --items items.csv --out model {TINY}");
    (folder, train)
}

/// Fails unless the command does, with this error and this hint.
fn refuses(folder: &Folder, command: &str, error: &str, hint: &str) {
    let told = folder.screen(command);
    let expected = format!("error: {error}\n\nhint: {hint}\n");
    assert!(told.starts_with("status: 1") && told.ends_with(&expected), "{command}: {told}");
}

const SKIP: &str = "--on-bad-row skip leaves such rows out and counts them";

#[test]
fn one_bad_row_of_new_users_and_items_is_named_or_left_out() {
    let (folder, train) = described();
    folder.succeeds(&train);
    folder.write(
        "new.csv",
        "user,town,age\nann,Oslo,30\nben,Bergen,old\ncid,Oslo,inf\nann,Oslo,31\nu3,Oslo,20\n",
    );
    let ask = "recommend model --users new.csv --user ann --user ben --k 1";
    let id = "new.csv:5: column `user`: expected an id that is not there yet, found `ann`";
    refuses(&folder, ask, id, SKIP);
    folder.write("once.csv", "user,town,age\nann,Oslo,30\nben,Bergen,old\ncid,Oslo,inf\n");
    let value =
        "once.csv: `ben`: column `age`: expected a number, or one of the texts for missing ones, found `old`";
    refuses(&folder, "recommend model --users once.csv --user ann --k 1", value, SKIP);
    let skipped = folder.run(&format!("{ask} --on-bad-row skip"));
    let told = screen(&skipped);
    assert!(told.starts_with("status: 0"), "{told}");
    for line in [
        "warning: new.csv: skipped 1 bad row (repeated id), first new.csv:5: column `user`: expected an id that is not there yet, found `ann`",
        "warning: new.csv: skipped 1 bad row (value that is no number), first new.csv: `ben`: column `age`: expected a number, or one of the \
         texts for missing ones, found `old`",
        "warning: new.csv: skipped 1 bad row (value that is not finite), first new.csv: `cid`: column `age`: expected a number from -3.4e38 to \
         3.4e38, found `inf`",
        "new.csv: 1 new user; 1 known to the model as before",
        "the model does not know the user `ben`",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    folder.write("items_new.csv", "item_id,title,genre\nc0,New,comedy\n,None,drama\n");
    let item = "items_new.csv:3: column `item_id`: expected an id, found ``";
    refuses(&folder, "similar model --items items_new.csv --item c0 --k 1", item, SKIP);
    let similar = folder.succeeds("similar model --items items_new.csv --item c0 --k 3 --on-bad-row skip");
    assert_eq!(similar.lines().count(), 4, "{similar}");
    let known = folder.succeeds("similar model --items items_new.csv --item a0 --k 16 --on-bad-row skip");
    assert!(known.contains("c0"), "{known}");
    // The new ones are among all users.
    folder.write("good.csv", "user,town,age\nann,Oslo,30\n");
    let all = folder.succeeds("recommend model --users good.csv --all-users --k 1");
    assert!(all.lines().any(|line| line.starts_with("ann,")), "{all}");
}

#[test]
fn a_number_that_is_none_in_single_precision_is_a_bad_value_and_no_category() {
    let (folder, train) = described();
    for value in ["inf", "1e39", "1e308"] {
        let users = fs_err::read_to_string(folder.at("users.csv")).unwrap();
        folder.write("users.csv", users.replacen("u4,Oslo,24", &format!("u4,Oslo,{value}"), 1));
        let bad = "users.csv: `u4`: column `age`: expected a number from -3.4e38 to 3.4e38";
        refuses(&folder, &train, &format!("{bad}, found `{value}`"), SKIP);
        let told = folder.screen(&format!("{train} --on-bad-row skip"));
        assert!(told.starts_with("status: 0"), "{told}");
        assert!(told.contains("users.csv: skipped 1 bad row (value that is not finite)"), "{told}");
        folder.write("users.csv", users);
    }
    let rows = Folder::with_rows();
    let text = fs_err::read_to_string(rows.at("rows.csv")).unwrap();
    rows.write("rows.csv", text.replacen(",0.5,", ",inf,", 1));
    let schema = rows.succeeds("schema rows.csv --label clicked");
    assert!(schema.contains("name = \"price\"\nkind = \"numeric\""), "{schema}");
    let train = "train logistic rows.csv --label clicked --ignore bought --out model --device cpu --quiet";
    let bad = "rows.csv:2: column `price`: expected a number from -3.4e38 to 3.4e38, found `inf`";
    refuses(&rows, train, bad, SKIP);
}

#[test]
fn two_columns_of_one_name_and_empty_files_are_named() {
    let (folder, train) = described();
    let ids = "is it the right file? its first column holds the ids, the others what is known of each";
    for (text, error, hint) in [
        (
            "user,age,town,age\nu1,20,Oslo,21\n",
            "two columns are called `age`",
            "give each column a name of its own",
        ),
        ("", "expected a header and rows, found an empty file", ids),
        ("user,town,age\n", "expected rows, found none", ids),
    ] {
        folder.write("users.csv", text);
        refuses(&folder, &train, &format!("users.csv: {error}"), hint);
        assert!(!folder.at("model").exists(), "{error}");
    }
    folder.write("rows.csv", "user,price,price,clicked\na,1,2,0\nb,2,3,1\n");
    let ranker = "train logistic rows.csv --label clicked --out model --device cpu";
    refuses(
        &folder,
        ranker,
        "rows.csv: two columns are called `price`",
        "give each column a name of its own",
    );
}
