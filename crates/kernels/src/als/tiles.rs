//! Normal equations in tiles of 4 x 4, formed and solved by one cube of a GPU.
//!
//! ```text
//! tile rows 0 .. n: the lower triangle of A;  tile row n: bᵀ in its first row
//!
//!     0  .  .          tile (i, k) is tile i (i + 1) / 2 + k: four vectors, one a column, each over four rows
//!     1  2  .
//!     3  4  5
//!     6  7  8   <- bᵀ, which the factorization turns into zᵀ = (L⁻¹ b)ᵀ as it does any other row
//! ```
//!
//! A unit owns whole tiles: to form one, it keeps 16 sums in registers and reads two vectors of shared memory an entry.
//! Columns of tiles are eliminated from left to right: every unit factors the diagonal tile for itself, divides its tiles
//! of the column by it, and after a barrier takes the products from its tiles of what is left. Two barriers a tile column.
//!
//! A sum runs over the entries in their order, and over the columns in theirs, whatever the number of units and the
//! entries held at once: the same bits however the work is cut. Products are added by `fma`, so that no compiler chooses.

use cubecl::prelude::*;

use super::entries::{Entries, Kind};

/// Four neighbouring values.
pub(crate) type Four = Vector<f32, Const<4>>;

/// Bytes of gathered rows in shared memory.
const ROW_BYTES: usize = 16 << 10;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Tile rows of the matrix.
    pub(crate) tiles: usize,
    /// Entries whose rows are in shared memory at once.
    pub(crate) at_once: usize,
    /// Whether the matrix is in shared memory; else it is in the device's.
    pub(crate) in_shared: bool,
}

impl Shape {
    /// Returns the shape for matrices of `4 tiles` rows where a cube has `shared` bytes of shared memory, of which other
    /// things take `taken`.
    pub(crate) fn new(tiles: usize, shared: usize, taken: usize) -> Self {
        let row = 16 * (tiles + 1) + 4;
        let left = shared.saturating_sub(taken + 16 * tiles * 2 + 256);
        let matrix = 16 * Self::vectors(tiles);
        let in_shared = matrix + 8 * row <= left;
        let rows = if in_shared { left - matrix } else { left };
        let at_once = (rows.min(ROW_BYTES) / row).clamp(1, 32);
        Self { tiles, at_once, in_shared }
    }

    /// Returns the vectors of a matrix of `tiles` tile rows and its right-hand side.
    pub(crate) fn vectors(tiles: usize) -> usize {
        4 * (tiles * (tiles + 1) / 2 + tiles)
    }

    /// Returns the units of a cube that has about two to five tiles for each.
    pub(crate) fn units(self, most: u32) -> u32 {
        let wanted = match self.tiles {
            0..=8 => 32,
            9..=16 => 64,
            17..=32 => 128,
            _ => 256,
        };
        wanted.min(most)
    }
}

/// Lays a matrix `[n, n]` out in tiles, with zeros for the right-hand side; what only fills the last tile up is its own
/// identity. `from` picks the rows and columns.
pub(crate) fn tiled(matrix: &[f32], dim: usize, from: std::ops::Range<usize>, tiles: usize) -> Vec<f32> {
    let mut out = vec![0.0; 4 * Shape::vectors(tiles)];
    for i in 0..tiles {
        for k in 0..=i {
            let tile = &mut out[16 * (i * (i + 1) / 2 + k)..][..16];
            for (at, value) in tile.iter_mut().enumerate() {
                let (row, column) = (4 * i + at % 4, 4 * k + at / 4);
                *value = match row.max(column) < from.len() {
                    true => matrix[(from.start + row) * dim + from.start + column],
                    false => f32::from(u8::from(row == column)),
                };
            }
        }
    }
    out
}

/// Waits for every unit of the cube, and makes what they wrote to shared memory (and the device's) seen.
#[cube]
pub(crate) fn barrier(#[comptime] in_shared: bool) {
    sync_cube();
    if comptime!(!in_shared) {
        sync_storage();
    }
}

/// The row of the tile with number `t`.
#[cube]
pub(crate) fn tile_row(t: usize) -> usize {
    let guess = (f32::sqrt(f32::cast_from(8 * t as u32 + 1)) - 1.0) * 0.5;
    let mut row = u32::cast_from(guess) as usize;
    if row * (row + 1) / 2 > t {
        row -= 1;
    }
    if (row + 1) * (row + 2) / 2 <= t {
        row += 1;
    }
    row
}

/// Four values of a chunk of words from value `at` on, those from the `n`th on being zero.
#[cube]
pub(crate) fn load_four(chunk: &Array<u32>, at: usize, n: u32, #[comptime] kind: Kind) -> Four {
    let mut four = Four::new(0.0);
    #[unroll]
    for c in 0..4usize {
        if (c as u32) < n {
            let place = at + c;
            if comptime!(kind == Kind::F32) {
                four[c] = f32::reinterpret(chunk[place]);
            } else {
                let half = (chunk[place / 2] >> ((place % 2) as u32 * 16)) & 0xffffu32;
                if comptime!(kind == Kind::Bf16) {
                    four[c] = f32::reinterpret(half << 16u32);
                } else {
                    four[c] = widen_f16(half);
                }
            }
        }
    }
    four
}

/// The value of a half-precision number, exactly.
#[cube]
fn widen_f16(half: u32) -> f32 {
    let sign = (half & 0x8000u32) << 16u32;
    let magnitude = half & 0x7fffu32;
    // Normal numbers, and those of the largest exponent: infinity and NaN.
    let normal = (magnitude << 13u32) + select(magnitude >= 0x7c00u32, 0x7000_0000u32, 0x3800_0000u32);
    // Below them the value is a multiple of 2^-24.
    let small = u32::reinterpret(f32::cast_from(magnitude) * f32::new(5.960_464_5e-8));
    f32::reinterpret(sign | select(magnitude < 0x400u32, small, normal))
}

/// Vector `vector` of the fixed row of entry `entry`.
#[cube]
pub(crate) fn fixed_vector(entries: &Entries, entry: usize, vector: usize) -> Four {
    let row_vectors = entries.row_vectors as usize;
    let chunks = entries.fixed.len();
    if comptime!(!entries.in_place) {
        entries.fixed[0usize][entry * row_vectors + vector]
    } else {
        let index = entries.indices[entry];
        let chunk = index >> entries.shift;
        let row = (index - (chunk << entries.shift)) as usize;
        let mut four = Four::new(0.0);
        #[unroll]
        for c in 0..chunks {
            if chunk == c as u32 {
                four = entries.fixed[c][row * row_vectors + vector];
            }
        }
        four
    }
}

/// The weight `a` of an entry's product.
#[cube]
pub(crate) fn weight(entries: &Entries, entry: usize) -> f32 {
    fma(entries.scale, f32::abs(entries.values[entry]), entries.base)
}

/// The weight `b` of an entry's target, from its `a`.
#[cube]
pub(crate) fn target(entries: &Entries, entry: usize, a: f32) -> f32 {
    select(entries.values[entry] > 0.0, entries.offset + a, f32::new(0.0))
}

/// The matrix that a cube works in.
#[cube]
pub(crate) fn matrix_of(scratch: &mut Array<Four>, #[comptime] shape: Shape) -> SliceMut<Four> {
    let n = comptime!(Shape::vectors(shape.tiles));
    if comptime!(shape.in_shared) {
        SharedMemory::<Four>::new(n).to_slice_mut()
    } else {
        let at = CUBE_POS * n;
        scratch.slice_mut(at, at + n)
    }
}

/// `gram + ridge I`, and zero for the right-hand side; the tiles of `gram` from vector `from` on, of which the first `dim`
/// rows are more than filling.
#[cube]
pub(crate) fn begin(
    matrix: &mut SliceMut<Four>,
    gram: &Array<Four>,
    from: usize,
    ridge: f32,
    dim: u32,
    #[comptime] tiles: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < comptime!(Shape::vectors(tiles)) {
        matrix[at] = with_ridge(gram[from + at], at, ridge, dim, tiles);
        at += CUBE_DIM as usize;
    }
}

/// Vector `at` of the gram matrix with `ridge` where it crosses the diagonal of a dimension.
#[cube]
pub(crate) fn with_ridge(gram: Four, at: usize, ridge: f32, dim: u32, #[comptime] tiles: usize) -> Four {
    let mut four = gram;
    let row = tile_row(at / 4);
    let diagonal = row < tiles && at / 4 == row * (row + 1) / 2 + row;
    #[unroll]
    for c in 0..4usize {
        if diagonal && at % 4 == c && ((4 * row + c) as u32) < dim {
            four[c] += ridge;
        }
    }
    four
}

/// Copies `width` vectors from vector `first` on of the rows of `n` entries from `begin` on to shared memory, in rows of
/// `tiles + 1` vectors; zeros behind them, and the last vector is left for the target.
#[cube]
pub(crate) fn load_rows(
    entries: &Entries,
    begin: usize,
    n: usize,
    first: usize,
    width: usize,
    rows: &mut SharedMemory<Four>,
    #[comptime] tiles: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < n * tiles {
        let (entry, vector) = (at / tiles, at % tiles);
        let mut four = Four::new(0.0);
        if vector < width {
            four = fixed_vector(entries, begin + entry, first + vector);
        }
        rows[entry * (tiles + 1) + vector] = four;
        at += CUBE_DIM as usize;
    }
}

/// `matrix += Σ a y yᵀ`, `b += Σ target y` over `n` entries whose rows are in shared memory.
#[cube]
pub(crate) fn add_products(
    matrix: &mut SliceMut<Four>,
    rows: &SharedMemory<Four>,
    weights: &SharedMemory<f32>,
    n: usize,
    #[comptime] tiles: usize,
) {
    let stride = comptime!(tiles + 1);
    let mut t = UNIT_POS as usize;
    while t < comptime!(Shape::vectors(tiles) / 4) {
        let i = tile_row(t);
        let k = t - i * (i + 1) / 2;
        let mut c0 = matrix[4 * t];
        let mut c1 = matrix[4 * t + 1];
        let mut c2 = matrix[4 * t + 2];
        let mut c3 = matrix[4 * t + 3];
        for e in 0..n {
            let weight = select(i == tiles, f32::new(1.0), weights[e]);
            let left = rows[e * stride + i] * Four::new(weight);
            let right = rows[e * stride + k];
            c0 = fma(left, Four::new(right[0]), c0);
            c1 = fma(left, Four::new(right[1]), c1);
            c2 = fma(left, Four::new(right[2]), c2);
            c3 = fma(left, Four::new(right[3]), c3);
        }
        matrix[4 * t] = c0;
        matrix[4 * t + 1] = c1;
        matrix[4 * t + 2] = c2;
        matrix[4 * t + 3] = c3;
        t += CUBE_DIM as usize;
    }
}

/// The inverse root of a pivot; of one that is not positive, anything.
#[cube]
fn inverse_root(pivot: f32) -> f32 {
    1.0 / f32::sqrt(select(pivot <= 0.0, f32::new(1.0), pivot))
}

/// Factors the first `columns` tile columns, all or none of them; 1 when a pivot is not positive, in every unit alike.
/// What is written is `L` with the inverse of its diagonal, and `zᵀ` in the last tile row. A barrier is behind it.
#[cube]
pub(crate) fn factor(matrix: &mut SliceMut<Four>, columns: usize, #[comptime] shape: Shape) -> u32 {
    let tiles = comptime!(shape.tiles);
    let mut failed = 0u32;
    for j in 0..columns {
        // The diagonal tile: every unit for itself.
        let at = 4 * (j * (j + 1) / 2 + j);
        let d0 = matrix[at];
        let p0 = d0[0];
        let r0 = inverse_root(p0);
        let l0 = d0 * Four::new(r0);
        let d1 = fma(l0, Four::new(-l0[1]), matrix[at + 1]);
        let p1 = d1[1];
        let r1 = inverse_root(p1);
        let l1 = d1 * Four::new(r1);
        let d2 = fma(l1, Four::new(-l1[2]), fma(l0, Four::new(-l0[2]), matrix[at + 2]));
        let p2 = d2[2];
        let r2 = inverse_root(p2);
        let l2 = d2 * Four::new(r2);
        let d3 = fma(l1, Four::new(-l1[3]), fma(l0, Four::new(-l0[3]), matrix[at + 3]));
        let d3 = fma(l2, Four::new(-l2[3]), d3);
        let p3 = d3[3];
        let r3 = inverse_root(p3);
        let l3 = d3 * Four::new(r3);
        if p0 <= 0.0 || p1 <= 0.0 || p2 <= 0.0 || p3 <= 0.0 {
            failed = 1u32;
        }
        // The tiles below it.
        let mut i = j + 1 + UNIT_POS as usize;
        while i <= tiles {
            let at = 4 * (i * (i + 1) / 2 + j);
            let x0 = matrix[at] * Four::new(r0);
            let x1 = fma(x0, Four::new(-l0[1]), matrix[at + 1]) * Four::new(r1);
            let x2 = fma(x1, Four::new(-l1[2]), fma(x0, Four::new(-l0[2]), matrix[at + 2]));
            let x2 = x2 * Four::new(r2);
            let x3 = fma(x1, Four::new(-l1[3]), fma(x0, Four::new(-l0[3]), matrix[at + 3]));
            let x3 = fma(x2, Four::new(-l2[3]), x3) * Four::new(r3);
            matrix[at] = x0;
            matrix[at + 1] = x1;
            matrix[at + 2] = x2;
            matrix[at + 3] = x3;
            i += CUBE_DIM as usize;
        }
        barrier(shape.in_shared);
        if UNIT_POS == 0 {
            let mut l0 = l0;
            let mut l1 = l1;
            let mut l2 = l2;
            let mut l3 = l3;
            l0[0] = r0;
            l1[1] = r1;
            l2[2] = r2;
            l3[3] = r3;
            matrix[at] = l0;
            matrix[at + 1] = l1;
            matrix[at + 2] = l2;
            matrix[at + 3] = l3;
        }
        // What is left, `(i, k)` counted from behind the column.
        let left = tiles - j - 1;
        let n = left * (left + 1) / 2 + left;
        let mut t = UNIT_POS as usize;
        while t < n {
            let row = tile_row(t);
            let i = j + 1 + row;
            let k = j + 1 + t - row * (row + 1) / 2;
            subtract_product(
                matrix,
                4 * (i * (i + 1) / 2 + k),
                4 * (i * (i + 1) / 2 + j),
                4 * (k * (k + 1) / 2 + j),
            );
            t += CUBE_DIM as usize;
        }
        barrier(shape.in_shared);
    }
    failed
}

/// Tile at `to` minus the product of the tile at `left` and the transpose of the tile at `right`.
#[cube]
fn subtract_product(matrix: &mut SliceMut<Four>, to: usize, left: usize, right: usize) {
    let mut c0 = matrix[to];
    let mut c1 = matrix[to + 1];
    let mut c2 = matrix[to + 2];
    let mut c3 = matrix[to + 3];
    #[unroll]
    for d in 0..4usize {
        // cubecl 0.10 writes the negation of a vector as what CUDA C++ has no operator for; that of a number it knows.
        let column = matrix[left + d];
        let row = matrix[right + d];
        c0 = fma(column, Four::new(-row[0]), c0);
        c1 = fma(column, Four::new(-row[1]), c1);
        c2 = fma(column, Four::new(-row[2]), c2);
        c3 = fma(column, Four::new(-row[3]), c3);
    }
    matrix[to] = c0;
    matrix[to + 1] = c1;
    matrix[to + 2] = c2;
    matrix[to + 3] = c3;
}

/// Solves `Lᵀ x = z` for what [`factor()`] has written: `z` and `x` are `[4 tiles]` of shared memory. A barrier is behind it.
#[cube]
pub(crate) fn substitute(
    matrix: &SliceMut<Four>,
    columns: usize,
    z: &mut SharedMemory<f32>,
    x: &mut SharedMemory<f32>,
    #[comptime] tiles: usize,
) {
    let last = comptime!(tiles * (tiles + 1) / 2 * 4);
    let mut at = UNIT_POS as usize;
    while at < 4 * columns {
        z[at] = matrix[last + at][0];
        at += CUBE_DIM as usize;
    }
    sync_cube();
    for step in 0..columns {
        let j = columns - 1 - step;
        let at = 4 * (j * (j + 1) / 2 + j);
        let (l0, l1, l2, l3) = (matrix[at], matrix[at + 1], matrix[at + 2], matrix[at + 3]);
        let x3 = z[4 * j + 3] * l3[3];
        let x2 = fma(-l2[3], x3, z[4 * j + 2]) * l2[2];
        let x1 = fma(-l1[2], x2, fma(-l1[3], x3, z[4 * j + 1])) * l1[1];
        let x0 = fma(-l0[1], x1, fma(-l0[2], x2, fma(-l0[3], x3, z[4 * j]))) * l0[0];
        if UNIT_POS == 0 {
            x[4 * j] = x0;
            x[4 * j + 1] = x1;
            x[4 * j + 2] = x2;
            x[4 * j + 3] = x3;
        }
        // Value `at` of z loses row block j's part: the dot product of column `at` of that row block with x.
        let mut at = UNIT_POS as usize;
        while at < 4 * j {
            let column = matrix[j * (j + 1) / 2 * 4 + at];
            let rest = fma(-column[2], x2, fma(-column[3], x3, z[at]));
            z[at] = fma(-column[0], x0, fma(-column[1], x1, rest));
            at += CUBE_DIM as usize;
        }
        sync_cube();
    }
}

/// Whether `value` is neither infinite nor NaN, by its bits: compilers may assume that no number is NaN.
#[cube]
pub(crate) fn is_finite(value: f32) -> bool {
    (u32::reinterpret(value) & 0x7f80_0000u32) != 0x7f80_0000u32
}
