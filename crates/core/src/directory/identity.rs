//! Saving and opening is the identity, for any data and parameters, however they are cut into tensors and files.

use proptest::prelude::*;
use recmill_kernels::{Buffer, Device, RowType, Rows, Table};

use crate::{
    Csr, Dataset, IdMap, ItemIndex, Parameter, Parameters, UserIndex,
    directory::{Config, Disk, ModelDirectory, Saved, Verify, save::save_in_sizes, stored::Sizes},
};

/// Interactions with rows of any length, items in any time order.
fn dataset() -> impl Strategy<Value = Dataset> {
    let id = prop_oneof![3 => "[a-c]{0,4}", 1 => "\\PC{0,6}"];
    let ids = || prop::collection::btree_set(id.clone(), 0..9).prop_shuffle_into();
    (ids(), ids(), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
        |(users, items, seed, with_times, with_values)| {
            make_dataset(&users, &items, seed, with_times, with_values)
        },
    )
}

/// Turns a set into a list in any order.
trait ShuffleInto {
    fn prop_shuffle_into(self) -> impl Strategy<Value = Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>>> ShuffleInto for S {
    fn prop_shuffle_into(self) -> impl Strategy<Value = Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
    }
}

fn make_dataset(
    users: &[String],
    items: &[String],
    seed: u64,
    with_times: bool,
    with_values: bool,
) -> Dataset {
    let mut state = seed;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let (mut indptr, mut indices, mut values, mut times, mut order) =
        (vec![0], vec![], vec![], vec![], vec![]);
    for _ in users {
        let row: Vec<u32> = (0..items.len() as u32).filter(|_| draw(2) == 0).collect();
        let mut places: Vec<u32> = (0..row.len() as u32).collect();
        for i in (1..places.len()).rev() {
            places.swap(i, draw(i as u64 + 1) as usize);
        }
        for item in row {
            indices.push(item);
            values.push(if with_values { draw(9) as f32 - 3.5 } else { 1.0 });
            times.push(draw(u64::MAX >> 33) as i64 - 100);
        }
        order.extend(places);
        indptr.push(indices.len() as u64);
    }
    let ids = |names: &[String]| {
        let mut ids = IdMap::default();
        names.iter().for_each(|name| _ = ids.get_or_insert(name).unwrap());
        ids
    };
    let by_user = Csr::new(items.len(), indptr, indices, values).unwrap();
    Dataset::new(ids(users), ids(items), by_user, with_times.then_some(times), order).unwrap()
}

/// A table of any type, its chunks of another size than the stored ones.
fn table() -> impl Strategy<Value = Table> {
    (0u64..40, 1usize..5, 0u32..6, 0..4).prop_map(|(rows, dim, chunk_bits, kind)| {
        let numbers: Vec<f32> = (0..rows * dim as u64).map(|i| i as f32 / 4.0 - 3.0).collect();
        let wide = Table::from_f32_in_chunks(&numbers, dim, 1 << chunk_bits, Device::Cpu, "a test").unwrap();
        match kind {
            0 => wide,
            1 => wide.to_row_type(RowType::F16, "a test").unwrap(),
            2 => wide.to_row_type(RowType::Bf16, "a test").unwrap(),
            _ => {
                let chunks = (0..rows).step_by(1 << chunk_bits).map(|first| {
                    let rows = (rows - first).min(1 << chunk_bits) as usize;
                    let values = (0..rows * dim).map(|i| i as i8).collect();
                    let scale = (0..rows).map(|i| i as f32 + first as f32).collect();
                    Rows::Int8(
                        Buffer::from_vec(values, "a test").unwrap(),
                        Buffer::from_vec(scale, "a test").unwrap(),
                    )
                });
                Table::from_chunks(dim, 1 << chunk_bits, RowType::Int8, Device::Cpu, chunks.collect())
                    .unwrap()
            }
        }
    })
}

fn assert_same(got: &Parameters, expected: &Parameters) {
    let names =
        |parameters: &Parameters| parameters.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(got), names(expected));
    for ((name, got), (_, expected)) in got.iter().zip(expected.iter()) {
        match (got, expected) {
            (Parameter::Table(got), Parameter::Table(expected)) => {
                assert_eq!(
                    (got.rows(), got.dim(), got.row_type()),
                    (expected.rows(), expected.dim(), expected.row_type())
                );
                assert_eq!(got.to_f32().unwrap(), expected.to_f32().unwrap(), "{name}");
            }
            (Parameter::U32(got), Parameter::U32(expected)) => {
                assert_eq!(got.to_vec().unwrap(), expected.to_vec().unwrap(), "{name}");
            }
            other => panic!("{name} has changed its type: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_is_saved_comes_back(
        dataset in dataset(),
        tables in prop::collection::vec(table(), 0..4),
        array in prop::collection::vec(any::<u32>(), 0..50),
        tensor_bytes in 8u64..200,
        file_bytes in 1u64..500,
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut parameters = Parameters::default();
        let stored_tables = tables.len();
        for (at, table) in tables.into_iter().enumerate() {
            parameters.insert(&format!("table_{at}"), Parameter::Table(table));
        }
        parameters.insert("array", Parameter::U32(Buffer::from_vec(array, "a test").unwrap()));
        let config = Config { model: serde_json::json!({"model": "any"}), ..Config::default() };
        let saved = Saved {
            config: &config,
            parameters: &parameters,
            dataset: &dataset,
            item_attributes: None,
            user_attributes: None,
            epochs: &[],
            features: None,
            classes: None,
        };
        let sizes = Sizes { tensor_bytes, file_bytes };
        save_in_sizes(&Disk::default(), root.path(), &saved, 1, sizes).unwrap();
        let opened = ModelDirectory::open(root.path(), Verify::Full).unwrap();

        assert_same(&opened.parameters().unwrap(), &parameters);
        prop_assert_eq!(opened.manifest().tables.len(), stored_tables);
        let again = opened.to_dataset().unwrap();
        prop_assert_eq!(again.by_user(), dataset.by_user());
        prop_assert_eq!(again.times(), dataset.times());
        for (got, expected) in [(&again.users, &dataset.users), (&again.items, &dataset.items)] {
            prop_assert_eq!(got.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        }
        for (index, name) in dataset.items.iter().enumerate() {
            prop_assert_eq!(opened.items().index(name), Some(index as u32));
        }
        let mut sorted = Vec::new();
        for user in 0..dataset.n_users() {
            prop_assert_eq!(again.order(user), dataset.order(user));
            opened.history().sorted_items(UserIndex(user as u32), &mut sorted).unwrap();
            let expected = dataset.by_user().row(user).0.iter().copied().map(ItemIndex);
            prop_assert!(sorted.iter().copied().eq(expected));
        }
    }
}

#[test]
fn rows_are_cut_into_ranges_and_files() {
    let root = tempfile::tempdir().unwrap();
    let mut parameters = Parameters::default();
    let numbers: Vec<f32> = (0..30).map(|i| i as f32).collect();
    let table = |dim| Table::from_f32(&numbers, dim, Device::Cpu, "a test").unwrap();
    parameters.insert("a", Parameter::Table(table(3)));
    parameters.insert("b", Parameter::Table(table(5)));
    let dataset = make_dataset(&[], &[], 0, false, false);
    let config = Config::default();
    let (item_attributes, user_attributes, epochs) = (None, None, &[][..]);
    let saved = Saved {
        config: &config,
        parameters: &parameters,
        dataset: &dataset,
        item_attributes,
        user_attributes,
        epochs,
        features: None,
        classes: None,
    };
    let sizes = Sizes { tensor_bytes: 4 * 3 * 4, file_bytes: 100 };
    save_in_sizes(&Disk::default(), root.path(), &saved, 1, sizes).unwrap();
    let opened = ModelDirectory::open(root.path(), Verify::Full).unwrap();
    let ranges = |name: &str| {
        let ranges = &opened.manifest().tables[name].ranges;
        ranges.iter().map(|range| (range.first, range.rows, range.file.clone())).collect::<Vec<_>>()
    };
    let (one, two, three) = ("model.safetensors", "model-2.safetensors", "model-3.safetensors");
    assert_eq!(ranges("a"), [(0, 4, one.into()), (4, 4, one.into()), (8, 2, two.into())]);
    assert_eq!(ranges("b"), [(0, 2, two.into()), (2, 2, three.into()), (4, 2, three.into())]);
    assert_same(&opened.parameters().unwrap(), &parameters);
}
