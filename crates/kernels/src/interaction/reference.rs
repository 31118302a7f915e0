//! The definitions: naive, in f64, on the CPU.

/// The definition of [`super::fm_second_order`], as the sum over pairs that lemma 3.1 rewrites.
pub fn fm_second_order_reference(x: &[f32], fields: usize, dim: usize) -> Vec<f64> {
    let pairs = fields * (fields - 1) / 2;
    match pairs {
        0 => vec![0.0; x.len() / (fields * dim)],
        _ => {
            pairwise_dots_reference(x, fields, dim).chunks_exact(pairs).map(|row| row.iter().sum()).collect()
        }
    }
}

/// The definition of [`super::fm_second_order_backward`]: every field's gradient is the sum of all others.
pub fn fm_second_order_backward_reference(
    x: &[f32],
    fields: usize,
    dim: usize,
    gradient: &[f32],
) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for (row, &g) in gradient.iter().enumerate() {
        let x = &x[row * fields * dim..][..fields * dim];
        for i in 0..fields {
            for d in 0..dim {
                let others = (0..fields).filter(|&j| j != i).map(|j| f64::from(x[j * dim + d]));
                out[(row * fields + i) * dim + d] = f64::from(g) * others.sum::<f64>();
            }
        }
    }
    out
}

/// The definition of [`super::pairwise_dots`].
pub fn pairwise_dots_reference(x: &[f32], fields: usize, dim: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks_exact(fields * dim) {
        for i in 0..fields {
            for j in 0..i {
                let products = (0..dim).map(|d| f64::from(x[i * dim + d]) * f64::from(x[j * dim + d]));
                out.push(products.sum());
            }
        }
    }
    out
}

/// The definition of [`super::pairwise_dots_backward`].
pub fn pairwise_dots_backward_reference(x: &[f32], fields: usize, dim: usize, gradient: &[f32]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    let mut gradient = gradient.iter();
    for (x, out) in x.chunks_exact(fields * dim).zip(out.chunks_exact_mut(fields * dim)) {
        for i in 0..fields {
            for (j, &g) in (0..i).zip(&mut gradient) {
                for d in 0..dim {
                    out[i * dim + d] += f64::from(g) * f64::from(x[j * dim + d]);
                    out[j * dim + d] += f64::from(g) * f64::from(x[i * dim + d]);
                }
            }
        }
    }
    out
}

/// The definition of [`super::cross_layer`].
pub fn cross_layer_reference(x0: &[f32], u: &[f32], x: &[f32]) -> Vec<f64> {
    let product = |(&x0, &u): (&f32, &f32)| f64::from(x0) * f64::from(u);
    x0.iter().zip(u).map(product).zip(x).map(|(product, &x)| product + f64::from(x)).collect()
}

/// The definition of [`super::cross_layer_backward`]: the gradients of `x0` and `u`.
pub fn cross_layer_backward_reference(x0: &[f32], u: &[f32], gradient: &[f32]) -> [Vec<f64>; 2] {
    [u, x0]
        .map(|other| gradient.iter().zip(other).map(|(&g, &other)| f64::from(g) * f64::from(other)).collect())
}
