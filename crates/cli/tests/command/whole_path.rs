//! The whole way through the command: train, evaluate, recommend, extend, write lists.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use recmill_core::directory::{ModelDirectory, Saved, Verify, save};

use crate::screen::{Folder, assert_screen};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_first_session() {
    let folder = Folder::with_ratings();
    assert_screen!("split", folder.screen("split ratings.csv --out parts --leave-last-out"));
    let train = "train als parts/train.csv --out model --valid parts/valid.csv --items items.csv --factors 4 --iterations 3";
    assert_screen!("train", folder.screen(train));
    assert_screen!("evaluate", folder.screen("evaluate model --test parts/test.csv --k 1,3"));
    assert_screen!("recommend", folder.screen("recommend model --user u0 --user u1 --k 2"));
    assert_screen!("similar", folder.screen("similar model --item a0 --k 3"));
    assert_screen!("inspect", folder.screen("inspect model"));
}

#[test]
fn standard_output_and_models_are_the_same_for_any_number_of_threads() {
    let folder = Folder::with_ratings();
    let session = |threads: usize| -> (String, Vec<u8>) {
        let out = format!("model{threads}");
        let train =
            format!("train als ratings.csv --out {out} --factors 4 --iterations 3 --threads {threads}");
        let told = folder.succeeds(&format!("{train} --test ratings.csv"))
            + &folder.succeeds(&format!("evaluate {out} --test ratings.csv --json --threads {threads}"))
            + &folder.succeeds(&format!("recommend {out} --all-users --threads {threads}"))
            + &folder.succeeds(&format!("similar {out} --item a1 --json"));
        (told, fs_err::read(folder.at(&format!("{out}/versions/1/model.safetensors"))).unwrap())
    };
    let one = session(1);
    assert!(one == session(2) && one == session(5));
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let folder = Folder::with_ratings();
    folder.succeeds("split ratings.csv --out parts --fraction 0.2 --json");
    let trained =
        json(&folder.succeeds("train als parts/train.csv --out m --factors 4 --iterations 2 --json"));
    assert_eq!((trained["model"].as_str(), trained["version"].as_str()), (Some("m"), Some("1")));
    let evaluated = json(&folder.succeeds("evaluate m --test parts/test.csv --k 3 --json"));
    assert!(evaluated["metrics"]["recall@3"].is_f64() && evaluated["users"].is_u64(), "{evaluated}");
    let recommended = json(&folder.succeeds("recommend m --user u1 --k 2 --json"));
    assert_eq!(recommended["user_id"], "u1");
    assert_eq!(recommended["recommendations"].as_array().unwrap().len(), 2);
    assert!(recommended["recommendations"][0]["item_id"].is_string() && recommended["model_version"] == "1");
    let several = json(&folder.succeeds("recommend m --user u1 --user u2 --json"));
    assert_eq!(several["users"].as_array().unwrap().len(), 2);
    for command in ["inspect m --verify --json", "similar m --item a1 --json", "devices --json"] {
        assert!(json(&folder.succeeds(command)).is_object(), "{command}");
    }
}

#[test]
fn a_bench_measures_kernels_and_wholes_and_leaves_rows() {
    let folder = Folder::new();
    let bench = "bench --device cpu --factors 4 --scale 0.001";
    let object = json(&folder.succeeds(&format!("{bench} --only train --csv rows.csv --json")));
    assert!(object["ceilings"]["gflops"].is_f64() && object["device"] == "cpu", "{object}");
    let operations = object["operations"].as_array().unwrap();
    assert_eq!(operations.len(), 9);
    assert!(operations.iter().all(|one| one["seconds"].as_f64() > Some(0.0)), "{object}");
    let rows = fs_err::read_to_string(folder.at("rows.csv")).unwrap();
    assert!(rows.starts_with("operation,shape,seconds,") && rows.lines().count() == 10, "{rows}");
    let table = folder.succeeds(&format!("{bench} --only gram"));
    assert!(table.lines().any(|line| line.starts_with("gram ") && line.contains('%')), "{table}");
    assert!(folder.screen("bench --only nothing").contains("there are gather, "));
}

#[test]
fn lists_for_many_users_are_the_same_in_every_format() {
    let folder = Folder::with_ratings();
    folder.succeeds("train als ratings.csv --out m --factors 4 --iterations 2");
    let users = folder.succeeds("inspect m --user-ids") + "stranger\n";
    assert_eq!(users.lines().count(), 21);
    folder.write("users.txt", &users);
    let csv = folder.succeeds("recommend m --users-file users.txt --k 3");
    folder.succeeds("recommend m --users-file users.txt --k 3 --output lists.csv");
    assert_eq!(fs_err::read_to_string(folder.at("lists.csv")).unwrap(), csv);
    assert_eq!(csv.lines().filter(|line| line.ends_with(",most_popular")).count(), 3);
    let jsonl = folder.succeeds("recommend m --users-file users.txt --k 3 --output jsonl");
    let mut rows = csv.lines().skip(1);
    for line in jsonl.lines() {
        let list = json(line);
        for item in list["recommendations"].as_array().unwrap() {
            let row: Vec<&str> = rows.next().unwrap().split(',').collect();
            assert_eq!(
                (row[0], row[2]),
                (list["user_id"].as_str().unwrap(), item["item_id"].as_str().unwrap())
            );
            let (score, as_f64) = (row[3].parse::<f32>().unwrap(), item["score"].as_f64().unwrap());
            assert_eq!(score, as_f64 as f32);
        }
    }
    assert_eq!(rows.next(), None);
    folder.succeeds("recommend m --users-file users.txt --k 3 --output lists.parquet");
    assert_eq!(&fs_err::read(folder.at("lists.parquet")).unwrap()[..4], b"PAR1");
    let mut names: Vec<_> =
        fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["items.csv", "lists.csv", "lists.parquet", "m", "ratings.csv", "users.txt"]);
}

#[test]
fn filters_are_kept_to() {
    let folder = Folder::with_ratings();
    folder.succeeds("train als ratings.csv --out m --items items.csv --factors 4 --iterations 2");
    let items = |arguments: &str| -> Vec<String> {
        let answer = json(&folder.succeeds(&format!("recommend m --k 20 --json {arguments}")));
        let list = answer["recommendations"].as_array().unwrap();
        list.iter().map(|item| item["item_id"].as_str().unwrap().to_owned()).collect()
    };
    let seen = fs_err::read_to_string(folder.at("ratings.csv")).unwrap();
    let has_seen = |item: &String| seen.contains(&format!("u1,{item},"));
    let new = items("--user u1");
    assert!(!new.is_empty() && !new.iter().any(has_seen));
    assert_eq!(items("--user u1 --include-seen").len(), 16);
    assert!(!items(&format!("--user u1 --exclude {}", new[0])).contains(&new[0]));
    assert_eq!(items(&format!("--user u1 --allow-items {}", new[1])), [new[1].clone()]);
    assert!(items("--user u1 --where genre='comedy'").iter().all(|item| item.starts_with('a')));
    let of_history = items("--history-items b0,b1");
    assert!(!of_history.contains(&"b0".to_owned()) && of_history[0].starts_with('b'), "{of_history:?}");
}

#[test]
fn a_model_is_extended_by_new_events() {
    let folder = Folder::with_ratings();
    folder.succeeds("train als ratings.csv --out m --items items.csv --factors 4 --iterations 2 --alpha 3");
    folder.write(
        "new.csv",
        "user_id,item_id,rating,timestamp\nu1,b9,5,9000\nnewcomer,b0,4,9001\nnewcomer,b1,4,9002\n",
    );
    folder.succeeds("train als new.csv --out m --from m --iterations 1");
    let inspected = json(&folder.succeeds("inspect m --json"));
    assert_eq!(inspected["version"], "2");
    assert_eq!(inspected["config"]["data"]["users"], 21);
    assert_eq!(inspected["config"]["data"]["items"], 17);
    assert_eq!(inspected["config"]["model"]["alpha"], 3.0, "what is not typed is as it was");
    assert_eq!(inspected["config"]["model"]["iterations"], 1);
    let answer = json(&folder.succeeds("recommend m --user newcomer --k 3 --json"));
    assert!(answer.get("fallback").is_none(), "{answer}");
    assert!(folder.succeeds("inspect m/versions/1").contains("20"), "the version before is still there");
}

#[test]
fn events_go_on_counting_what_they_counted() {
    let folder = Folder::new();
    folder.write("events.csv", "user,item,type,time\na,x,view,1\na,y,buy,2\nb,x,buy,3\nb,y,view,4\n");
    folder.write("more.csv", "user,item,type,time\nc,x,buy,5\nc,y,view,6\n");
    let weights = "--event-weights view=1,buy=10 --repeats max";
    folder.succeeds(&format!("train als events.csv --out m --factors 2 --iterations 1 {weights}"));
    folder.succeeds("train als more.csv --from m --out m");
    let reading = |version: &str| {
        let inspected = json(&folder.succeeds(&format!("inspect {version} --json")));
        inspected["config"]["schema"]["reading"].clone()
    };
    let (first, second) = (reading("m/versions/1"), reading("m/versions/2"));
    assert!(first["event_weights"].is_string() || first["event_weights"].is_object(), "{first}");
    assert_eq!((&first["event_weights"], &first["repeats"]), (&second["event_weights"], &second["repeats"]));
    folder.succeeds("train als more.csv --from m --out m --event-weights view=2,buy=3");
    assert_ne!(reading("m/versions/3")["event_weights"], first["event_weights"], "a flag says otherwise");
    folder.succeeds("train als more.csv --from m --out m --alpha 2");
    let inspected = json(&folder.succeeds("inspect m --json"));
    assert_eq!(inspected["config"]["model"]["alpha"], 2.0);
}

/// A stored als model whose configuration names no weighting has alpha 1, and going on from it does not change that.
#[test]
fn a_model_without_a_named_weighting_keeps_its_objective() {
    let folder = Folder::with_ratings();
    folder.succeeds("train als ratings.csv --out m --factors 2 --iterations 1 --alpha 1");
    let opened = ModelDirectory::open(folder.at("m"), Verify::Full).unwrap();
    let mut config = opened.manifest().config.clone();
    config.model.as_object_mut().unwrap().remove("alpha").unwrap();
    let saved = Saved {
        config: &config,
        parameters: &opened.parameters().unwrap(),
        dataset: &opened.to_dataset().unwrap(),
        item_attributes: None,
        user_attributes: None,
        epochs: &[],
        features: None,
        classes: None,
    };
    save(&folder.at("unnamed"), &saved, 1).unwrap();
    folder.succeeds("train als ratings.csv --from unnamed --out unnamed");
    let inspected = json(&folder.succeeds("inspect unnamed --json"));
    let objective = inspected["config"]["objective"].as_str().unwrap();
    assert!(objective.contains("alpha = 1,"), "{objective}");
}

#[test]
fn what_is_split_and_planned_is_counted() {
    let folder = Folder::with_ratings();
    let told = folder.screen("split ratings.csv --out parts --at 1150");
    let rows = |name: &str| fs_err::read_to_string(folder.at(name)).unwrap().lines().count() - 1;
    for name in ["train", "test"] {
        let line = format!("parts/{name}.csv: {} rows", rows(&format!("parts/{name}.csv")));
        assert!(told.replace('\\', "/").contains(&line), "{line}: {told}");
    }
    let plan = json(&folder.succeeds("train als ratings.csv --dry-run --json"));
    assert_eq!((plan["model"].as_str(), plan["users"].as_u64()), (Some("als"), Some(20)));
    assert!(plan["memory_bytes"].as_u64() > Some(0), "{plan}");
}

#[test]
fn test_rows_that_training_had_are_counted() {
    let folder = Folder::with_ratings();
    folder.succeeds("train most-popular ratings.csv --out m");
    let evaluated = json(&folder.succeeds("evaluate m --test ratings.csv --json"));
    let rows = fs_err::read_to_string(folder.at("ratings.csv")).unwrap().lines().count() as u64 - 1;
    assert_eq!(evaluated["seen_rows"], rows);
    assert!(folder.screen("evaluate m --test ratings.csv").contains("in the history already"));
}

#[test]
fn quiet_is_quiet() {
    let folder = Folder::with_ratings();
    let output = folder.run("train als ratings.csv --out m --factors 2 --iterations 1 --quiet");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", crate::screen::screen(&output));
}

#[test]
fn values_are_predicted() {
    let folder = Folder::with_ratings();
    folder.succeeds("split ratings.csv --out parts --fraction 0.2");
    folder.succeeds("train svd parts/train.csv --out m --factors 2 --iterations 5");
    let evaluated = json(&folder.succeeds("evaluate m --test parts/test.csv --json"));
    assert!(evaluated["metrics"]["rmse"].as_f64().unwrap() < 2.0, "{evaluated}");
    folder.write("rows.csv", "user_id,item_id\nu1,b1\nu1,nothing\nnobody,b1\nnobody,nothing\n");
    let predicted = folder.succeeds("predict m rows.csv");
    let known: Vec<&str> = predicted.lines().skip(1).map(|row| row.rsplit(',').next().unwrap()).collect();
    assert_eq!(known, ["both", "user", "item", "none"]);
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let folder = Folder::with_ratings();
    folder.succeeds("train most-popular ratings.csv --out m");
    // More than a pipe holds, so that the command is still writing when its reader leaves.
    let users: String = (0..20_000).map(|user| format!("stranger{user}\n")).collect();
    folder.write("users.txt", users);
    for output in ["csv", "jsonl"] {
        let mut child = folder
            .command(&format!("recommend m --users-file users.txt --output {output}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{told}");
        assert!(!told.contains("error") && !told.contains("panic"), "{told}");
    }
}
