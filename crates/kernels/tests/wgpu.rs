//! The GPU seam: an adapter is there where one is required, and a byte too many is an error, never a number.
#![expect(clippy::print_stdout, reason = "a test says that it was skipped")]
#![cfg(feature = "wgpu")]

use recmill_kernels::{Buffer, Device, Error, Table, gather, memory};

/// The first adapter; `None`, saying so, where there is none and none is required.
fn adapter() -> Option<Device> {
    let device = Device::Wgpu(0);
    match device.check() {
        Ok(()) => Some(device),
        Err(error) if std::env::var_os("RECMILL_REQUIRE_WGPU").is_some() => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

#[test]
fn an_adapter_past_the_last_is_refused() {
    let error = Device::Wgpu(10_000).check().unwrap_err();
    assert!(matches!(error, Error::Unavailable { device: Device::Wgpu(10_000), .. }), "{error}");
}

#[test]
fn one_byte_too_many_is_an_error() {
    let Some(device) = adapter() else { return };
    let values = [1.0f32, 2.0, 3.0, 4.0];
    // More than one buffer may have: the table's own chunks say how much that is.
    let limit = Device::max_buffer_bytes(device).unwrap();
    assert_eq!(
        Buffer::<u8>::zeros(limit as usize + 1, device, "a test").unwrap_err(),
        Error::BufferTooLarge { device, what: "a test", asked: limit + 1, limit }
    );
    // More than the budget.
    memory::set_budget(device, memory::used(device) + 31);
    let table = Table::from_f32(&values, 2, device, "a test").unwrap();
    assert_eq!(
        Table::from_f32(&values, 2, device, "a test").unwrap_err(),
        Error::OutOfMemory { device, what: "a test", asked: 16, available: 15 }
    );
    // Of a table that does not fit the whole is named, also where a chunk would fit.
    let in_chunks = Table::from_f32_in_chunks(&values, 1, 1, Device::Cpu, "a test").unwrap();
    assert_eq!(
        in_chunks.try_copy(device, "a test").unwrap_err(),
        Error::OutOfMemory { device, what: "a test", asked: 16, available: 15 }
    );
    // An operation's own result counts as well, and what was there keeps its numbers.
    let error = gather(&table, &[0, 1]).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { asked: 16, .. }), "{error}");
    assert_eq!(table.to_f32().unwrap(), values);
    memory::set_budget(device, u64::MAX);
    assert_eq!(gather(&table, &[1, 0]).unwrap().to_vec().unwrap(), [3.0, 4.0, 1.0, 2.0]);
}
