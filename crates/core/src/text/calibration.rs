//! What makes scores probabilities, and when a probability is too small: both from texts that nothing was learned from.

/// Returns the temperature by which the scores of held-out texts predict their classes best.
///
/// ```text
/// T minimises  Σ_i (1 - ε) L_i,class(i) + ε / K Σ_c L_ic     L_ic = -ln softmax(z_i / T)_c,   ε = 1 / (n + 2),   T from 0.05 to 20
/// ```
/// The sum is convex in `1 / T`, so that a golden-section search finds its least value. 1 where there is no text. `ε` stands for the
/// texts that are not among the `n`: with them all guessed rightly the best `T` would be 0, and every probability 1.
///
/// Source of `ε`: Platt 1999, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods".
///
/// # Shapes
/// - `logits`: `[texts, n_classes]`; `classes`: `[texts]`, each below `n_classes`
pub fn fit_temperature(logits: &[f32], classes: &[u32], n_classes: usize) -> f32 {
    if classes.is_empty() {
        return 1.0;
    }
    let missed = 1.0 / (classes.len() as f64 + 2.0);
    let loss = |inverse: f64| -> f64 {
        let rows = logits.chunks_exact(n_classes).zip(classes);
        rows.map(|(z, &class)| {
            let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let below = |z: f32| f64::from(z - most) * inverse;
            let sum: f64 = z.iter().map(|&z| below(z).exp()).sum();
            let mean = z.iter().map(|&z| below(z)).sum::<f64>() / n_classes as f64;
            sum.ln() - (1.0 - missed) * below(z[class as usize]) - missed * mean
        })
        .sum()
    };
    let golden = 0.5 * (5.0f64.sqrt() - 1.0);
    let (mut low, mut high) = (1.0 / 20.0, 1.0 / 0.05);
    let mut inner = [high - golden * (high - low), low + golden * (high - low)];
    let mut found = inner.map(loss);
    while high - low > 1e-4 * low {
        if found[0] <= found[1] {
            (high, inner[1], found[1]) = (inner[1], inner[0], found[0]);
            inner[0] = high - golden * (high - low);
            found[0] = loss(inner[0]);
        } else {
            (low, inner[0], found[0]) = (inner[0], inner[1], found[1]);
            inner[1] = low + golden * (high - low);
            found[1] = loss(inner[1]);
        }
    }
    (2.0 / (low + high)) as f32
}

/// Returns the threshold by which most of some texts are judged rightly: 0 where none is out of scope.
///
/// A text of a class is judged rightly when its most likely class is the right one and not below the threshold, one that is out
/// of scope when it is. Of thresholds that are equally good it is the lowest, which turns away the fewest.
///
/// # Shapes
/// - `in_scope`: of each text of a class the probability of its most likely class, and whether that is right
/// - `out_of_scope`: of each other text that probability
pub fn fit_threshold(in_scope: &[(f32, bool)], out_of_scope: &[f32]) -> f32 {
    // What is gained when a text falls below the threshold.
    let of_class = in_scope.iter().map(|&(p, right)| (p, -i64::from(right)));
    let mut gains: Vec<(f32, i64)> = of_class.chain(out_of_scope.iter().map(|&p| (p, 1))).collect();
    gains.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut best, mut threshold, mut gained) = (0, 0.0, 0);
    for (at, &(p, gain)) in gains.iter().enumerate() {
        gained += gain;
        let next = gains.get(at + 1).map_or(1.0, |next| next.0);
        if gained > best && next > p {
            (best, threshold) = (gained, 0.5 * (p + next));
        }
    }
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_undoes_a_stretch() {
        // Two classes, right in 3000 of 4000 cases: the log-odds ln 3 say so, and here they are stretched fivefold.
        let z = 3.0f32.ln() * 5.0;
        let logits = [z, 0.0].repeat(4000);
        let temperature = fit_temperature(&logits, &[0, 0, 1, 0].repeat(1000), 2);
        assert!((temperature - 5.0).abs() < 1e-2, "{temperature}");
        assert_eq!(fit_temperature(&[], &[], 2), 1.0);
        // Of two texts none is wrong: with ε = 1/4 the right class is to have 1 - 1/8, which are log-odds of ln 7.
        let temperature = fit_temperature(&[1.0, 0.0, 0.0, 1.0], &[0, 1], 2);
        assert!((temperature - 1.0 / 7.0f32.ln()).abs() < 1e-3, "{temperature}");
    }

    #[test]
    fn thresholds_by_hand() {
        let in_scope = [(0.9, true), (0.8, true), (0.3, false), (0.5, true)];
        assert_eq!(fit_threshold(&in_scope, &[]), 0.0);
        // Between 0.4 and 0.5 both of the others are turned away and nobody who is right.
        assert_eq!(fit_threshold(&in_scope, &[0.2, 0.4]), 0.45);
        // One lost for one gained is no gain.
        assert_eq!(fit_threshold(&in_scope, &[0.6]), 0.0);
        assert_eq!(fit_threshold(&in_scope, &[0.6, 0.7]), 0.75);
        // Equal probabilities cannot be told apart.
        assert_eq!(fit_threshold(&[(0.5, true)], &[0.5]), 0.0);
        assert_eq!(fit_threshold(&[], &[1.0]), 0.0);
        assert_eq!(fit_threshold(&[], &[0.5]), 0.75);
    }
}
