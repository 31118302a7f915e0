//! What is told, and with which exit status, when the command is used wrongly or cannot do its work.

use crate::screen::{Folder, assert_screen, screen};

/// A folder with ratings and a trained model.
fn trained() -> Folder {
    let folder = Folder::with_ratings();
    folder.succeeds("train most-popular ratings.csv --out model --items items.csv --quiet");
    folder
}

#[test]
fn nothing_and_unknown_flags() {
    let folder = Folder::new();
    assert_screen!("no-command", folder.screen(""));
    assert_screen!("unknown-command", folder.screen("trian als ratings.csv"));
    assert_screen!("unknown-flag", folder.screen("train als ratings.csv --out model --factor 8"));
    assert_screen!("no-model-named", folder.screen("train ratings.csv --out model"));
    assert_screen!("no-out", folder.screen("train als ratings.csv"));
    assert_screen!("k-of-zero", folder.screen("recommend model --user 1 --k 0"));
    assert_screen!("nobody-to-recommend-to", folder.screen("recommend model"));
    assert_screen!("no-threads", folder.screen("devices --threads 0"));
    assert_screen!("too-many-threads", folder.screen("devices --threads 100000"));
}

#[test]
fn hyper_parameters() {
    let folder = Folder::with_ratings();
    assert_screen!(
        "both-weightings",
        folder.screen("train als ratings.csv --out m --alpha 1 --unobserved-weight 0.1")
    );
    assert_screen!(
        "several-bad-values",
        folder.screen("train als ratings.csv --out m --factors 0 --cg-steps 0")
    );
    assert_screen!("negative-factors", folder.screen("train als ratings.csv --out m --factors -1"));
    assert_screen!(
        "metric-of-values",
        folder.screen("train als ratings.csv --out m --valid ratings.csv --valid-metric rmse")
    );
    assert_screen!("patience-without-valid", folder.screen("train als ratings.csv --out m --patience 3"));
    for (arguments, told) in [
        (
            "mf --negatives popularity --negatives-exponent 30",
            "--negatives-exponent must be from 0 to 4, not `30.0`",
        ),
        ("mf --init-scale 1e38", "--init-scale must be above 0 and at most 1000, not `1e38`"),
        (
            "mf --valid ratings.csv --valid-metric recall@0",
            "--valid-metric measures lists of at least 1 item",
        ),
    ] {
        let screen = folder.screen(&format!("train {arguments} ratings.csv --out m"));
        assert!(screen.starts_with("status: 2") && screen.contains(told), "{arguments}: {screen}");
    }
    assert!(!folder.at("m").exists());
}

#[test]
fn networks_that_cannot_fit_are_refused_before_they_are_made() {
    let folder = Folder::with_ratings();
    let wide = ["65536"; 32].join(",");
    let networks = [format!("neumf --hidden {wide}"), format!("two-tower --hidden {wide}")];
    let sequences = ["sasrec --factors 65536 --layers 64", "gru4rec --hidden 65536 --layers 64"];
    for arguments in networks.into_iter().chain(sequences.map(str::to_owned)) {
        let screen = folder.screen(&format!("train {arguments} ratings.csv --out m --iterations 1"));
        assert!(
            screen.starts_with("status: 1") && screen.contains("the network and its optimizer"),
            "{screen}"
        );
        assert!(screen.contains("narrower layers"), "{screen}");
    }
    assert!(!folder.at("m").exists());
}

#[test]
fn ids_are_typed_as_they_are_read_and_a_change_of_kind_is_told() {
    let folder = trained();
    let list = |id: &str| {
        let output = folder.command("recommend model --json --user").arg(id).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list(" u1 "), list("u1"));
    assert_ne!(list("u 1"), list("u1"));
    let dry = "train ease ratings.csv --dry-run --out";
    let told = "model holds a model of most-popular; its next version will be one of ease";
    assert!(folder.screen(&format!("{dry} model")).contains(told));
    assert!(!folder.screen("train most-popular ratings.csv --dry-run --out model").contains("holds a model"));
    assert!(!folder.screen(&format!("{dry} another")).contains("holds a model"));
}

#[test]
fn configuration_files() {
    let folder = Folder::with_ratings();
    folder.write(
        "good.toml",
        "model = \"als\"\ndata = \"ratings.csv\"\nout = \"m\"\nfactors = 4\niterations = 2\n",
    );
    folder.write("typo.toml", "factor = 4\n");
    folder.write("type.toml", "factors = \"many\"\n");
    folder.write("broken.toml", "factors = = 4\n");
    folder.write("other.toml", "model = \"bpr\"\n");
    folder.write("both.toml", "alpha = 2.0\n");
    for name in ["typo", "type", "broken", "other"] {
        let arguments = format!("train als ratings.csv --out m --config {name}.toml");
        assert_screen!(format!("config-{name}"), folder.screen(&arguments));
    }
    let both = "train als ratings.csv --out m --config both.toml --unobserved-weight 0.1";
    assert_screen!("config-both-weightings", folder.screen(both));
    assert_screen!("config-missing", folder.screen("train als ratings.csv --out m --config nowhere.toml"));
    assert!(!folder.at("m").exists());
    folder.succeeds("train als --config good.toml --iterations 1");
    let inspected = folder.succeeds("inspect m --json");
    assert!(inspected.contains("\"factors\": 4") && inspected.contains("\"iterations\": 1"), "{inspected}");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::new();
    folder.write("empty.csv", "");
    folder.write("header.csv", "user_id,item_id,rating\n");
    folder.write("text.csv", "user_id,item_id,rating\n1,a,5\n2,b,good\n");
    folder.write("fields.csv", "user_id,item_id,rating\n1,a,5\n2,b\n");
    folder.write("negative.csv", "user_id,item_id,rating\n1,a,-5\n");
    folder.write("no-id.csv", "user_id,item_id,rating\n,a,5\n");
    folder.write("columns.csv", "who,what\n1,a\n");
    folder.write("utf8.csv", b"user_id,item_id\n1,\xff\xfe\n");
    for name in ["nowhere", "empty", "header", "text", "fields", "negative", "no-id", "columns", "utf8"] {
        let screen = folder.screen(&format!("train als {name}.csv --out model"));
        assert_screen!(format!("data-{name}"), screen);
        assert!(!folder.at("model").exists(), "{name}");
    }
    folder.write("good.csv", "user_id,item_id\n1,a\n2,b\n");
    assert_screen!(
        "data-filtered",
        folder.screen("train als good.csv --out model --min-user-interactions 2")
    );
    assert_screen!("data-without-values", folder.screen("train svd good.csv --out model"));
    let column = "train als columns.csv --out model --user-column whom --item-column what";
    assert_screen!("data-no-such-column", folder.screen(column));
}

#[test]
fn directories_that_are_not_ours() {
    let folder = Folder::with_ratings();
    fs_err::create_dir(folder.at("precious")).unwrap();
    folder.write("precious/thesis.txt", "years of work");
    assert_screen!("out-not-ours", folder.screen("train als ratings.csv --out precious"));
    assert_screen!("out-is-a-file", folder.screen("train als ratings.csv --out ratings.csv"));
    assert_screen!("demo-out-not-ours", folder.screen("demo --out precious"));
    assert_eq!(fs_err::read_to_string(folder.at("precious/thesis.txt")).unwrap(), "years of work");
    assert_eq!(fs_err::read_dir(folder.at("precious")).unwrap().count(), 1);
    assert_screen!("model-missing", folder.screen("recommend nowhere --user 1"));
    assert_screen!("model-not-ours", folder.screen("inspect precious"));
}

#[test]
fn a_file_is_no_model() {
    let folder = Folder::with_ratings();
    assert_screen!("model-is-a-file", folder.screen("inspect ratings.csv"));
    for command in ["report ratings.csv", "recommend ratings.csv --user u1", "serve ratings.csv"] {
        let told = folder.screen(command);
        assert!(told.contains("ratings.csv: is a file, and a model is a directory"), "{command}: {told}");
    }
}

#[test]
fn files_that_cannot_be_written() {
    let folder = trained();
    fs_err::create_dir(folder.at("taken.csv")).unwrap();
    folder.write("strangers.csv", "user_id,item_id\nx,y\n");
    for (command, file, why) in [
        (
            "recommend model --all-users --output nowhere/lists.csv",
            "nowhere/lists.csv",
            "`nowhere` is not there",
        ),
        (
            "recommend model --all-users --output ratings.csv/lists.csv",
            "ratings.csv/lists.csv",
            "`ratings.csv` is no folder",
        ),
        ("recommend model --all-users --output taken.csv", "taken.csv", "is a directory"),
        ("report model --out nowhere/page.html", "nowhere/page.html", "`nowhere` is not there"),
        (
            "evaluate model --test ratings.csv --sampled-negatives 1 --write-candidates nowhere/c.csv",
            "nowhere/c.csv",
            "`nowhere` is not there",
        ),
    ] {
        let told = folder.screen(command);
        let expected = format!("error: cannot write `{file}`: {why}");
        assert!(told.starts_with("status: 1") && told.contains(&expected), "{command}: {told}");
    }
    folder.succeeds("train als ratings.csv --factors 4 --iterations 1 --out als --device cpu --quiet");
    let told = folder.screen("export als --vectors nowhere/items.parquet");
    assert!(told.contains("error: cannot write `nowhere/items.parquet`: `nowhere` is not there"), "{told}");
}

#[test]
fn training_that_diverges_says_so() {
    let folder = Folder::with_ratings();
    let tiny = "--factors 4 --iterations 3 --learning-rate 1e30 --out model --device cpu --quiet";
    for name in ["bpr", "lmf"] {
        let told = folder.screen(&format!("train {name} ratings.csv {tiny}"));
        assert!(
            told.contains("--learning-rate must be above 0 and at most 10, not `1e30`"),
            "{name}: {told}"
        );
        let told = folder.screen(&format!("train {name} ratings.csv {tiny} --optimizer sgd"));
        assert!(
            told.starts_with("status: 1")
                && told.contains("error: training diverged in epoch 1")
                && told.ends_with("\nhint: a smaller --learning-rate usually helps\n"),
            "{name}: {told}"
        );
        assert!(!folder.at("model").exists(), "{name}");
    }
    // Vectors that are scaled to one length would hide it.
    for name in ["mf", "two-tower", "neumf", "sasrec", "gru4rec"] {
        let told = folder.screen(&format!("train {name} ratings.csv {tiny}"));
        let refused = "--learning-rate must be above 0 and at most 1, not `1e30`";
        assert!(told.starts_with("status: 2") && told.contains(refused), "{name}: {told}");
    }
    let told = folder.screen("train bpr ratings.csv --learning-rate 1e39 --optimizer sgd --out model");
    assert!(told.contains("--learning-rate must be from 1.2e-38 to 3.4e38, not `1e39`"), "{told}");
}

#[test]
fn unknown_users_and_items() {
    let folder = trained();
    assert_screen!("unknown-user", folder.screen("recommend model --user nobody --k 2"));
    assert_screen!("unknown-user-json", folder.screen("recommend model --user nobody --k 2 --json"));
    assert_screen!("unknown-item", folder.screen("similar model --item nothing"));
    assert_screen!("unknown-history", folder.screen("recommend model --history-items nothing --k 2"));
    let told = folder.screen("recommend model --history-items i1 --user u1 --user u2");
    assert!(told.starts_with("status: 2") && told.contains("--user is several users"), "{told}");
    assert_screen!("unknown-excluded", folder.screen("recommend model --user u1 --exclude nothing --k 1"));
}

#[test]
fn conditions_on_items() {
    let folder = trained();
    let ask = |condition: &str| {
        let mut command = folder.command("recommend model --user u1 --k 1 --where");
        screen(&command.arg(condition).output().unwrap())
    };
    assert_screen!("where-no-column", ask("gender = 'comedy'"));
    assert_screen!("where-broken", ask("genre = "));
    assert_screen!("where-nothing-left", ask("genre = 'western'"));
    folder.succeeds("train most-popular ratings.csv --out bare --quiet");
    let bare = folder.command("recommend bare --user u1 --where").arg("genre = 'comedy'").output().unwrap();
    assert_screen!("where-without-columns", screen(&bare));
}

#[test]
fn devices_that_are_not_there() {
    let folder = Folder::with_ratings();
    assert_screen!("device-cuda", folder.screen("train als ratings.csv --out model --device cuda"));
    assert_screen!("device-nonsense", folder.screen("train als ratings.csv --out model --device gpu"));
}

#[test]
fn what_a_model_cannot_do() {
    let folder = trained();
    assert_screen!("predict-by-ranking-model", folder.screen("predict model ratings.csv"));
    folder.write("strangers.csv", "user_id,item_id\nx,y\n");
    assert_screen!("evaluate-strangers", folder.screen("evaluate model --test strangers.csv"));
    assert_screen!("output-without-format", folder.screen("recommend model --all-users --output lists.txt"));
    assert_screen!("output-for-one-user", folder.screen("recommend model --user u1 --output lists.csv"));
    assert_screen!("serve-to-everyone", folder.screen("serve model --bind 0.0.0.0:0"));
    for command in ["evaluate model", "report model"] {
        let told = folder.screen(&format!("{command} --test ratings.csv --test ./ratings.csv"));
        assert!(
            told.starts_with("status: 2") && told.contains("ratings.csv: the file is named twice"),
            "{told}"
        );
    }
    for twice in ["./ratings.csv", "rat*.csv"] {
        let told = folder.screen(&format!("train als ratings.csv {twice} --out other"));
        assert!(told.starts_with("status: 2") && told.contains("the file is named twice"), "{told}");
    }
    let told = folder.screen("recommend model --users-file users.csv --output users.csv");
    assert!(!told.contains("wrote"), "{told}");
    let told = folder.screen("recommend model --users-file none.csv");
    assert!(told.contains("----- stdout -----\n----- stderr -----\n"), "no header above an error: {told}");
    folder.write("users.csv", "user_id\nu1\n");
    let told = folder.screen("recommend model --users-file users.csv --output ./users.csv");
    assert!(told.contains("--output would replace users.csv, which is read"), "{told}");
    assert_screen!("from-another-model", folder.screen("train als ratings.csv --out other --from model"));
}

#[test]
fn damage_is_named() {
    let folder = trained();
    let path = folder.at("model/versions/1/history.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&path, &bytes).unwrap();
    assert_screen!("damage-flipped", folder.screen("inspect model --verify"));
    fs_err::write(&path, &bytes[..last]).unwrap();
    assert_screen!("damage-truncated", folder.screen("recommend model --user u1"));
}

#[test]
fn measuring_by_what_is_learned_from_is_told() {
    let folder = Folder::with_ratings();
    let train = "train als ratings.csv --factors 4 --iterations 1 --out m --device cpu";
    for flag in ["valid", "test"] {
        let told = folder.screen(&format!("{train} --{flag} ratings.csv"));
        assert!(
            told.contains(&format!("of --{flag} are learned from, so they are never recommended")),
            "{told}"
        );
    }
    folder.write("later.csv", "user_id,item_id,rating\nu0,b7,4\n");
    assert!(!folder.screen(&format!("{train} --test later.csv")).contains("are learned from, so"));
}

#[test]
fn flags_without_effect_are_told() {
    let folder = Folder::with_ratings();
    folder.write("pairs.csv", "user,item\nx,a\nx,b\ny,b\ny,c\n");
    let weighs = "bpr learns from what is above 0, and not from how much it is; als, item-knn and svd do";
    for (typed, told) in [
        ("mf pairs.csv --loss bpr --popularity-weight 0.3", "--popularity-weight does nothing here"),
        ("mf pairs.csv --negatives-exponent 0.5", "--negatives-exponent does nothing here"),
        ("als pairs.csv --min-rating 1", "--min-rating does nothing here: the data has no values"),
        ("two-tower pairs.csv --dropout 0.1", "--dropout does nothing here"),
        (
            "two-tower pairs.csv --similarity dot --popularity-weight 1",
            "--popularity-weight does nothing here",
        ),
        ("two-tower pairs.csv --id-dropout 0.1", "--id-dropout does nothing here"),
        ("sasrec pairs.csv --loss softmax --n-negatives 5", "--n-negatives does nothing here"),
        ("bpr ratings.csv --value-column rating", weighs),
    ] {
        let screen = folder.screen(&format!("train {typed} --dry-run --device cpu"));
        assert!(screen.starts_with("status: 0") && screen.contains(told), "{typed}: {screen}");
    }
    let quiet = folder.screen("train als ratings.csv --value-column rating --half-life 3d --dry-run");
    assert!(!quiet.contains("does nothing") && !quiet.contains("learns from"), "{quiet}");
}
