//! A device that fails in the middle of training is an error on the next call and ever after; a checkpoint goes on elsewhere.
//!
//! In a file of its own: what is lost stays lost for the whole process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::sync::atomic::AtomicBool;

use examples::taste_groups;
use recmill_core::{
    directory::Config,
    models::{BprConfig, ModelConfig},
};
use recmill_kernels::{Buffer, Device, Error as Kernel, Table, gather};
use recmill_train::{
    EpochCheckpoints, EpochRecord, Error, Progress, Training,
    gradient::{Checkpoint, CheckpointOptions},
};

/// Loses every GPU after this epoch, as a driver does that gives up: the thread that serves it panics, and cubecl goes on.
struct LoseAfter(u32);

impl Progress for LoseAfter {
    fn epoch(&mut self, record: &EpochRecord) {
        if record.epoch == self.0 {
            let thread = std::thread::Builder::new().name("DSU-0".into());
            let served = thread.spawn(|| panic!("the device is gone, for a test")).unwrap();
            assert!(served.join().is_err());
        }
    }
}

#[test]
fn training_ends_with_an_error_and_goes_on_elsewhere() {
    let device = Device::Wgpu(0);
    if let Err(error) = device.check() {
        assert!(std::env::var_os("RECMILL_REQUIRE_WGPU").is_none(), "{error}");
        println!("skipped: {error}");
        return;
    }
    let data = taste_groups(60, 30);
    let config = ModelConfig::Bpr(BprConfig { factors: 8, iterations: 5, ..BprConfig::default() });
    let folder = tempfile::tempdir().unwrap();
    let about = Config { model: serde_json::to_value(&config).unwrap(), ..Config::default() };
    let mut options = CheckpointOptions::new(folder.path(), about);
    options.every_steps = Some(1);
    let to = EpochCheckpoints { options, dataset: &data, item_attributes: None, user_attributes: None };
    let table = Table::from_f32(&[1.0, 2.0, 3.0, 4.0], 2, device, "a test").unwrap();
    let (go_on, mut lose) = (AtomicBool::new(false), LoseAfter(2));

    let training = Training { device, checkpoints: Some(&to), ..Training::new(&config, &data) };
    let error = training.run(None, &go_on, &mut lose).err().unwrap();
    let lost = |error: &Kernel| matches!(error, Kernel::DeviceLost { .. });
    let is_lost = match &error {
        Error::Kernel(error) | Error::Core(recmill_core::Error::Kernel(error)) => lost(error),
        _ => false,
    };
    assert!(is_lost, "{error}");
    // No old numbers, however often it is asked.
    for _ in 0..2 {
        assert!(gather(&table, &[0]).is_err_and(|error| lost(&error)));
        assert!(Buffer::<f32>::zeros(4, device, "a test").is_err_and(|error| lost(&error)));
    }

    let checkpoint = Checkpoint::newest(folder.path()).unwrap();
    let done = checkpoint.position.done.len();
    assert!((1..=2).contains(&done), "{done}");
    let training = Training { resume: Some(&checkpoint), ..Training::new(&config, &data) };
    assert_eq!(training.run(None, &go_on, &mut ()).unwrap().epochs.len(), 5);
}
