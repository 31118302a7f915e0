//! The models that read the order of events, through the command; and vectors for other systems.

use arrow::array::{Array, FixedSizeListArray, Float32Array, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::screen::{Folder, assert_screen, filters};

const TINY: &str =
    "--factors 16 --feed-forward 16 --batch-size 16 --learning-rate 0.01 --dropout 0.1 --device cpu";

/// Users who go around a circle of items, half of them the other way.
fn walks() -> Folder {
    let folder = Folder::new();
    let mut text = String::from("user,item,time\n");
    for user in 0..48 {
        let step = if user % 2 == 0 { 1 } else { 11 };
        for at in 0..7 {
            text += &format!("u{user},i{},{}\n", (user / 2 + at * step) % 12, 100 + at);
        }
    }
    folder.write("walks.csv", text);
    folder
}

fn first(folder: &Folder, arguments: &str) -> String {
    let answer: Value = serde_json::from_str(&folder.succeeds(arguments)).unwrap();
    answer["recommendations"][0]["item_id"].as_str().unwrap().to_owned()
}

#[test]
fn what_comes_next_depends_on_the_order() {
    let folder = walks();
    let screen = folder.screen(&format!("train sasrec walks.csv --out model --refit --iterations 30 {TINY}"));
    let mut filters: Vec<(&str, &str)> = filters();
    filters.extend([
        (r"\d\.\d{2,}", "[NUMBER]"),
        (r"(?m)^epoch .*\n", ""),
        (r"\b\d+ (epochs|of 30)", "[N] $1"),
    ]);
    filters.extend([(r"(?m)^stopped: .*\n", ""), (r"keeping epoch \d+ of \d+", "keeping epoch [N] of [N]")]);
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!("sasrec-train", screen);
    });
    // Forwards and backwards, and for a user of the data, whose last event was held out and is had all the same.
    assert_eq!(first(&folder, "recommend model --history-items i2,i3,i4,i5 --k 1 --json"), "i6");
    assert_eq!(first(&folder, "recommend model --history-items i9,i8,i7,i6 --k 1 --json"), "i5");
    assert_eq!(first(&folder, "recommend model --user u0 --k 1 --json"), "i7");
    // Newer events replace what was learned from, in their own order.
    folder.write("newer.csv", "user,item,time\nu0,i4,9\nu0,i3,10\nu0,i5,8\nu0,i6,7\n");
    folder.write("test.csv", "user,item\nu0,i2\n");
    let evaluate = "evaluate model --test test.csv --k 1 --json";
    let hits = |extra: &str| -> f64 {
        let found: Value = serde_json::from_str(&folder.succeeds(&format!("{evaluate} {extra}"))).unwrap();
        found["metrics"]["hr@1"].as_f64().unwrap()
    };
    assert_eq!((hits(""), hits("--history newer.csv")), (0.0, 1.0));
    let goes_on = format!("train sasrec walks.csv --from model --out model --iterations 2 {TINY}");
    folder.succeeds(&goes_on);
    assert_screen!("sasrec-from-fewer-layers", folder.screen(&format!("{goes_on} --layers 1 --quiet")));
    assert_screen!("sasrec-from-other", folder.screen(&format!("{goes_on} --max-length 20 --quiet")));
}

#[test]
fn gru4rec_goes_the_same_ways() {
    let folder = walks();
    let tiny = "--factors 16 --hidden 24 --batch-size 16 --learning-rate 0.01 --dropout 0.1 --device cpu";
    let train = format!("train gru4rec walks.csv --out model {tiny}");
    folder.succeeds(&format!("{train} --refit --iterations 40 --quiet"));
    assert_eq!(first(&folder, "recommend model --history-items i2,i3,i4,i5 --k 1 --json"), "i6");
    assert_eq!(first(&folder, "recommend model --history-items i9,i8,i7,i6 --k 1 --json"), "i5");
    let goes_on = format!("{train} --from model --iterations 2");
    folder.succeeds(&goes_on);
    assert_screen!("gru4rec-from-more-layers", folder.screen(&format!("{goes_on} --layers 2 --quiet")));
    assert_screen!(
        "gru4rec-no-layers",
        folder.screen("train gru4rec walks.csv --out model --layers 0 --hidden 0")
    );
    assert_screen!("gru4rec-dry-run", folder.screen(&format!("{train} --dry-run")));
}

#[test]
fn without_times_the_order_of_the_file_counts_and_that_is_said() {
    let folder = Folder::new();
    folder.write("walks.csv", "user,item\nu0,i0\nu0,i1\nu0,i2\nu1,i1\nu1,i2\nu1,i0\n");
    let screen = folder.screen("train gru4rec walks.csv --out model --dry-run --device cpu --holdout 0");
    assert_screen!("sequences-without-times", screen);
}

#[test]
fn flags_that_fit_no_model_are_refused() {
    let folder = walks();
    assert_screen!("sasrec-holdout-of-als", folder.screen("train als walks.csv --out model --holdout 0.1"));
    assert_screen!("sasrec-holdout-range", folder.screen("train sasrec walks.csv --out model --holdout 2"));
    assert_screen!(
        "sasrec-refit-alone",
        folder.screen("train sasrec walks.csv --out model --holdout 0 --refit")
    );
    let both = "train sasrec walks.csv --out model --refit --valid walks.csv";
    assert_screen!("sasrec-refit-valid", folder.screen(both));
    assert_screen!("sasrec-heads", folder.screen("train sasrec walks.csv --out model --heads 3"));
    folder.write("ones.csv", "user,item\nu0,i0\nu1,i1\n");
    assert_screen!("sasrec-nothing-follows", folder.screen("train sasrec ones.csv --out model --device cpu"));
}

#[test]
fn vectors_are_written_for_other_systems() {
    let folder = walks();
    folder.succeeds(&format!("train sasrec walks.csv --out model --iterations 1 {TINY}"));
    assert_screen!("export-sasrec", folder.screen("export model --vectors items.parquet"));
    let file = fs_err::File::open(folder.at("items.parquet")).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let ids = batches[0].column(0).as_any().downcast_ref::<StringArray>().unwrap();
    let vectors = batches[0].column(1).as_any().downcast_ref::<FixedSizeListArray>().unwrap();
    assert_eq!((batches.len(), ids.len(), ids.value(0), vectors.value_length()), (1, 12, "i0", 16));
    let vector = vectors.value(3);
    let vector = vector.as_any().downcast_ref::<Float32Array>().unwrap();
    assert!(vector.values().iter().all(|value| value.is_finite() && *value != 0.0));

    folder.succeeds("train bpr walks.csv --out bpr --factors 4 --iterations 1 --device cpu");
    folder.succeeds("export bpr --vectors items.parquet --user-vectors users.parquet");
    assert!(folder.at("users.parquet").exists());
    let twice = folder.run("export bpr --vectors same.parquet --user-vectors ./same.parquet");
    assert_eq!(twice.status.code(), Some(2));
    assert_screen!("export-users-of-sasrec", folder.screen("export model --user-vectors none.parquet"));
    folder.succeeds("train most-popular walks.csv --out popular");
    assert_screen!("export-popular", folder.screen("export popular --vectors none.parquet"));
    assert_screen!("export-nowhere", folder.screen("export model --vectors nowhere/items.parquet"));
    assert!(!folder.at("none.parquet").exists());
}
