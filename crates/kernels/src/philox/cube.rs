//! Philox inside a kernel: the bits of [`super::philox4x32`], from 32-bit arithmetic alone.

use cubecl::prelude::*;

use super::{Draws, MULTIPLIERS, WEYL};

const MULTIPLIER_0: u32 = MULTIPLIERS[0];
const MULTIPLIER_1: u32 = MULTIPLIERS[1];
const WEYL_0: u32 = WEYL[0];
const WEYL_1: u32 = WEYL[1];

/// [`Draws`] as a kernel's argument.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct CubeDraws {
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

impl Draws {
    /// Returns the stream as a kernel's argument.
    pub(crate) fn to_cube<R: Runtime>(self) -> CubeDrawsLaunch<R> {
        CubeDrawsLaunch::new(
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.stream as u32,
            (self.stream >> 32) as u32,
        )
    }
}

/// Writes the four words of block `low, high` in the sister stream of try `t`: `draws.nth_try(t).block(counter)`.
#[cube]
pub(crate) fn block(words: &mut Array<u32>, draws: &CubeDraws, low: u32, high: u32, t: u32) {
    let mut c0 = low;
    let mut c1 = high;
    let mut c2 = draws.stream_low;
    let mut c3 = draws.stream_high ^ (t << 8);
    let mut key_0 = draws.seed_low;
    let mut key_1 = draws.seed_high;
    #[unroll]
    for _ in 0..10 {
        let next_1 = c2 * MULTIPLIER_1;
        let next_3 = c0 * MULTIPLIER_0;
        let next_0 = u32::mul_hi(c2, MULTIPLIER_1) ^ c1 ^ key_0;
        let next_2 = u32::mul_hi(c0, MULTIPLIER_0) ^ c3 ^ key_1;
        c0 = next_0;
        c1 = next_1;
        c2 = next_2;
        c3 = next_3;
        key_0 += WEYL_0;
        key_1 += WEYL_1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/// [`super::below`]: maps a random word to `0 .. n`.
#[cube]
pub(crate) fn below(word: u32, n: u32) -> u32 {
    u32::mul_hi(word, n)
}

#[cfg(test)]
mod tests {
    use crate::{Device, buffer::cube::Queue, philox::Draws};

    use super::*;

    #[cube(launch)]
    fn blocks(out: &mut Array<u32>, draws: CubeDraws, high: u32, t: u32, n: u32) {
        if ABSOLUTE_POS * 5 < out.len() {
            let mut words = Array::<u32>::new(4usize);
            block(&mut words, &draws, ABSOLUTE_POS as u32, high, t);
            #[unroll]
            for at in 0..4usize {
                out[ABSOLUTE_POS * 5 + at] = words[at];
            }
            out[ABSOLUTE_POS * 5 + 4] = below(words[0], n);
        }
    }

    #[test]
    #[cfg(feature = "wgpu")]
    fn a_device_draws_the_words_of_the_processor() {
        type R = crate::buffer::wgpu::WgpuRuntime;
        let device = Device::Wgpu(0);
        if device.check().is_err() {
            return;
        }
        let queue = Queue::<R>::new(device).unwrap();
        for draws in [Draws::new(0, 0), Draws::new(u64::MAX, (1 << 40) - 1), Draws::new(7 << 40, 3)] {
            for (high, t, n) in [(0, 0, 5), (9, 1, 1), (u32::MAX, 70_000, u32::MAX)] {
                let out = queue.unwritten::<u32>(5 * 300, "a test").unwrap();
                blocks::launch::<R>(
                    &queue.client,
                    CubeCount::new_1d(5),
                    CubeDim::new_1d(64),
                    queue.arg("a test", &out).unwrap(),
                    draws.to_cube(),
                    high,
                    t,
                    n,
                );
                for (low, got) in out.to_vec().unwrap().chunks(5).enumerate() {
                    let words = draws.nth_try(t.into()).block(low as u64 | u64::from(high) << 32);
                    assert_eq!(got[..4], words, "{draws:?} {low}");
                    assert_eq!(got[4], super::super::below(words[0], n));
                }
            }
        }
    }
}
