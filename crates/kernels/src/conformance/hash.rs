//! Cases of hash.

use super::{Case, Failure, Numbers, Outcome, on_threads, refused};
use crate::{Buffer, Device, Error, FeatureHash, HashKey, hash_features, hash_features_reference};

pub(super) const CASES: &[Case] = &[
    Case { name: "hash/sizes, keys, buckets", run: sizes },
    Case { name: "hash/more than 65,535 work groups", run: many_groups },
    Case { name: "hash/refusals", run: refusals },
];

fn compare<K: HashKey>(
    what: String,
    keys: &[K],
    to: FeatureHash,
    device: Device,
    expected: impl Iterator<Item = (u32, f32)>,
) -> Result<(), Failure> {
    let run = || {
        let keys = Buffer::from_slice(keys, device, "a conformance case")?;
        let (buckets, signs) = hash_features(&keys, to)?;
        Ok((buckets.to_vec()?, signs.to_vec()?))
    };
    let (buckets, signs) = run().map_err(|got| Failure::Refused { what: what.clone(), got })?;
    let got = buckets.into_iter().zip(signs);
    if got.len() != keys.len() {
        return Err(Failure::Bits { what, at: got.len().min(keys.len()) });
    }
    match got.zip(expected).position(|(got, expected)| got != expected) {
        Some(at) => Err(Failure::Bits { what, at }),
        None => Ok(()),
    }
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    for n in [0, 1, 31, 32, 33, 5000] {
        for (n_buckets, seed) in [(1, 0), (1000, 7), (u32::MAX, u32::MAX), (1 << 20, 0x5082_edee)] {
            let mut numbers = Numbers::new(n);
            let keys: Vec<u64> = [0, u64::MAX, 0x8765_4321]
                .into_iter()
                .chain(std::iter::from_fn(|| Some(numbers.bits())))
                .take(n as usize)
                .collect();
            let narrow: Vec<u32> = keys.iter().map(|&key| key as u32).collect();
            let to = FeatureHash { n_buckets, seed };
            let what = |kind: &str| format!("{n} keys of {kind} to {to:?}");
            let expected = hash_features_reference(&keys, to).into_iter();
            on_threads(3, || compare(what("u64"), &keys, to, device, expected))?;
            let expected = hash_features_reference(&narrow, to).into_iter();
            compare(what("u32"), &narrow, to, device, expected)?;
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn many_groups(device: Device) -> Result<Outcome, Failure> {
    // A group hashes 256 keys.
    let keys: Vec<u32> = (0..65_600 * 256).collect();
    let to = FeatureHash { n_buckets: 1 << 22, seed: 1 };
    // What the other cases check against the definition, which takes its time.
    compare(format!("{} keys", keys.len()), &keys, to, device, keys.iter().map(|&key| to.of(key)))?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let keys = Buffer::from_slice(&[1u32, 2], device, "a conformance case")
        .map_err(|got| Failure::Refused { what: "keys".into(), got })?;
    refused("no buckets", hash_features(&keys, FeatureHash { n_buckets: 0, seed: 1 }), |error| {
        matches!(error, Error::Parameter { what: "n_buckets", .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}
