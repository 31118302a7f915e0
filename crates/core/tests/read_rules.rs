//! What reading makes of rows: repeats, events, age, what is too rare, and a dataset that is extended.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use recmill_core::data::{DatasetBuilder, ReadOptions, ReadReport, Repeats, read_dataset};
use recmill_core::{Dataset, Error};

fn try_read(
    text: &str,
    options: &ReadOptions,
    base: Option<Dataset>,
) -> Result<(Dataset, ReadReport), Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.csv");
    fs_err::write(&path, text).unwrap();
    read_dataset(&[path.display().to_string()], options, base)
}

fn read(text: &str, options: &ReadOptions) -> (Dataset, ReadReport) {
    try_read(text, options, None).unwrap()
}

fn value(dataset: &Dataset, user: &str, item: &str) -> Option<f32> {
    let (user, item) = (dataset.users.get(user)?, dataset.items.get(item)?);
    let (items, values) = dataset.by_user().row(user as usize);
    items.binary_search(&item).ok().map(|at| values[at])
}

#[test]
fn repeats_follow_their_rule() {
    let timed = "user,item,rating,time\na,x,1,20\na,x,5,30\na,x,3,10\na,x,3,30\na,y,9,25\n";
    let untimed = "user,item,rating\na,x,1\na,x,5\na,x,3\na,y,9\n";
    for (repeats, with_times, without) in [
        (Repeats::Sum, 12.0, 9.0),
        (Repeats::Last, 3.0, 3.0),
        (Repeats::Max, 5.0, 5.0),
        (Repeats::First, 3.0, 1.0),
        (Repeats::Mean, 3.0, 3.0),
    ] {
        let options = ReadOptions { repeats, ..ReadOptions::default() };
        let (dataset, report) = read(timed, &options);
        assert_eq!(value(&dataset, "a", "x"), Some(with_times), "{repeats}");
        assert_eq!((report.repeats, report.repeated_rows), (repeats, 3));
        // The pair stands where its counted row does: before y when the oldest counts, after it otherwise.
        let (time, order) = if repeats == Repeats::First { (10, [0, 1]) } else { (30, [1, 0]) };
        assert_eq!((dataset.times().unwrap()[0], dataset.order(0)), (time, &order[..]), "{repeats}");
        assert_eq!(value(&read(untimed, &options).0, "a", "x"), Some(without), "{repeats}");
    }
}

#[test]
fn events_count_by_kind_and_age() {
    let text = "user,item,event,time\na,x,view,0\na,x,cart,864000\na,y,view,2592000\nb,x,purchase,2592000\n";
    let options = ReadOptions {
        event_weights: Some("view=1,cart=3,purchase=10".parse().unwrap()),
        half_life: Some("10d".parse().unwrap()),
        ..ReadOptions::default()
    };
    let (dataset, report) = read(text, &options);
    // 30 and 20 days are 3 and 2 half-lives before the newest event.
    assert_eq!(value(&dataset, "a", "x"), Some(1.0 / 8.0 + 3.0 / 4.0));
    assert_eq!((value(&dataset, "a", "y"), value(&dataset, "b", "x")), (Some(1.0), Some(10.0)));
    assert_eq!(report.time_range, Some((864_000, 2_592_000)));
    assert!(report.columns.iter().any(|used| used.role == "event" && used.column == "event"));
    let without_times = try_read("user,item,event\na,x,view\n", &options, None).unwrap_err().to_string();
    assert_eq!(without_times, "half-life: expected a time column, or no half-life, found `10d`");
}

#[test]
fn a_value_column_and_an_event_column_multiply() {
    let options =
        ReadOptions { event_weights: Some("view=1,buy=10".parse().unwrap()), ..ReadOptions::default() };
    let (dataset, _) = read("user,item,type,quantity\na,x,buy,3\na,y,view,2\n", &options);
    assert_eq!((value(&dataset, "a", "x"), value(&dataset, "a", "y")), (Some(30.0), Some(2.0)));
}

#[test]
fn low_ratings_are_left_out_before_anything_else() {
    let options = ReadOptions { min_rating: Some(4.0), ..ReadOptions::default() };
    let (dataset, report) = read("user,item,rating\na,x,3\na,x,3\na,y,4\nb,x,3.9\n", &options);
    assert_eq!((dataset.n_users(), dataset.n_items(), report.rows_below_min_rating), (1, 1, 3));
    assert_eq!(value(&dataset, "a", "y"), Some(4.0));
}

#[test]
fn rare_users_and_items_go_until_none_is_left() {
    // A chain that falls from its end, a square that holds, and a user who has enough only by repeats.
    let chain = "a,1\nb,1\nb,2\nc,2\nc,3\nd,3\nd,4\n";
    let square = "p,8\np,9\nq,9\nq,8\nr,8\nr,8\n";
    let text = format!("user,item\n{chain}{square}");
    let options =
        ReadOptions { min_user_interactions: 2, min_item_interactions: 2, ..ReadOptions::default() };
    let (dataset, report) = read(&text, &options);
    assert_eq!(dataset.users.iter().collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(dataset.items.iter().collect::<Vec<_>>(), ["8", "9"]);
    assert_eq!((report.dropped_users, report.dropped_items, report.dropped_interactions), (5, 4, 8));
    assert_eq!((dataset.users.get("a"), dataset.users.get("q")), (None, Some(1)));
    assert_eq!((dataset.order(0), dataset.order(1)), (&[0u32, 1][..], &[1u32, 0][..]));
    assert_eq!(dataset.by_user().row(1), (&[0u32, 1][..], &[1.0f32, 1.0][..]));
    let options = ReadOptions { min_user_interactions: 3, ..options };
    assert!(matches!(try_read(&text, &options, None), Err(Error::NoRows { .. })));
}

#[test]
fn left_out_rows_agree_with_a_naive_core() {
    let rows = |seed: u32| {
        (0..300u32).map(move |i| {
            let x = i.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 7;
            (x % 40, x / 40 % 30)
        })
    };
    for seed in 0..20 {
        let mut left: Vec<(u32, u32)> = rows(seed).collect();
        left.sort_unstable();
        left.dedup();
        loop {
            let enough = |pair: &(u32, u32)| {
                left.iter().filter(|other| other.0 == pair.0).count() >= 6
                    && left.iter().filter(|other| other.1 == pair.1).count() >= 7
            };
            let kept: Vec<_> = left.iter().copied().filter(enough).collect();
            if kept.len() == left.len() {
                break;
            }
            left = kept;
        }
        let mut builder = DatasetBuilder::new(Repeats::Max, None, None).unwrap();
        rows(seed).for_each(|(user, item)| {
            builder.push_one(&user.to_string(), &item.to_string(), 1.0, None).unwrap()
        });
        let dataset = builder.finish(6, 7).unwrap().dataset;
        let mut got = Vec::new();
        for user in 0..dataset.n_users() {
            for &item in dataset.by_user().row(user).0 {
                let number = |name: Option<&str>| name.unwrap().parse::<u32>().unwrap();
                got.push((number(dataset.users.name(user as u32)), number(dataset.items.name(item))));
            }
        }
        got.sort_unstable();
        assert_eq!(got, left, "{seed}");
    }
}

const OLD: &str = "user,item,rating,time\na,x,1,10\nb,y,2,20\na,y,3,30\n";
const NEW: &str = "c,z,4,50\na,x,5,40\nb,x,6,5\na,z,7,15\n";

#[test]
fn extending_is_reading_both_at_once() {
    let new = format!("user,item,rating,time\n{NEW}");
    for repeats in [Repeats::Sum, Repeats::Last, Repeats::Max, Repeats::First] {
        for half_life in [None, Some("10s".parse().unwrap())] {
            let options = ReadOptions { repeats, half_life, ..ReadOptions::default() };
            let both = read(&format!("{OLD}{NEW}"), &options).0;
            let base = read(OLD, &options).0;
            let (extended, report) = try_read(&new, &options, Some(base)).unwrap();
            assert_eq!(extended.users.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
            assert_eq!(extended.items.iter().collect::<Vec<_>>(), ["x", "y", "z"]);
            assert_eq!(extended.by_user(), both.by_user(), "{repeats}");
            assert_eq!(extended.fingerprint(), both.fingerprint(), "{repeats}");
            assert_eq!((report.rows, report.repeated_rows, report.interactions), (4, 1, 6));
        }
    }
    let options = ReadOptions { repeats: Repeats::Mean, ..ReadOptions::default() };
    assert!(matches!(try_read(&new, &options, Some(read(OLD, &options).0)), Err(Error::BadOption { .. })));
}

#[test]
fn what_was_there_keeps_its_index_whatever_is_left_out() {
    let base = read(OLD, &ReadOptions::default()).0;
    let options =
        ReadOptions { min_user_interactions: 3, min_item_interactions: 3, ..ReadOptions::default() };
    let new = format!("user,item,rating,time\n{NEW}b,w,1,1\na,w,1,1\ne,w,1,1\n");
    let (extended, report) = try_read(&new, &options, Some(base)).unwrap();
    assert_eq!(extended.users.iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(extended.items.iter().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!((report.dropped_users, report.dropped_items), (2, 2));
    assert_eq!(value(&extended, "a", "x"), Some(6.0));
}

#[test]
fn times_that_only_some_files_have_are_dropped_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
    fs_err::write(&a, "user,item,time\na,x,20\na,y,10\n").unwrap();
    fs_err::write(&b, "user,item\na,z\n").unwrap();
    for inputs in [[&a, &b], [&b, &a]] {
        let inputs = inputs.map(|path| path.display().to_string());
        let (dataset, report) = read_dataset(&inputs, &ReadOptions::default(), None).unwrap();
        assert!(dataset.times().is_none() && report.dropped_times);
        assert_eq!(dataset.order(0), [0, 1, 2]);
    }
}

/// Rows enough to be merged early several times, with all pairs repeated.
#[test]
fn merging_early_changes_nothing() {
    for repeats in [Repeats::Sum, Repeats::Last, Repeats::Max, Repeats::First, Repeats::Mean] {
        let mut builder = DatasetBuilder::new(repeats, None, None).unwrap();
        let (n_users, n_items, rounds) = (300u32, 100u32, 110u32);
        let mut expected = vec![Vec::new(); (n_users * n_items) as usize];
        let ids: Vec<String> = (0..n_users).map(|id| id.to_string()).collect();
        for round in 0..rounds {
            for pair in 0..n_users * n_items {
                // Small whole numbers, so that sums are exact in any order.
                let value = (pair.wrapping_mul(2_654_435_761).wrapping_add(round * 977) >> 9) % 8;
                let time = i64::from((pair + round * 31) % 64);
                let (user, item) = (&ids[(pair / n_items) as usize], &ids[(pair % n_items) as usize]);
                builder.push_one(user, item, value as f32, Some(time)).unwrap();
                expected[pair as usize].push((time, round, value));
            }
        }
        let built = builder.finish(0, 0).unwrap();
        assert_eq!(built.repeated_rows, u64::from(n_users * n_items * (rounds - 1)));
        let dataset = built.dataset;
        for (pair, rows) in expected.iter().enumerate() {
            let sum = rows.iter().map(|row| row.2).sum::<u32>() as f32;
            let wanted = match repeats {
                Repeats::Sum => sum,
                Repeats::Mean => sum / rows.len() as f32,
                Repeats::Max => rows.iter().map(|row| row.2).max().unwrap() as f32,
                Repeats::Last => rows.iter().max().unwrap().2 as f32,
                Repeats::First => rows.iter().min().unwrap().2 as f32,
            };
            assert_eq!(dataset.by_user().values()[pair], wanted, "{repeats} {pair}");
        }
        for user in 0..dataset.n_users() {
            let times = &dataset.times().unwrap()[dataset.by_user().range(user)];
            assert!(
                dataset.order(user).windows(2).all(|pair| times[pair[0] as usize] <= times[pair[1] as usize])
            );
        }
    }
}
