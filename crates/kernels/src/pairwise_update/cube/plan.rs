//! How an epoch is cut into launches: what fits on the device at once, and what a work group walks in one go.

use std::ops::Range;

use cubecl::ir::features::Plane;

use super::tables::Side;
use crate::{
    Device, Mode, PairwiseEpoch, PairwiseLoss, Result,
    buffer::cube::{Gpu, Queue},
    cells::Cells,
    memory,
};

/// Draws of one launch, at most: 512 MiB of them.
const LAUNCH_DRAWS: u64 = 1 << 27;
/// Turns of all loops of a unit in one launch.
const TURNS: u64 = 60_000;
/// Values of a row that a unit of a single plane holds; longer rows have more units.
const UNIT_VALUES: usize = 16;
/// Pieces that racing cuts an epoch into, where the rules for their length leave as many: some hundreds a multiprocessor.
const PIECES: usize = 1 << 14;
/// The least and the most entries of a piece.
const PIECE_ENTRIES: [usize; 2] = [32, 1024];
/// Tries of WARP beyond this are not addressed.
const MOST_DRAWS: u32 = 1 << 26;

/// What a device leaves us, or a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Values of a scratch table.
    pub(super) scratch: u64,
    /// Entries on the device at once.
    pub(super) entries: u64,
    /// Draws of a launch.
    pub(super) draws: u64,
    /// Units of a plane that are always as many and can sum up among themselves.
    pub(super) plane: Option<usize>,
    pub(super) units: usize,
}

impl Limits {
    pub(super) fn of<R: Gpu>(queue: &Queue<R>, device: Device) -> Result<Self> {
        let properties = queue.client.properties();
        let hardware = &properties.hardware;
        let sums = properties.features.plane.contains(Plane::Ops);
        let fixed = hardware.plane_size_min == hardware.plane_size_max;
        let plane = hardware.plane_size_max as usize;
        let most = device.max_buffer_bytes()? / 4;
        Ok(Self {
            scratch: most.min(memory::available(device) / 16),
            entries: (most / 2).min(1 << 30),
            draws: LAUNCH_DRAWS.min(most),
            plane: (sums && fixed && (8..=64).contains(&plane)).then_some(plane),
            units: 1 << hardware.max_units_per_cube.clamp(1, 256).ilog2(),
        })
    }

    /// Returns the entries that one launch draws for.
    fn launch_entries(&self, epoch: &PairwiseEpoch) -> usize {
        let each = u64::from(epoch.negatives.per_positive) * u64::from(draws_each(epoch.loss));
        (self.draws / each).max(1) as usize
    }

    /// Returns the units of a cube, a power of two, and whether they are one plane.
    pub(super) fn units(&self, dim: usize) -> (usize, bool) {
        match self.plane {
            Some(plane) if dim <= plane * UNIT_VALUES => (plane, true),
            _ if dim <= 64 => (dim.next_power_of_two().clamp(4, 32).min(self.units), false),
            _ => ((dim / UNIT_VALUES).next_power_of_two().max(32).min(self.units), false),
        }
    }
}

/// Entries that one work group walks in one launch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    /// Which cell of the group.
    pub(super) cell: usize,
    pub(super) entries: Range<usize>,
}

/// Cells whose entries are on the device together, and the launches that walk them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    /// Row block, column block.
    pub(super) cells: Vec<[usize; 2]>,
    /// Rows and columns that scratch must have, by place.
    pub(super) places: [Range<usize>; 2],
    pub(super) n_entries: usize,
    pub(super) launches: Vec<Vec<Piece>>,
}

/// Cuts an epoch into groups, round by round: a round is one, as far as its rows, columns and entries fit.
pub(super) fn plan(
    cells: &Cells<()>,
    sides: &[Side<'_>; 2],
    epoch: &PairwiseEpoch,
    limits: Limits,
) -> Vec<Group> {
    let n_blocks = cells.blocks();
    let (order, cuts) = cells.row_order();
    let all = [order.len(), cells.column_order().len()];
    let whole = sides.each_ref().map(Side::is_whole);
    let mut groups = Vec::new();
    for round in 0..n_blocks {
        let mut group = Group::default();
        for (block, cut) in cuts.iter().enumerate() {
            let cell = [block, (block + round) % n_blocks];
            let n = cells.cell(cell[0], cell[1]).entries.len();
            if n == 0 {
                continue;
            }
            let own = [cut.clone(), cells.column_range(cell[1])];
            let fits = (0..2).all(|side| {
                let have = &group.places[side];
                let room = sides[side].fits.unwrap_or(usize::MAX);
                whole[side] || (own[side].start >= have.start && own[side].end - have.start <= room)
            });
            let fits = fits && (group.n_entries + n) as u64 <= limits.entries;
            if !group.cells.is_empty() && !fits {
                groups.push(std::mem::take(&mut group));
            }
            for side in 0..2 {
                group.places[side] = match (whole[side], group.cells.is_empty()) {
                    (true, _) => 0..all[side],
                    (false, true) => own[side].clone(),
                    (false, false) => group.places[side].start..own[side].end,
                };
            }
            group.n_entries += n;
            group.cells.push(cell);
        }
        if !group.cells.is_empty() {
            groups.push(group);
        }
    }
    for group in &mut groups {
        let lengths = group.cells.iter().map(|cell| cells.cell(cell[0], cell[1]).entries.len()).collect();
        group.launches = match epoch.mode {
            Mode::Deterministic => in_turn(lengths, epoch, limits),
            Mode::Hogwild => at_once(lengths, all[1], epoch, limits),
        };
    }
    groups
}

/// Every cell from its begin to its end, as many launches as that takes.
pub(super) fn in_turn(lengths: Vec<usize>, epoch: &PairwiseEpoch, limits: Limits) -> Vec<Vec<Piece>> {
    let most = limits.launch_entries(epoch) / lengths.len().max(1);
    let step = most.min(walk_entries(epoch)).max(1);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let launch = |begin: usize| {
        let pieces = lengths.iter().enumerate().filter(|&(_, &n)| begin < n);
        pieces.map(|(cell, &n)| Piece { cell, entries: begin..n.min(begin.saturating_add(step)) }).collect()
    };
    (0..longest).step_by(step).map(launch).collect()
}

/// Pieces of every cell side by side; few beside the columns that they race for.
pub(super) fn at_once(
    lengths: Vec<usize>,
    n_columns: usize,
    epoch: &PairwiseEpoch,
    limits: Limits,
) -> Vec<Vec<Piece>> {
    let n = lengths.iter().sum::<usize>();
    let [least, most] = PIECE_ENTRIES;
    let length = (n / PIECES).min(most).max(n / n_columns.max(1)).max(least).min(walk_entries(epoch));
    let each = (limits.launch_entries(epoch) / length).max(1);
    let pieces: Vec<Piece> = lengths
        .iter()
        .enumerate()
        .flat_map(|(cell, &n)| {
            (0..n).step_by(length).map(move |begin| Piece { cell, entries: begin..n.min(begin + length) })
        })
        .collect();
    pieces.chunks(each).map(<[Piece]>::to_vec).collect()
}

/// Entries that a work group walks in one launch, at most. Some drivers end a launch that takes seconds, and a software
/// adapter ends every loop of a unit after 65,535 turns of all its loops together.
fn walk_entries(epoch: &PairwiseEpoch) -> usize {
    let turns = 1 + u64::from(epoch.negatives.per_positive) * (1 + u64::from(draws_each(epoch.loss)));
    (TURNS / turns).max(1) as usize
}

/// Draws of a sample: all that WARP may need are made before it is known how many it does.
pub(super) fn draws_each(loss: PairwiseLoss) -> u32 {
    match loss {
        PairwiseLoss::Warp { max_draws } => max_draws.min(MOST_DRAWS),
        _ => 1,
    }
}
