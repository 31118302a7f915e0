//! Cases of embedding_bag.

use super::{Case, Comparison, Failure, Numbers, Outcome, on_threads, operands, refused, same_bits};
use crate::{
    BagFeature, Bags, Buffer, Device, Error, Pooling, RowType, Table, embedding_bag, embedding_bag_backward,
    embedding_bag_backward_reference, embedding_bag_reference, embedding_bag_weights_backward,
    segment_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "embedding_bag/sizes, poolings, threads", run: sizes },
    Case { name: "embedding_bag/many tables of many kinds", run: many_tables },
    Case { name: "embedding_bag/chunks and company change no bits", run: bits },
    Case { name: "embedding_bag/more than 65,535 work groups", run: many_groups },
    Case { name: "embedding_bag/refusals", run: refusals },
];

/// Of the largest value: a bag of a few hundred rows, each product and each sum rounded once.
const TOLERANCE: f64 = 2e-6;

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

/// A feature's numbers.
struct Drawn {
    table: usize,
    rows: std::ops::Range<u64>,
    indices: Vec<u32>,
    offsets: Vec<u32>,
    weights: Vec<f32>,
    pooling: usize,
}

impl Drawn {
    /// Bags of 0 to 7 rows, every 5th empty and every 29th of 200; `pooling` 0 is sum, 1 mean, 2 weighted.
    fn new(
        numbers: &mut Numbers,
        table: usize,
        rows: std::ops::Range<u64>,
        n_bags: usize,
        pooling: usize,
    ) -> Self {
        let own = (rows.end - rows.start) as usize;
        let (mut indices, mut offsets) = (Vec::new(), vec![0]);
        for bag in 0..n_bags {
            let n = match bag {
                _ if bag % 5 == 3 || own == 0 => 0,
                _ if bag % 29 == 7 => 200,
                _ => numbers.below(8),
            };
            indices.extend((0..n).map(|_| numbers.below(own) as u32));
            offsets.push(indices.len() as u32);
        }
        let weights = indices.iter().map(|_| numbers.unit()).collect();
        Self { table, rows, indices, offsets, weights, pooling }
    }

    fn feature(&self) -> BagFeature<'_> {
        BagFeature {
            table: self.table,
            rows: self.rows.clone(),
            indices: &self.indices,
            offsets: &self.offsets,
            pooling: match self.pooling {
                0 => Pooling::Sum,
                1 => Pooling::Mean,
                _ => Pooling::Weighted(&self.weights),
            },
        }
    }
}

/// Runs forward, backward and segment on the device and compares with the references on the CPU.
fn compare(
    comparison: &mut Comparison,
    what: &str,
    on_cpu: &[&Table],
    on_device: &[&Table],
    features: &[BagFeature],
) -> Result<(), Failure> {
    let named = |part: &str| format!("{what}, {part}");
    let refused = |part: &str| other(named(part));
    let bags = Bags::new(on_device, features).map_err(refused("batch"))?;
    let device = bags.device();
    let out = embedding_bag(on_device, &bags).and_then(|out| out.to_vec()).map_err(refused("forward"))?;
    let expected = embedding_bag_reference(on_cpu, features).map_err(refused("reference"))?;
    comparison.close(|| named("forward"), &out, &expected, TOLERANCE)?;

    let mut numbers = Numbers::new(77);
    let gradient: Vec<f32> = expected.iter().map(|_| numbers.unit()).collect();
    let [of_rows, of_weights] =
        embedding_bag_backward_reference(on_cpu, features, &gradient).map_err(refused("reference"))?;
    let gradient =
        Buffer::from_slice(&gradient, device, "a conformance case").map_err(refused("gradient"))?;
    let rows = embedding_bag_backward(&bags, &gradient).map_err(refused("backward"))?;
    for (table, (got, expected)) in rows.iter().zip(&of_rows).enumerate() {
        let got = got.to_vec().map_err(refused("backward"))?;
        comparison.close(|| named(&format!("rows of table {table}")), &got, expected, TOLERANCE)?;
    }
    let weights =
        embedding_bag_weights_backward(on_device, &bags, &gradient).map_err(refused("weights backward"))?;
    for (at, (got, feature)) in weights.iter().zip(features).enumerate() {
        match (got, feature.pooling) {
            (Some(got), Pooling::Weighted(_)) => {
                let got = got.to_vec().map_err(refused("weights backward"))?;
                let named = || named(&format!("weights of feature {at}"));
                comparison.close(named, &got, &of_weights[at], TOLERANCE)?;
            }
            (None, Pooling::Sum | Pooling::Mean) => {}
            _ => return Err(Failure::Bits { what: named("which features have weights"), at }),
        }
    }
    for table in 0..on_device.len() {
        let got = bags.segment(table).and_then(|segment| segment.to_host()).map_err(refused("segment"))?;
        let indices: Vec<u32> = features
            .iter()
            .filter(|feature| feature.table == table)
            .flat_map(|feature| feature.indices.iter().map(|&index| feature.rows.start as u32 + index))
            .collect();
        if got != segment_reference(&indices) {
            return Err(Failure::Bits { what: named("segment of table"), at: table });
        }
    }
    Ok(())
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (rows, dim, n_bags) in
        [(1, 1, 1), (31, 32, 33), (32, 33, 31), (33, 31, 32), (7, 64, 0), (300, 6, 257), (64, 128, 65)]
    {
        for pooling in 0..3 {
            let what = format!("{rows} rows, dim {dim}, {n_bags} bags, pooling {pooling}");
            let mut numbers = Numbers::new((rows + dim) as u64);
            let table = |device| Numbers::new(3).table(rows, dim, 16, device).map_err(other(what.clone()));
            let (on_cpu, on_device) = (table(Device::Cpu)?, table(device)?);
            let drawn = Drawn::new(&mut numbers, 0, 0..rows as u64, n_bags, pooling);
            for threads in [1, 3] {
                on_threads(threads, || {
                    compare(&mut comparison, &what, &[&on_cpu], &[&on_device], &[drawn.feature()])
                })?;
            }
        }
    }
    comparison.outcome()
}

/// Dimensions, row types and chunk counts that differ; features that share a table, lie behind one another, or are empty.
fn many_tables(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let mut types = vec![RowType::F32, RowType::F16, RowType::Bf16];
    // int8 rows are read on the CPU alone.
    types.extend((device == Device::Cpu).then_some(RowType::Int8));
    let (mut on_cpu, mut on_device) = (Vec::new(), Vec::new());
    for (at, &row_type) in types.iter().cycle().take(16).enumerate() {
        let what = format!("table {at} of {row_type:?}");
        let dim = if at < 8 { 8 } else { [2, 8, 8, 8, 64, 8, 8, 8][at - 8] };
        let chunk_rows = [128, 16, 64, 2, 32][at % 5];
        let table = Numbers::new(at as u64)
            .table(if at == 13 { 0 } else { 100 }, dim, chunk_rows, Device::Cpu)
            .and_then(|table| operands::narrow(&table, row_type))
            .map_err(other(what.clone()))?;
        on_device.push(operands::on_device(&table, device).map_err(other(what))?);
        on_cpu.push(table);
    }
    let mut numbers = Numbers::new(6);
    for n_bags in [1, 40] {
        let mut drawn: Vec<Drawn> = (0..16)
            .map(|table| Drawn::new(&mut numbers, table, 0..on_cpu[table].rows(), n_bags, table / 3 % 3))
            .collect();
        // Two more features of table 4, and one of table 9 that is behind its first rows.
        drawn.push(Drawn::new(&mut numbers, 4, 0..100, n_bags, 0));
        drawn.insert(0, Drawn::new(&mut numbers, 4, 70..100, n_bags, 2));
        drawn.push(Drawn::new(&mut numbers, 9, 31..33, n_bags, 1));
        let features: Vec<BagFeature> = drawn.iter().map(Drawn::feature).collect();
        let (on_cpu, on_device): (Vec<_>, Vec<_>) = (on_cpu.iter().collect(), on_device.iter().collect());
        let what = format!("19 features, {n_bags} bags");
        compare(&mut comparison, &what, &on_cpu, &on_device, &features)?;
        // An odd column before the others: no output is a whole number of vectors.
        let mut with_odd = on_device.clone();
        let one = Numbers::new(1).table(10, 1, 16, device).map_err(other(what.clone()))?;
        let one_on_cpu = Numbers::new(1).table(10, 1, 16, Device::Cpu).map_err(other(what.clone()))?;
        with_odd.push(&one);
        let mut cpu_with_odd = on_cpu.clone();
        cpu_with_odd.push(&one_on_cpu);
        let odd = Drawn::new(&mut numbers, 16, 0..10, n_bags, 0);
        let features: Vec<BagFeature> = std::iter::once(&odd).chain(&drawn).map(Drawn::feature).collect();
        compare(&mut comparison, "an odd column first", &cpu_with_odd, &with_odd, &features)?;
    }
    comparison.outcome()
}

/// One bag has the same bits in a table of one chunk and of many, alone and beside others; a sum also those of the CPU.
fn bits(device: Device) -> Result<Outcome, Failure> {
    for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
        for dim in [4, 12, 64] {
            let what = format!("{row_type:?}, dim {dim}");
            let table = |chunk_rows, device| {
                Numbers::new(dim as u64)
                    .table(100, dim, chunk_rows, Device::Cpu)
                    .and_then(|table| operands::narrow(&table, row_type))
                    .and_then(|table| operands::on_device(&table, device))
                    .map_err(other(what.clone()))
            };
            let run = |table: &Table, features: &[BagFeature]| {
                Bags::new(&[table], features)
                    .and_then(|bags| embedding_bag(&[table], &bags))
                    .and_then(|out| out.to_vec())
                    .map_err(other(what.clone()))
            };
            for pooling in 0..3 {
                let drawn = Drawn::new(&mut Numbers::new(9), 0, 0..100, 30, pooling);
                let whole = run(&table(128, device)?, &[drawn.feature()])?;
                // 1 chunk, 4, 13, and more than a kernel binds.
                for chunk_rows in [32, 8, 1] {
                    let part = run(&table(chunk_rows, device)?, &[drawn.feature()])?;
                    same_bits(
                        || format!("{what}, pooling {pooling}, chunks of {chunk_rows}"),
                        &part,
                        &whole,
                    )?;
                }
                let beside = run(&table(16, device)?, &[drawn.feature(), drawn.feature()])?;
                let left: Vec<f32> =
                    beside.chunks_exact(2 * dim).flat_map(|bag| bag[..dim].to_vec()).collect();
                same_bits(|| format!("{what}, pooling {pooling}, beside another"), &left, &whole)?;
                let (begin, end) = (drawn.offsets[7] as usize, drawn.offsets[8] as usize);
                let alone = BagFeature {
                    indices: &drawn.indices[begin..end],
                    offsets: &[0, (end - begin) as u32],
                    pooling: match drawn.feature().pooling {
                        Pooling::Weighted(weights) => Pooling::Weighted(&weights[begin..end]),
                        pooling => pooling,
                    },
                    ..drawn.feature()
                };
                let alone = run(&table(128, device)?, &[alone])?;
                same_bits(|| format!("{what}, pooling {pooling}, alone"), &alone, &whole[7 * dim..8 * dim])?;
                if pooling == 0 {
                    let on_cpu = run(&table(128, Device::Cpu)?, &[drawn.feature()])?;
                    same_bits(|| format!("{what}, beside the CPU"), &whole, &on_cpu)?;
                }
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn many_groups(device: Device) -> Result<Outcome, Failure> {
    // A work group of 256 units makes 64 bags of 16 values.
    let (dim, n_bags) = (16, 65_600 * 64);
    let what = format!("{n_bags} bags");
    let table = Numbers::new(2).table(50, dim, 64, device).map_err(other(what.clone()))?;
    let indices: Vec<u32> = (0..n_bags as u32).map(|bag| bag % 50).collect();
    let offsets: Vec<u32> = (0..=n_bags as u32).collect();
    let feature =
        BagFeature { table: 0, rows: 0..50, indices: &indices, offsets: &offsets, pooling: Pooling::Sum };
    let result = Bags::new(&[&table], &[feature]).and_then(|bags| embedding_bag(&[&table], &bags));
    let out = match result {
        // 256 MiB are more than some devices bind at once; that is an error as it should be.
        Err(Error::BufferTooLarge { .. }) => return fewer_groups(device),
        result => result.and_then(|out| out.to_vec()).map_err(other(what.clone()))?,
    };
    let rows = table.to_f32().map_err(other(what.clone()))?;
    for (bag, got) in out.chunks_exact(dim).enumerate() {
        same_bits(|| format!("bag {bag}"), got, &rows[bag % 50 * dim..][..dim])?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// As many groups with vectors of one value: 3 odd columns.
fn fewer_groups(device: Device) -> Result<Outcome, Failure> {
    let (dim, n_bags) = (3, 65_600 * 256 / 3);
    let what = format!("{n_bags} bags of odd rows");
    let table = Numbers::new(2).table(50, dim, 64, device).map_err(other(what.clone()))?;
    let indices: Vec<u32> = (0..n_bags as u32).map(|bag| bag % 50).collect();
    let offsets: Vec<u32> = (0..=n_bags as u32).collect();
    let feature =
        BagFeature { table: 0, rows: 0..50, indices: &indices, offsets: &offsets, pooling: Pooling::Sum };
    let out = Bags::new(&[&table], &[feature])
        .and_then(|bags| embedding_bag(&[&table], &bags))
        .and_then(|out| out.to_vec())
        .map_err(other(what.clone()))?;
    let rows = table.to_f32().map_err(other(what))?;
    for (bag, got) in out.chunks_exact(dim).enumerate() {
        same_bits(|| format!("bag {bag}"), got, &rows[bag % 50 * dim..][..dim])?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let table = Numbers::new(2).table(10, 3, 4, device).map_err(other("a table".into()))?;
    let feature =
        |indices, offsets| BagFeature { table: 0, rows: 0..10, indices, offsets, pooling: Pooling::Sum };
    refused("an index past the rows", Bags::new(&[&table], &[feature(&[0, 10], &[0, 2])]), |error| {
        matches!(error, Error::IndexOutOfRange { position: 1, rows: 10, index: 10, .. })
    })?;
    refused("offsets past the indices", Bags::new(&[&table], &[feature(&[0, 9], &[0, 3])]), |error| {
        matches!(error, Error::Parameter { what: "offsets", got: 3.0, .. })
    })?;
    let bags = Bags::new(&[&table], &[feature(&[0, 9], &[0, 2])]).map_err(other("bags".into()))?;
    let longer = Numbers::new(2).table(11, 3, 4, device).map_err(other("a table".into()))?;
    refused("another table", embedding_bag(&[&longer], &bags), |error| {
        matches!(error, Error::Shape { what: "table", .. })
    })?;
    if device != Device::Cpu {
        let half = operands::narrow(
            &Numbers::new(2).table(10, 3, 4, Device::Cpu).map_err(other("a table".into()))?,
            RowType::F16,
        )
        .and_then(|table| operands::on_device(&table, device))
        .map_err(other("a table".into()))?;
        let run =
            Bags::new(&[&half], &[feature(&[0, 9], &[0, 2])]).and_then(|bags| embedding_bag(&[&half], &bags));
        refused("16-bit rows of an odd dimension", run, |error| {
            matches!(error, Error::Parameter { what: "dim", got: 3.0, .. })
        })?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}
