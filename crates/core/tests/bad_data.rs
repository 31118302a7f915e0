//! Bad input is told with file, line, column, what was expected and what was found; or left out and counted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use recmill_core::Error;
use recmill_core::data::{BadRowKind, OnBadRow, ReadOptions, ReadReport, read_dataset};

fn read_as(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<ReadReport, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    let result = read_dataset(&[path.display().to_string()], options, None).map(|(_, report)| report);
    // The folder's name is different each time.
    result.map_err(|error| match error {
        Error::BadRow(mut bad) => {
            bad.path = name.to_owned();
            Error::BadRow(bad)
        }
        other => other,
    })
}

fn told(text: &[u8], options: &ReadOptions) -> String {
    read_as("f.csv", text, options).unwrap_err().to_string()
}

fn kind(text: &[u8]) -> BadRowKind {
    match read_as("f.csv", text, &ReadOptions::default()) {
        Err(Error::BadRow(bad)) => bad.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_of_bad_row_names_its_place() {
    let long = format!("user,item\na,{}\n", "x".repeat(300));
    let cases: [(&[u8], BadRowKind, &str); 18] = [
        (
            b"user,item,rating\na,b,1\na,b\n",
            BadRowKind::FieldCount,
            "f.csv:3: expected 3 fields, got 2, found `a,b`",
        ),
        (
            b"user,item\na,b\na,b,c",
            BadRowKind::FieldCount,
            "f.csv:3: expected 2 fields, got 3, found `a,b,c`",
        ),
        (b"user,item\n\n,b\n", BadRowKind::EmptyId, "f.csv:3: column `user`: expected an id, found ``"),
        (b"user,item\na,  \n", BadRowKind::EmptyId, "f.csv:2: column `item`: expected an id, found ``"),
        (
            b"user,item,Rating\na,b,five\n",
            BadRowKind::NotANumber,
            "f.csv:2: column `Rating`: expected a number, found `five`",
        ),
        (
            b"user,item,rating\na,b,\n",
            BadRowKind::NotANumber,
            "f.csv:2: column `rating`: expected a number, found ``",
        ),
        (
            b"user,item,rating\r\na,\"b\",1\r\nc,d,five\r\n",
            BadRowKind::NotANumber,
            "f.csv:3: column `rating`: expected a number, found `five`",
        ),
        (
            b"user,item,rating\na,b,NaN\n",
            BadRowKind::NotFinite,
            "f.csv:2: column `rating`: expected a finite number, found `NaN`",
        ),
        (
            b"user,item,rating\na,b,-inf\n",
            BadRowKind::NotFinite,
            "f.csv:2: column `rating`: expected a finite number, found `-inf`",
        ),
        (
            b"user,item,rating\na,b,1e39\n",
            BadRowKind::NotFinite,
            "f.csv:2: column `rating`: expected a finite number, found `1e39`",
        ),
        (
            b"user,item,rating\na,b,-1\n",
            BadRowKind::Negative,
            "f.csv:2: column `rating`: expected a number that is not negative, found `-1`",
        ),
        (
            b"user,item,date\na,b,2024-02-30\n",
            BadRowKind::BadTime,
            "f.csv:2: column `date`: expected seconds or milliseconds since 1970, or a date such as \
             2024-01-31T12:00:00Z, found `2024-02-30`",
        ),
        (
            b"user,item\na,\xff\n",
            BadRowKind::InvalidUtf8,
            "f.csv:2: column `item`: expected UTF-8 text, found `\u{fffd}`",
        ),
        (
            b"user,item\na,b\n\"a\",\"\xc3\"\n",
            BadRowKind::InvalidUtf8,
            "f.csv:3: column `item`: expected UTF-8 text, found `\u{fffd}`",
        ),
        // Each half is no text, though both together would be.
        (
            b"user,item\n\xc3,\xbc\n",
            BadRowKind::InvalidUtf8,
            "f.csv:2: column `user`: expected UTF-8 text, found `\u{fffd}`",
        ),
        (
            b"user,item\n\"a\nb\",c\n\"a,b\n",
            BadRowKind::FieldCount,
            "f.csv:4: expected 2 fields, got 1, found `\"a,b`",
        ),
        (
            b"user,item\nu1,\"i1\nu2,i3\nu3,i4\n",
            BadRowKind::OpenQuote,
            "f.csv:2: expected a second quote before the file ends, found `u1,\"i1",
        ),
        (
            long.as_bytes(),
            BadRowKind::LongId,
            "f.csv:2: column `item`: expected an id of at most 256 bytes, found `xxxxx",
        ),
    ];
    for (text, expected_kind, expected) in cases {
        let told = told(text, &ReadOptions::default());
        assert!(told.starts_with(expected), "{told}\n{expected}");
        assert_eq!(kind(text), expected_kind, "{told}");
    }
}

#[test]
fn the_first_bad_row_of_the_file_is_told_whatever_is_wrong_with_it() {
    let told = told(b"user,item,rating,time\na,b,1,1\na,b,1,soon\na,b,x,1\na,b\n", &ReadOptions::default());
    assert!(told.starts_with("f.csv:3: column `time`"), "{told}");
}

#[test]
fn bad_rows_can_be_left_out_and_are_counted() {
    let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let text = b"user,item,rating\na,b,1\na,b\n,b,1\na,c,x\na,\xff,1\na,d,inf\nx,y,-2\n,b,y\nb,b,2\n";
    let report = read_as("f.csv", text, &options).unwrap();
    assert_eq!((report.rows, report.interactions, report.users, report.items), (9, 2, 2, 1));
    let counts: Vec<_> = report.bad_rows.iter().map(|bad| (bad.kind, bad.rows)).collect();
    let expected = [
        (BadRowKind::FieldCount, 1),
        (BadRowKind::EmptyId, 2),
        (BadRowKind::NotANumber, 1),
        (BadRowKind::InvalidUtf8, 1),
        (BadRowKind::NotFinite, 1),
        (BadRowKind::Negative, 1),
    ];
    assert_eq!(counts, expected);
    assert!(
        report.bad_rows[1].first.to_string().ends_with("f.csv:4: column `user`: expected an id, found ``")
    );
    let all_bad = read_as("f.csv", b"user,item\n,b\n", &options);
    let told = all_bad.unwrap_err().to_string();
    assert!(
        told.contains("f.csv: no row can be used; 1 bad, the first: ")
            && told.contains("f.csv:2: column `user`"),
        "{told}"
    );
}

#[test]
fn a_dislike_is_allowed_on_request() {
    let options = ReadOptions { allow_negative: true, ..ReadOptions::default() };
    assert_eq!(read_as("f.csv", b"user,item,rating\na,b,-1\n", &options).unwrap().interactions, 1);
    assert!(told(b"user,item,rating\na,b,-inf\n", &options).contains("expected a finite number"));
}

#[test]
fn json_lines_tell_line_and_reason() {
    let read =
        |text: &str| read_as("f.jsonl", text.as_bytes(), &ReadOptions::default()).unwrap_err().to_string();
    let good = "{\"user\": 1, \"item\": \"x\", \"rating\": 2}\n";
    for (line, expected) in [
        ("{\"user\": 1,", "f.jsonl:2: expected a JSON object (EOF"),
        ("[1, 2]", "f.jsonl:2: expected a JSON object (invalid type: sequence"),
        ("{\"user\": 1} x", "f.jsonl:2: expected a JSON object (trailing"),
        ("{\"user\": [1], \"item\": 2}", "f.jsonl:2: expected a JSON object (invalid type: sequence"),
        ("{\"user\": 1, \"rating\": 2}", "f.jsonl:2: column `item`: expected an id, found ``"),
        ("{\"user\": 1, \"item\": 2}", "f.jsonl:2: column `rating`: expected a number, found ``"),
    ] {
        let told = read(&format!("{good}{line}\n{good}"));
        assert!(told.starts_with(expected), "{told}\n{expected}");
    }
}

#[test]
fn files_without_rows_are_told_apart() {
    let plain = ReadOptions::default();
    assert!(matches!(read_as("f.csv", b"", &plain), Err(Error::EmptyFile { .. })));
    assert!(matches!(read_as("f.csv", b"\n\n", &plain), Err(Error::EmptyFile { .. })));
    assert!(matches!(read_as("f.csv", b"user,item\n", &plain), Err(Error::NoRows { .. })));
    assert!(matches!(read_as("f.csv", b"user,item", &plain), Err(Error::NoRows { .. })));
    assert!(matches!(read_as("f.jsonl", b"", &plain), Err(Error::EmptyFile { .. })));
    let missing = read_dataset(&["no/such/file.csv".to_owned()], &plain, None).unwrap_err();
    assert!(
        matches!(&missing, Error::Io(_)) && missing.to_string().contains("no/such/file.csv"),
        "{missing}"
    );
    assert!(matches!(read_dataset(&[], &plain, None), Err(Error::NoFiles { .. })));
}

#[test]
fn a_header_that_fits_nothing_tells_what_would() {
    let told_of = |text: &[u8]| told(text, &ReadOptions::default());
    assert!(told_of(b"1,2,3\n4,5,6\n").ends_with(
        "f.csv: no column for the user: expected one of user, userid, uid, username.., found `1, 2, 3`"
    ));
    assert!(told_of(b"user,thing\na,b\n").contains("no column for the item"));
    let options = ReadOptions { no_header: true, ..ReadOptions::default() };
    let report = read_as("f.csv", b"1,2,3\n4,5,6\n", &options).unwrap();
    assert_eq!((report.rows, report.interactions), (2, 2));
    let options = ReadOptions { user_column: Some("who".into()), ..ReadOptions::default() };
    assert!(told(b"user,item\na,b\n", &options).ends_with("f.csv: no column `who` among `user, item`"));
}

#[test]
fn truncated_files_are_told_by_name() {
    use std::io::Write;
    let text: String = (0..5_000).map(|i| format!("user{i},item{},{}\n", i * 7 % 100, i % 5)).collect();
    let text = format!("user,item,rating\n{text}");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let whole = [
        ("f.csv.gz", encoder.finish().unwrap()),
        ("f.csv.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
    ];
    for (name, bytes) in whole {
        assert_eq!(read_as(name, &bytes, &ReadOptions::default()).unwrap().rows, 5_000);
        for keep in [bytes.len() - 1, bytes.len() / 2, 20] {
            let error = read_as(name, &bytes[..keep], &ReadOptions::default()).unwrap_err();
            assert!(matches!(&error, Error::BadFile { path, .. } if path.contains(name)), "{keep}: {error}");
        }
    }
    for name in ["f.parquet", "f.arrow", "f.arrows"] {
        let error = read_as(name, b"PAR1 and then nothing", &ReadOptions::default()).unwrap_err();
        assert!(matches!(&error, Error::BadFile { path, .. } if path.contains(name)), "{error}");
    }
}

#[test]
fn an_event_without_a_weight_is_told_with_those_that_have_one() {
    let options =
        ReadOptions { event_weights: Some("view=1,purchase=10".parse().unwrap()), ..ReadOptions::default() };
    let told_of = told(b"user,item,event\na,b,view\na,b,gift\n", &options);
    assert_eq!(told_of, "f.csv:3: column `event`: expected one of view, purchase, found `gift`");
    assert!(told(b"user,item\na,b\n", &options).contains("no column for the event"));
    let options = ReadOptions { event_column: Some("event".into()), ..ReadOptions::default() };
    assert!(told(b"user,item,event\na,b,view\n", &options).starts_with("event-weights: expected"));
}
