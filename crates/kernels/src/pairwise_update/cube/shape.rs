//! What a walk is compiled for, and the numbers that it is given.

use cubecl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Loss {
    Bpr,
    Warp,
    Logistic,
}

/// What a walk is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) dim: usize,
    /// Units of a cube: a power of two.
    pub(super) units: usize,
    /// The units are one plane.
    pub(super) plane: bool,
    pub(super) loss: Loss,
    pub(super) adagrad: bool,
    pub(super) biased: bool,
    /// Rows, columns lie in a scratch table at the places that `places` gives them.
    pub(super) placed: [bool; 2],
}

impl Shape {
    /// Values of a row that a unit holds.
    pub(super) fn values(self) -> usize {
        self.dim.div_ceil(self.units)
    }

    /// As many of them as every unit has.
    pub(super) fn whole(self) -> usize {
        self.dim / self.units
    }

    pub(super) fn has_rest(self) -> bool {
        !self.dim.is_multiple_of(self.units)
    }

    pub(super) fn rows_placed(self) -> bool {
        self.placed[0]
    }

    pub(super) fn columns_placed(self) -> bool {
        self.placed[1]
    }

    pub(super) fn is(self, loss: Loss) -> bool {
        self.loss == loss
    }

    pub(super) fn steps(self) -> usize {
        self.units.ilog2() as usize
    }

    /// Sums that a step needs: a score, and for Adagrad two squares.
    pub(super) fn sums(self) -> usize {
        if self.adagrad { 3 } else { 1 }
    }

    pub(super) fn shared(self) -> usize {
        if self.plane { 1 } else { self.sums() * self.units }
    }
}

/// The numbers of a step.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Rates {
    pub(super) rate: f32,
    pub(super) l2: f32,
    pub(super) bias_l2: f32,
    /// What Adagrad's sums begin with: of rows and columns, of biases.
    pub(super) least: f32,
    pub(super) bias_least: f32,
    /// The harmonic number of all columns.
    pub(super) harmonic: f32,
}

/// Where things are.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) n_rows: u32,
    pub(super) n_columns: u32,
    /// Places that the scratch tables begin at.
    pub(super) first_row: u32,
    pub(super) first_column: u32,
    pub(super) n_cells: u32,
    /// Where the results of the launch's cells begin.
    pub(super) first_stat: u32,
    pub(super) per_positive: u32,
    /// Draws of a sample: 1, and for WARP as many as it may need.
    pub(super) draws_each: u32,
}
