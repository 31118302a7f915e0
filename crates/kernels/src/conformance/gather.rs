//! Cases of gather and scatter_add.

use super::{Case, Failure, Numbers, Outcome, on_threads, refused, same_bits};
use crate::{Device, Error, RowType, Table, gather, gather_reference, scatter_add, scatter_add_reference};

pub(super) const CASES: &[Case] = &[
    Case { name: "gather/sizes", run: sizes },
    Case { name: "gather/a table of several chunks", run: chunks },
    Case { name: "gather/row types", run: row_types },
    Case { name: "gather/more than 65,535 work groups", run: many_groups },
    Case { name: "gather/refusals", run: refusals },
    Case { name: "scatter_add/sizes, chunks, threads", run: scatter },
];

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

/// Indices over all rows, repeats among them.
fn indices(numbers: &mut Numbers, n: usize, rows: usize) -> Vec<u32> {
    (0..n).map(|_| numbers.below(rows) as u32).collect()
}

/// Gathers on `device` and compares with the reference, bit by bit: nothing is computed.
fn compare(what: String, on_cpu: &Table, on_device: &Table, indices: &[u32]) -> Result<(), Failure> {
    let expected = gather_reference(on_cpu, indices).map_err(other(what.clone()))?;
    let got = gather(on_device, indices).and_then(|out| out.to_vec()).map_err(other(what.clone()))?;
    same_bits(|| what.clone(), &got, &expected)
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    for (rows, dim, n) in
        [(1, 1, 1), (31, 1, 32), (32, 31, 33), (33, 32, 31), (640, 33, 999), (5, 64, 0), (257, 7, 4000)]
    {
        let what = format!("{rows} rows, dim {dim}, {n} indices");
        let make =
            |device| Numbers::new(rows as u64).table(rows, dim, 1 << 10, device).map_err(other(what.clone()));
        let indices = indices(&mut Numbers::new(7), n, rows);
        compare(what.clone(), &make(Device::Cpu)?, &make(device)?, &indices)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn chunks(device: Device) -> Result<Outcome, Failure> {
    for chunk_rows in [1, 2, 64] {
        let what = format!("130 rows in chunks of {chunk_rows}");
        let make = |device| Numbers::new(3).table(130, 12, chunk_rows, device).map_err(other(what.clone()));
        let indices = indices(&mut Numbers::new(5), 300, 130);
        compare(what.clone(), &make(Device::Cpu)?, &make(device)?, &indices)?;
    }
    // Larger than some devices bind at once, so that the chunks are the device's own.
    let (rows, dim) = (600_000, 64);
    let what = format!("{rows} rows of {dim} in the device's own chunks");
    let values: Vec<f32> = (0..rows * dim).map(|at| (at % 9973) as f32).collect();
    let make =
        |device| Table::from_f32(&values, dim, device, "a conformance case").map_err(other(what.clone()));
    let indices = indices(&mut Numbers::new(9), 5000, rows);
    compare(what.clone(), &make(Device::Cpu)?, &make(device)?, &indices)?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn row_types(device: Device) -> Result<Outcome, Failure> {
    for row_type in [RowType::F16, RowType::Bf16] {
        for dim in [64, 18, 17] {
            let what = format!("{row_type:?}, rows of {dim}");
            let host = Numbers::new(4)
                .table(90, dim, 32, Device::Cpu)
                .and_then(|table| table.to_row_type(row_type, "a conformance case"))
                .map_err(other(what.clone()))?;
            let indices = indices(&mut Numbers::new(6), 200, 90);
            let table = host.try_copy(device, "a conformance case").map_err(other(what.clone()))?;
            if device != Device::Cpu && !dim.is_multiple_of(2) {
                // A word would hold values of two rows.
                refused(&what, gather(&table, &indices), |error| {
                    matches!(error, Error::Parameter { what: "dim", .. })
                })?;
            } else {
                compare(what, &host, &table, &indices)?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn many_groups(device: Device) -> Result<Outcome, Failure> {
    // A work group writes 256 values.
    let (rows, dim, n) = (1000, 16, 65_600 * 16);
    let what = format!("{n} indices");
    let make = |device| Numbers::new(8).table(rows, dim, 512, device).map_err(other(what.clone()));
    compare(what.clone(), &make(Device::Cpu)?, &make(device)?, &indices(&mut Numbers::new(1), n, rows))?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let table = Numbers::new(2).table(10, 3, 4, device).map_err(other("a table".into()))?;
    refused("an index past the rows", gather(&table, &[0, 9, 10]), |error| {
        matches!(error, Error::IndexOutOfRange { position: 2, rows: 10, index: 10, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn scatter(device: Device) -> Result<Outcome, Failure> {
    for (rows, dim, n, chunk_rows) in
        [(1, 1, 5, 1), (33, 31, 200, 8), (500, 64, 3000, 128), (70_000, 3, 50_000, 1 << 16)]
    {
        let what = format!("{rows} rows, dim {dim}, {n} indices, chunks of {chunk_rows}");
        let mut numbers = Numbers::new(n as u64);
        let table = || Numbers::new(11).table(rows, dim, chunk_rows, device).map_err(other(what.clone()));
        let indices = indices(&mut numbers, n, rows);
        let added: Vec<f32> = (0..n * dim).map(|_| numbers.unit() / 3.0).collect();
        for threads in [1, 3] {
            let mut got = table()?;
            match on_threads(threads, || scatter_add(&mut got, &indices, &added)) {
                Err(Error::NotOnDevice { .. }) if device != Device::Cpu => return Ok(Outcome::NotOnDevice),
                result => result.map_err(other(what.clone()))?,
            }
            let expected = scatter_add_reference(&table()?, &indices, &added).map_err(other(what.clone()))?;
            same_bits(|| what.clone(), &got.to_f32().map_err(other(what.clone()))?, &expected)?;
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}
