//! Looking a key up in the bytes of a finite state transducer, whatever the bytes.
//!
//! The `fst` crate writes the file. Its own lookup indexes without looking where the bytes point, so a damaged file would
//! end the process; this one walks the same format with every step checked, and finds nothing where a step leads astray.
//!
//! ```text
//! file   u64 version (3) | u64 type | nodes, children first | u64 number of keys | u64 address of the root | u32 crc
//! node   read backwards from its address, the place of its last byte:
//!        11cccccc  one transition to the node just before, without output
//!        10cccccc  one transition: [input] sizes, delta, output
//!        0fnnnnnn  f = final, n transitions (0: in the next byte): sizes, [index of 256], inputs, deltas, outputs, [final output]
//! c      the input's place in `COMMON`, from 1; 0: the input is the next byte
//! sizes  high half: bytes of a delta, low half: bytes of an output; little-endian
//! delta  from the node's first byte back to the child's address; 0: the empty final node
//! ```
//! Source: the format of fst 0.4 (version 3), which wrote the fixtures that this is tested against.

use crate::directory::Damage;

/// The inputs that fit into a node's first byte, by place.
const COMMON: &[u8; 63] = b"te/oasripcnw.hlm-du012g=:bf3y5&_4v9678k%?xCDASFIBEjPTzRNM+LOqHG";

/// Nodes with more transitions carry an index from input to transition.
const INDEXED_ABOVE: usize = 32;

/// Where the walk begins, and how many keys there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    address: usize,
    len: u64,
}

impl Root {
    /// Reads the head and the tail of `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let word = |at: usize| bytes.get(at..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
        let tail = bytes.len().checked_sub(20).filter(|&tail| tail >= 16);
        let Some((version, tail)) = word(0).zip(tail) else {
            return Err(Damage::Length { expected: 36, got: bytes.len() as u64 });
        };
        if version != 3 {
            return Err(Damage::malformed("fst version", version));
        }
        let (len, address) = (word(tail).unwrap_or_default(), word(tail + 8).unwrap_or_default());
        // The root is the last node, or the empty one, which has no bytes.
        match usize::try_from(address) {
            Ok(address) if address == tail - 1 && tail > 16 || address == 0 && tail == 16 => {
                Ok(Self { address, len })
            }
            _ => Err(Damage::malformed("fst root", address)),
        }
    }

    /// Returns how many keys the file says it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the value of `key`; `None` where there is none or the bytes make no sense.
    pub(crate) fn find(&self, bytes: &[u8], key: &[u8]) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let mut address = self.address;
        let mut value = 0u64;
        for &input in key {
            let (next, output) = step(bytes, address, input)?;
            // Children are written first, so a walk that goes on to larger addresses is astray.
            if next >= address {
                return None;
            }
            (address, value) = (next, value.checked_add(output)?);
        }
        value.checked_add(final_output(bytes, address)?)
    }
}

/// Reads a node's bytes backwards.
struct Backwards<'a> {
    bytes: &'a [u8],
    /// Everything from here on is read.
    at: usize,
}

impl<'a> Backwards<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at;
        self.at = end.checked_sub(n)?;
        self.bytes.get(self.at..end)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }
}

/// What a node with any number of transitions has, up to its inputs.
struct Node<'a> {
    rest: Backwards<'a>,
    is_final: bool,
    transitions: usize,
    delta_bytes: usize,
    output_bytes: usize,
    index: Option<&'a [u8]>,
}

/// Returns where `input` leads from the node at `address`, and what it adds to the value.
fn step(bytes: &[u8], address: usize, input: u8) -> Option<(usize, u64)> {
    if address == 0 {
        return None;
    }
    let mut rest = Backwards { bytes, at: address.checked_add(1)? };
    let state = rest.byte()?;
    if state & 0b1000_0000 == 0 {
        return step_many(read_node(rest, state)?, input);
    }
    let found = match state & 0b0011_1111 {
        0 => rest.byte()?,
        place => COMMON[usize::from(place) - 1],
    };
    if found != input {
        return None;
    }
    if state & 0b0100_0000 != 0 {
        return Some((rest.at.checked_sub(1)?, 0));
    }
    let (delta_bytes, output_bytes) = sizes(rest.byte()?)?;
    let delta = number(rest.take(delta_bytes)?);
    let output = number(rest.take(output_bytes)?);
    Some((child(rest.at, delta)?, output))
}

fn step_many(node: Node<'_>, input: u8) -> Option<(usize, u64)> {
    let Node { mut rest, transitions, delta_bytes, output_bytes, .. } = node;
    // Inputs, deltas and outputs are all written from the last transition to the first.
    let inputs = rest.take(transitions)?;
    let place = match node.index {
        Some(index) => Some(usize::from(index[usize::from(input)])).filter(|&place| place < transitions)?,
        None => inputs.iter().rev().position(|&found| found == input)?,
    };
    let deltas = rest.take(transitions * delta_bytes)?;
    let outputs = rest.take(transitions * output_bytes)?;
    if node.is_final {
        rest.take(output_bytes)?;
    }
    let backwards = transitions - 1 - place;
    let delta = number(&deltas[backwards * delta_bytes..][..delta_bytes]);
    let output = number(&outputs[backwards * output_bytes..][..output_bytes]);
    Some((child(rest.at, delta)?, output))
}

/// Returns what ending at the node at `address` adds to the value; `None` where no key ends there.
fn final_output(bytes: &[u8], address: usize) -> Option<u64> {
    if address == 0 {
        return Some(0);
    }
    let mut rest = Backwards { bytes, at: address.checked_add(1)? };
    let state = rest.byte()?;
    if state & 0b1100_0000 != 0b0100_0000 {
        return None;
    }
    let mut node = read_node(rest, state)?;
    node.rest.take(node.transitions * (1 + node.delta_bytes + node.output_bytes))?;
    Some(number(node.rest.take(node.output_bytes)?))
}

fn read_node(mut rest: Backwards<'_>, state: u8) -> Option<Node<'_>> {
    let transitions = match usize::from(state & 0b0011_1111) {
        // A single transition is always told by the state, so 1 stands for the 256 that a byte cannot say.
        0 => match usize::from(rest.byte()?) {
            1 => 256,
            n => n,
        },
        n => n,
    };
    let (delta_bytes, output_bytes) = sizes(rest.byte()?)?;
    let index = if transitions > INDEXED_ABOVE { Some(rest.take(256)?) } else { None };
    let is_final = state & 0b0100_0000 != 0;
    Some(Node { rest, is_final, transitions, delta_bytes, output_bytes, index })
}

fn sizes(byte: u8) -> Option<(usize, usize)> {
    let (delta, output) = (usize::from(byte >> 4), usize::from(byte & 15));
    (delta <= 8 && output <= 8).then_some((delta, output))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn child(first_byte: usize, delta: u64) -> Option<usize> {
    match usize::try_from(delta).ok()? {
        0 => Some(0),
        delta => first_byte.checked_sub(delta),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn build<'a>(keys: impl IntoIterator<Item = (&'a [u8], u64)>) -> Vec<u8> {
        let mut builder = fst::MapBuilder::memory();
        for (key, value) in keys {
            builder.insert(key, value).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn find(bytes: &[u8], key: &[u8]) -> Option<u64> {
        Root::read(bytes).ok()?.find(bytes, key)
    }

    /// Keys of few letters, so that they share beginnings and ends, and some of any bytes.
    fn keys() -> impl Strategy<Value = BTreeMap<Vec<u8>, u64>> {
        let byte = prop_oneof![4 => b'a'..b'd', 1 => any::<u8>()];
        let value = prop_oneof![any::<u64>().prop_map(|value| value >> 1), 0u64..300];
        prop::collection::btree_map(prop::collection::vec(byte, 0..8), value, 0..60)
    }

    #[test]
    fn nodes_of_every_width_are_walked() {
        for n in [0usize, 1, 2, 31, 32, 33, 63, 64, 255, 256] {
            for factor in [0, 1, 1 << 40] {
                // Two bytes: the first node has n transitions, and its children one each, some of them uncommon inputs.
                let keys: Vec<[u8; 2]> = (0..n).map(|i| [i as u8, (i * 7) as u8]).collect();
                let bytes = build(keys.iter().enumerate().map(|(i, key)| (&key[..], i as u64 * factor)));
                assert_eq!(Root::read(&bytes).unwrap().len(), n as u64);
                for (i, key) in keys.iter().enumerate() {
                    assert_eq!(find(&bytes, key), Some(i as u64 * factor), "{key:?} of {n}");
                    assert_eq!(find(&bytes, &key[..1]), None);
                }
                assert_eq!(find(&bytes, &[n as u8, 255]), None);
            }
        }
    }

    #[test]
    fn the_inputs_that_share_a_byte_with_the_state_are_all_known() {
        for input in 0..=255u8 {
            let (a, b) = ([b'!', input, b'x'], [b'"', b'y', input]);
            let bytes = build([(&a[..], 5), (&b[..], 9)]);
            assert_eq!((find(&bytes, &a), find(&bytes, &b)), (Some(5), Some(9)), "{input}");
        }
    }

    proptest! {
        #[test]
        fn every_key_and_no_other_is_found(keys in keys(), others in keys()) {
            let bytes = build(keys.iter().map(|(key, &value)| (&key[..], value)));
            for key in keys.keys().chain(others.keys()) {
                prop_assert_eq!(find(&bytes, key), keys.get(key).copied());
            }
        }

        #[test]
        fn no_bytes_make_the_walk_panic(
            keys in keys(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            wanted in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut bytes = build(keys.iter().map(|(key, &value)| (&key[..], value)));
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for key in keys.keys().chain([&wanted]) {
                find(&bytes, key);
            }
        }

        #[test]
        fn no_tail_makes_the_walk_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), key in ".{0,9}") {
            find(&bytes, key.as_bytes());
            // The same bytes with a head and a tail that pass.
            if bytes.len() > 36 {
                let tail = bytes.len() - 20;
                bytes[..8].copy_from_slice(&3u64.to_le_bytes());
                bytes[tail + 8..tail + 16].copy_from_slice(&(tail as u64 - 1).to_le_bytes());
                prop_assert!(Root::read(&bytes).is_ok());
                find(&bytes, key.as_bytes());
            }
        }
    }
}
