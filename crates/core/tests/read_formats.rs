//! Every format, compressed or not, from a file, a directory, a stream or a store, gives the same dataset.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, LargeStringArray, RecordBatch, TimestampMillisecondArray,
};
use recmill_core::Dataset;
use recmill_core::data::{Format, MemorySource, ReadOptions, ReadReport, read_dataset, read_sources};

const ROWS: [(&str, &str, f64, i64); 5] = [
    ("ann", "10", 1.0, 1_600_000_300),
    ("bob", "20", 2.5, 1_600_000_200),
    ("ann", "20", 3.0, 1_600_000_100),
    ("ann", "10", 4.0, 1_600_000_000),
    ("cyd", "30", 0.0, 1_600_000_400),
];

fn csv(delimiter: &str) -> String {
    let mut text = ["user", "item", "rating", "timestamp"].join(delimiter) + "\n";
    for (user, item, value, time) in ROWS {
        text += &[user, item, &value.to_string(), &time.to_string()].join(delimiter);
        text += "\n";
    }
    text
}

fn json_lines() -> String {
    // Other keys, other orders, integer ids and times as text make no difference.
    let line = |(at, (user, item, value, time)): (usize, (&str, &str, f64, i64))| match at % 2 {
        0 => format!(
            "{{\"user\":\"{user}\",\"item\":{item},\"rating\":{value},\"timestamp\":{time},\"x\":[1,{{}}]}}\n"
        ),
        _ => format!(
            "{{\"timestamp\":\"{time}\",\"rating\":{value:.3},\"item\":\"{item}\",\"user\":\"{user}\"}}\n\n"
        ),
    };
    ROWS.into_iter().enumerate().map(line).collect()
}

fn batch() -> RecordBatch {
    let users = LargeStringArray::from_iter_values(ROWS.map(|row| row.0));
    let items = Int64Array::from_iter_values(ROWS.map(|row| row.1.parse().unwrap()));
    let values = Float64Array::from_iter_values(ROWS.map(|row| row.2));
    let times = TimestampMillisecondArray::from_iter_values(ROWS.map(|row| row.3 * 1_000 + 999));
    RecordBatch::try_from_iter([
        ("timestamp", Arc::new(times) as ArrayRef),
        ("extra", Arc::new(Float64Array::from(vec![0.0; ROWS.len()])) as ArrayRef),
        ("Item", Arc::new(items) as ArrayRef),
        ("rating", Arc::new(values) as ArrayRef),
        ("USER_ID", Arc::new(users) as ArrayRef),
    ])
    .unwrap()
}

fn parquet() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch().schema(), None).unwrap();
    writer.write(&batch()).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow_file() -> Vec<u8> {
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch().schema()).unwrap();
    writer.write(&batch()).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn arrow_stream() -> Vec<u8> {
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch().schema()).unwrap();
    writer.write(&batch()).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn read(path: &Path, options: &ReadOptions) -> (Dataset, ReadReport) {
    read_dataset(&[path.display().to_string()], options, None).unwrap()
}

fn assert_is_the_data(dataset: &Dataset, what: &str) {
    assert_eq!(dataset.users.iter().collect::<Vec<_>>(), ["ann", "bob", "cyd"], "{what}");
    assert_eq!(dataset.items.iter().collect::<Vec<_>>(), ["10", "20", "30"], "{what}");
    assert_eq!(dataset.by_user().row(0), (&[0u32, 1][..], &[5.0f32, 3.0][..]), "{what}");
    assert_eq!(dataset.by_user().row(1), (&[1u32][..], &[2.5f32][..]), "{what}");
    assert_eq!(dataset.by_user().row(2), (&[2u32][..], &[0.0f32][..]), "{what}");
    let expected = [1_600_000_300, 1_600_000_100, 1_600_000_200, 1_600_000_400];
    assert_eq!(dataset.times(), Some(&expected[..]), "{what}");
    assert_eq!((dataset.order(0), dataset.order(1)), (&[1u32, 0][..], &[0u32][..]), "{what}");
}

#[test]
fn every_format_gives_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let plain: [(&str, Vec<u8>); 8] = [
        ("a.csv", csv(",").into_bytes()),
        ("a.tsv", csv("\t").into_bytes()),
        ("semicolons.csv", csv(";").into_bytes()),
        ("windows.csv", csv(",").replace('\n', "\r\n").into_bytes()),
        ("a.jsonl", json_lines().into_bytes()),
        ("a.parquet", parquet()),
        ("a.arrow", arrow_file()),
        ("stream.arrows", arrow_stream()),
    ];
    let mut fingerprints = Vec::new();
    for (name, bytes) in plain {
        let stem = name.split('.').next().unwrap();
        // The ending need not say what the first bytes do.
        let files = [
            (name.to_owned(), bytes.clone()),
            (format!("{name}.gz"), gzip(&bytes)),
            (format!("{name}.zst"), zstd(&bytes)),
            (format!("{name}.zst.gz.data"), zstd(&bytes)),
        ];
        for (file, bytes) in files {
            if file.ends_with(".data") && stem != "a" || file.starts_with("a.tsv.zst.gz.data") {
                continue;
            }
            let path = folder.path().join(&file);
            fs_err::write(&path, bytes).unwrap();
            let (dataset, report) = read(&path, &ReadOptions::default());
            assert_is_the_data(&dataset, &file);
            assert_eq!((report.rows, report.repeated_rows, report.interactions), (5, 1, 4), "{file}");
            fingerprints.push(report.fingerprint);
        }
    }
    assert!(fingerprints.windows(2).all(|pair| pair[0] == pair[1]) && fingerprints[0].len() == 64);
}

#[test]
fn a_format_that_nothing_tells_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    fs_err::write(&path, csv("\t")).unwrap();
    // A header without a comma but with tabs is enough.
    assert_is_the_data(&read(&path, &ReadOptions::default()).0, "found");
    assert_is_the_data(
        &read(&path, &ReadOptions { format: Some(Format::Tsv), ..Default::default() }).0,
        "named",
    );
    fs_err::write(&path, csv("^")).unwrap();
    assert_is_the_data(
        &read(&path, &ReadOptions { delimiter: Some('^'), ..Default::default() }).0,
        "delimiter",
    );
    fs_err::write(&path, json_lines()).unwrap();
    assert_is_the_data(&read(&path, &ReadOptions::default()).0, "json");
}

#[test]
fn several_files_are_one_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let text = csv(",");
    let lines: Vec<&str> = text.lines().collect();
    fs_err::write(folder.path().join("1.csv"), lines[..3].join("\n")).unwrap();
    let second = format!("{}\n{}\n", lines[0], lines[3..].join("\n"));
    fs_err::write(folder.path().join("2.csv.gz"), gzip(second.as_bytes())).unwrap();
    for input in [folder.path().to_path_buf(), folder.path().join("*.csv*")] {
        let (dataset, report) = read(&input, &ReadOptions::default());
        assert_is_the_data(&dataset, &input.display().to_string());
        assert_eq!(report.sources.len(), 2);
    }
    let url = format!("file://{}", folder.path().join("1.csv").display());
    if cfg!(unix) {
        assert_eq!(read_dataset(&[url], &ReadOptions::default(), None).unwrap().1.rows, 2);
    }
}

#[test]
fn batches_of_the_caller_are_a_source() {
    let source = MemorySource::new("mine", batch().schema(), vec![batch().slice(0, 2), batch().slice(2, 3)]);
    let (dataset, report) = read_sources(vec![Box::new(source)], &ReadOptions::default(), None).unwrap();
    assert_is_the_data(&dataset, "batches");
    assert_eq!(report.sources, ["mine"]);
    let told: Vec<String> =
        report.columns.iter().map(|used| format!("{} {}", used.role, used.column)).collect();
    assert_eq!(told, ["user USER_ID", "item Item", "value rating", "time timestamp"]);
}

#[test]
fn quotes_and_plain_blocks_agree() {
    // Long enough for several blocks, with quotes in a few of them, line ends within quotes and empty lines.
    let mut text = String::from("\u{feff}user,item,note,rating\r\n");
    let mut plain = String::from("user,item,note,rating\n");
    for i in 0..60_000 {
        let quoted = i % 20_000 == 7_000;
        let (user, item) = (format!("u{}", i % 977), format!("i{}", i % 1_009));
        if quoted {
            text += &format!("\"{user}\",\"{item}\",\"a \"\"b\"\",\r\n\nc\",{}.5\r\n\r\n", i % 5);
        } else {
            text += &format!("{user},{item},x,{}.5\n", i % 5);
        }
        plain += &format!("{user},{item},x,{}.5\n", i % 5);
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
    fs_err::write(&a, &text).unwrap();
    fs_err::write(&b, plain).unwrap();
    let (a, b) = (read(&a, &ReadOptions::default()).1, read(&b, &ReadOptions::default()).1);
    assert_eq!((a.rows, a.fingerprint), (60_000, b.fingerprint));
    // A bad row after all of that is told with the line that an editor shows.
    text += "u1,i1,x\n";
    let line = text.lines().count();
    let path = folder.path().join("c.csv");
    fs_err::write(&path, text).unwrap();
    let told =
        read_dataset(&[path.display().to_string()], &ReadOptions::default(), None).unwrap_err().to_string();
    assert!(told.contains(&format!("c.csv:{line}: expected 4 fields, got 3")), "{told}");
}
