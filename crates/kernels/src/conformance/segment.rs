//! Cases of segment.

use super::{Case, Failure, Numbers, Outcome, on_threads, refused};
use crate::{Buffer, Device, Error, HostSegment, segment, segment_buffer, segment_reference};

pub(super) const CASES: &[Case] = &[
    Case { name: "segment/sizes, repeats, bounds", run: sizes },
    Case { name: "segment/indices on the device", run: on_device },
    Case { name: "segment/a scan of several levels", run: large },
    Case { name: "segment/refusals", run: refusals },
];

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

fn same(what: String, got: &HostSegment, expected: &HostSegment) -> Result<(), Failure> {
    let pairs = [
        ("unique", &got.unique, &expected.unique),
        ("offsets", &got.offsets, &expected.offsets),
        ("positions", &got.positions, &expected.positions),
    ];
    for (part, got, expected) in pairs {
        if got != expected {
            let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            return Err(Failure::Bits { what: format!("{what}, {part}"), at });
        }
    }
    Ok(())
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    for n in [0, 1, 31, 32, 33, 127, 128, 129, 2047, 2048, 2049, 9999] {
        // One index over and over, few, about as many as there are, and all of u32.
        for distinct in [1u64, 3, 1 + n as u64, 1 << 17, 1 << 32] {
            let what = format!("{n} indices of {distinct}");
            let mut numbers = Numbers::new(n as u64 + distinct);
            let mut indices: Vec<u32> = (0..n).map(|_| numbers.below(distinct as usize) as u32).collect();
            if let Some(last) = indices.last_mut() {
                *last = (distinct - 1) as u32;
            }
            let expected = segment_reference(&indices);
            for threads in [1, 3] {
                let got = on_threads(threads, || segment(&indices, distinct, device))
                    .and_then(|segment| segment.to_host())
                    .map_err(other(what.clone()))?;
                same(what.clone(), &got, &expected)?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn on_device(device: Device) -> Result<Outcome, Failure> {
    for (n, range, bound) in [(1, 0..1, 16), (700, 13..700, 256), (5000, 1..4999, 70_000), (40, 20..20, 5)] {
        let what = format!("{range:?} of {n} indices below {bound}");
        let mut numbers = Numbers::new(bound as u64);
        let indices: Vec<u32> = (0..n).map(|_| numbers.below(bound) as u32).collect();
        let got = Buffer::from_slice(&indices, device, "a conformance case")
            .and_then(|buffer| segment_buffer(&buffer, range.clone(), bound as u64))
            .and_then(|segment| segment.to_host())
            .map_err(other(what.clone()))?;
        same(what, &got, &segment_reference(&indices[range]))?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// More than 65,535 work groups of 256 units could count alone, and more digit counts than one launch scans.
fn large(device: Device) -> Result<Outcome, Failure> {
    let n = 4_300_000;
    let what = format!("{n} indices");
    let mut numbers = Numbers::new(1);
    // A third is one index, as popular items are.
    let indices: Vec<u32> =
        (0..n).map(|at| if at % 3 == 0 { 77 } else { numbers.below(1 << 18) as u32 }).collect();
    let got = segment(&indices, 1 << 18, device)
        .and_then(|segment| segment.to_host())
        .map_err(other(what.clone()))?;
    same(what, &got, &segment_reference(&indices))?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let past = |error: &Error| matches!(error, Error::IndexOutOfRange { position: 2, rows: 7, .. });
    refused("an index past the bound", segment(&[3, 6, 7, 9], 7, device), past)?;
    let buffer = Buffer::from_slice(&[8, 3, 6, 7, 9], device, "a conformance case")
        .map_err(other("a buffer".to_owned()))?;
    let found = segment_buffer(&buffer, 1..5, 7).and_then(|segment| segment.n_unique());
    refused("an index past the bound, on the device", found, past)?;
    refused("a range past the end", segment_buffer(&buffer, 2..6, 10), |error| {
        matches!(error, Error::Shape { got: 5, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}
