//! New interactions continue an earlier model: its users, items and what it learnt are kept.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::sync::atomic::AtomicBool;

use recmill_core::{Dataset, Parameters, models::ModelConfig};
use recmill_train::{Error, Trained, Training};

use examples::{all_models, bytes, dataset, taste_groups};

fn train(config: &ModelConfig, data: &Dataset, start: Option<Parameters>) -> Result<Trained, Error> {
    Training { start, ..Training::new(config, data) }.run(None, &AtomicBool::new(false), &mut ())
}

/// The whole data, and the part that an earlier model saw: fewer users, fewer items, fewer interactions of each.
fn in_two_parts() -> (Dataset, Dataset) {
    let (n_users, n_items) = (300, 90);
    let both = taste_groups(n_users, n_items);
    let entries: Vec<_> = (0..n_users)
        .flat_map(|user| {
            let (items, values) = both.by_user().row(user);
            items.iter().zip(values).map(move |(&item, &value)| (user, item as usize, value))
        })
        .collect();
    let seen = |&&(user, item, _): &&(usize, usize, f32)| user < 250 && item < 80 && (user + item) % 9 != 0;
    let earlier: Vec<_> = entries.iter().filter(seen).copied().collect();
    (dataset(250, 80, &earlier), dataset(n_users, n_items, &entries))
}

#[test]
fn a_warm_start_takes_up_where_the_earlier_model_was() {
    let (earlier, both) = in_two_parts();
    for config in all_models() {
        let first = train(&config, &earlier, None).unwrap();
        let cold = train(&config, &both, None).unwrap();
        let warm = train(&config, &both, Some(first.model.parameters().unwrap())).unwrap();
        let name = config.name();
        assert_eq!(warm.model.n_items(), 90, "{name}");
        assert_eq!(warm.model.n_users(), cold.model.n_users(), "{name}");
        match (cold.epochs[0].loss, warm.epochs[0].loss) {
            (Some(cold_first), Some(warm_first)) => {
                let last = cold.epochs.last().unwrap().loss.unwrap();
                let progress = (cold_first - warm_first) / (cold_first - last);
                assert!(progress > 0.5, "{name}: the first warm epoch is {progress} of the way");
                let warm_last = warm.epochs.last().unwrap().loss.unwrap();
                assert!(warm_last < last * 1.02, "{name}: {warm_last} against {last} from both at once");
            }
            _ => assert!(
                bytes(&warm.model.parameters().unwrap()) == bytes(&cold.model.parameters().unwrap()),
                "{name} in closed form is that of both at once"
            ),
        }
    }
}

#[test]
fn a_model_that_cannot_be_continued_is_refused() {
    let (earlier, both) = in_two_parts();
    for config in all_models().iter().filter(|config| {
        ["als", "bpr", "lmf", "warp", "mf", "neumf", "svd", "sasrec", "gru4rec", "two-tower"]
            .contains(&config.name())
    }) {
        let large = train(config, &both, None).unwrap();
        let error = train(config, &earlier, Some(large.model.parameters().unwrap())).err().unwrap();
        assert!(matches!(error, Error::Start { .. }), "{}: {error}", config.name());
    }
}
