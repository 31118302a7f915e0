//! The operations on a GPU: burn's tensors and our kernels over the same memory.
//!
//! Products are burn's, and so is, by its definition, what a device has no kernel for. burn's operations return no errors: what a kernel
//! refuses for another reason, such as want of memory, is kept for [`check_answers`], and what is computed in its place is never believed.

use burn::tensor::{DType, Shape, TensorMetadata, ops::FloatTensor};
use burn_cubecl::{CubeBackend, CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use recmill_kernels::{
    Buffer, Device, Error, GpuRuntime, check_answers, cross_layer, cross_layer_backward, fm_second_order,
    fm_second_order_backward, pairwise_dots, pairwise_dots_backward, refuse_answers,
};

use super::{CrossGradients, DenseBackend, DeviceBackend, backend::by_definition};
use crate::Result;

/// What is computed with on a GPU.
pub type Gpu<R> = CubeBackend<R, f32, i32, u8>;

type Kernel<T> = recmill_kernels::Result<T>;

/// The buffer that shares a tensor's memory; a copy only where its values are in another order.
fn buffer<R: GpuRuntime + CubeRuntime>(tensor: CubeTensor<R>) -> Kernel<Buffer<f32>> {
    let device = R::device_called(&tensor.device)?;
    let tensor = into_contiguous(tensor);
    let len = tensor.shape().num_elements();
    Buffer::from_shared::<R>(tensor.handle, len, device, "a tensor")
}

/// The tensor that shares a buffer's memory.
fn tensor<R: GpuRuntime + CubeRuntime>(buffer: &Buffer<f32>, shape: Shape) -> Kernel<CubeTensor<R>> {
    let shared = buffer.share::<R>()?;
    Ok(CubeTensor::new_contiguous(shared.client, shared.device, shape, shared.handle, DType::F32))
}

/// Fields and values of a field of `[rows, fields, dim]`.
fn fields<R: CubeRuntime>(x: &CubeTensor<R>) -> [usize; 3] {
    x.shape().dims()
}

/// Returns what a kernel found, and otherwise what the definition gives.
fn or_by_definition<T>(found: Kernel<T>, definition: impl FnOnce() -> T) -> T {
    found.unwrap_or_else(|error| {
        if !matches!(error, Error::NotOnDevice { .. }) {
            refuse_answers(error);
        }
        definition()
    })
}

impl<R: GpuRuntime + CubeRuntime> DenseBackend for Gpu<R> {
    fn second_order(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [rows, fields, dim] = fields(&x);
        let kernel = || tensor(&fm_second_order(&buffer(x.clone())?, fields, dim)?, Shape::new([rows, 1]));
        or_by_definition(kernel(), || by_definition::second_order::<Self>(x.clone()))
    }

    fn second_order_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, fields, dim] = fields(&x);
        let kernel = || {
            let (of_x, gradient) = (buffer(x.clone())?, buffer(gradient.clone())?);
            tensor(&fm_second_order_backward(&of_x, fields, dim, &gradient)?, x.shape())
        };
        or_by_definition(kernel(), || {
            by_definition::second_order_backward::<Self>(x.clone(), gradient.clone())
        })
    }

    fn pairwise_dots(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [rows, fields, dim] = fields(&x);
        let shape = Shape::new([rows, fields * fields.saturating_sub(1) / 2]);
        let kernel = || tensor(&pairwise_dots(&buffer(x.clone())?, fields, dim)?, shape);
        or_by_definition(kernel(), || by_definition::pairwise_dots::<Self>(x.clone()))
    }

    fn pairwise_dots_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, fields, dim] = fields(&x);
        let kernel = || {
            let (of_x, gradient) = (buffer(x.clone())?, buffer(gradient.clone())?);
            tensor(&pairwise_dots_backward(&of_x, fields, dim, &gradient)?, x.shape())
        };
        or_by_definition(kernel(), || {
            by_definition::pairwise_dots_backward::<Self>(x.clone(), gradient.clone())
        })
    }

    fn cross(x0: FloatTensor<Self>, u: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        let kernel = || {
            let [of_x0, of_u, of_x] = [&x0, &u, &x].map(|tensor| buffer(tensor.clone()));
            tensor(&cross_layer(&of_x0?, &of_u?, &of_x?)?, x.shape())
        };
        or_by_definition(kernel(), || by_definition::cross::<Self>(x0.clone(), u.clone(), x.clone()))
    }

    fn cross_backward(
        x0: FloatTensor<Self>,
        u: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> CrossGradients<Self> {
        let kernel = || {
            let [of_x0, of_u, of] = [&x0, &u, &gradient].map(|tensor| buffer(tensor.clone()));
            let (of_x0, of_u) = cross_layer_backward(&of_x0?, &of_u?, &of?)?;
            let [of_x0, of_u] = [of_x0, of_u].map(|buffer| tensor(&buffer, x0.shape()));
            Ok::<_, recmill_kernels::Error>(CrossGradients { x0: of_x0?, u: of_u?, x: gradient.clone() })
        };
        or_by_definition(kernel(), || {
            by_definition::cross_backward::<Self>(x0.clone(), u.clone(), gradient.clone())
        })
    }
}

impl<R: GpuRuntime + CubeRuntime> DeviceBackend for Gpu<R> {
    fn device(device: Device) -> Result<Self::Device> {
        Ok(R::runtime_device(device)?)
    }

    fn from_buffer(buffer: Buffer<f32>, shape: Shape) -> Result<FloatTensor<Self>> {
        Ok(tensor(&buffer, shape)?)
    }

    fn into_buffer(tensor: FloatTensor<Self>) -> Result<Buffer<f32>> {
        Ok(buffer(tensor)?)
    }

    fn check_answers(device: Device) -> Result<()> {
        Ok(check_answers::<R>(device)?)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};
    use recmill_kernels::{Candidates, CudaRuntime, WgpuRuntime, conformance::devices};

    use super::*;
    use crate::dense::{
        Activation, Attention, BatchNormState, Cpu, DenseRule, OptimizerState,
        backend::{primitive, some_dropped, tensor as wrap},
        buffer_of, matrix_of,
        sequences_by_definition::LOSSES,
    };
    use crate::rankers::DenseOptimizer;

    /// Values of any shape, the same on every backend.
    fn some<B: DenseBackend, const D: usize>(
        shape: [usize; D],
        salt: usize,
        device: &B::Device,
    ) -> FloatTensor<B> {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|at| ((at * 37 + salt * 11) % 23) as f32 / 11.0 - 1.0).collect();
        primitive(Tensor::<B, D>::from_data(TensorData::new(values, shape), device))
    }

    /// Every operation's results, by name.
    fn results<B: DeviceBackend>(device: &B::Device) -> Vec<(String, Vec<f32>)> {
        let mut found = Vec::new();
        let mut add = |what: String, values: FloatTensor<B>| {
            found.push((what, buffer_of(wrap::<B, 2>(values)).unwrap().into_vec().unwrap()));
        };
        let row = |values: FloatTensor<B>| primitive(wrap::<B, 1>(values).unsqueeze::<2>());
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (40, 33, 18), (3, 1, 70)] {
            for activation in [Activation::Identity, Activation::Relu] {
                let what = |of: &str| format!("{of}, {activation:?}, {rows} x {inputs} x {outputs}");
                let (x, w) =
                    (some::<B, 2>([rows, inputs], 1, device), some::<B, 2>([inputs, outputs], 2, device));
                let y = B::linear_layer(x.clone(), w.clone(), some::<B, 1>([outputs], 3, device), activation);
                add(what("linear"), y.clone());
                let g = some::<B, 2>([rows, outputs], 4, device);
                let gradients = B::linear_layer_backward(x, w, y, g, activation, true);
                add(what("linear weight"), gradients.weight);
                add(what("linear bias"), row(gradients.bias));
                add(what("linear x"), gradients.x.unwrap());
            }
        }
        for (rows, fields, dim) in [(1, 1, 1), (5, 2, 3), (9, 27, 16), (3, 4, 33)] {
            let what = |of: &str| format!("{of}, {rows} x {fields} x {dim}");
            let flat = |values: FloatTensor<B>| primitive(wrap::<B, 3>(values).reshape([rows, fields * dim]));
            let x = some::<B, 3>([rows, fields, dim], 5, device);
            add(what("second order"), B::second_order(x.clone()));
            let g = some::<B, 2>([rows, 1], 6, device);
            add(what("second order backward"), flat(B::second_order_backward(x.clone(), g)));
            if fields > 1 {
                add(what("dots"), B::pairwise_dots(x.clone()));
                let g = some::<B, 2>([rows, fields * (fields - 1) / 2], 7, device);
                add(what("dots backward"), flat(B::pairwise_dots_backward(x, g)));
            }
        }
        for (rows, width) in [(2, 3), (70, 16), (33, 1)] {
            let what = |of: &str| format!("{of}, {rows} x {width}");
            let columns = |salt| some::<B, 1>([width], salt, device);
            let x = || some::<B, 2>([rows, width], 20, device);
            for activation in [Activation::Identity, Activation::Relu] {
                let normed = B::batch_norm(x(), columns(21), columns(22), activation);
                add(what("batch norm"), normed.y.clone());
                add(what("batch norm mean"), row(normed.mean.clone()));
                add(what("batch norm variance"), row(normed.variance.clone()));
                let statistics = [normed.mean.clone(), normed.variance.clone()];
                add(what("normalize"), B::normalize(x(), [columns(21), columns(22)], statistics, activation));
                let state = BatchNormState { x: x(), scale: columns(21), normed, activation };
                let gradients = B::batch_norm_backward(state, some::<B, 2>([rows, width], 23, device));
                add(what("batch norm backward"), gradients.x);
                add(what("batch norm scale"), row(gradients.scale));
                add(what("batch norm shift"), row(gradients.shift));
            }
            let [x0, u, g] = [8, 9, 11].map(|salt| some::<B, 2>([rows, width], salt, device));
            add(what("cross"), B::cross(x0.clone(), u.clone(), x()));
            let gradients = B::cross_backward(x0, u, g);
            for (of, values) in [("x0", gradients.x0), ("u", gradients.u), ("x", gradients.x)] {
                add(what(of), values);
            }
            // Columns of a wider tensor, and rows that were columns: memory in another order.
            let a = wrap::<B, 2>(some::<B, 2>([rows, width + 3], 12, device)).slice([0..rows, 2..width + 2]);
            let b = wrap::<B, 2>(some::<B, 2>([5, rows], 13, device)).transpose();
            let joined = B::join(primitive(a.clone()), primitive(b.clone()));
            add(what("join"), joined.clone());
            for part in B::join_backward(joined, width) {
                add(what("part"), part);
            }
            add(what("cross of views"), B::cross(primitive(a.clone()), primitive(a.clone()), primitive(a)));
        }
        for (rows, width) in [(1, 4), (70, 16)] {
            let columns = |salt| some::<B, 1>([width], salt, device);
            let x = || some::<B, 2>([rows, width], 30, device);
            add("normalize rows".into(), B::normalize_rows(x(), columns(31), columns(32)));
            let gradients =
                B::normalize_rows_backward(x(), columns(31), some::<B, 2>([rows, width], 33, device));
            add("normalize rows backward".into(), gradients.x);
            add("scale of rows".into(), row(gradients.scale));
            add("shift of rows".into(), row(gradients.shift));
        }
        for (ends, width, heads) in [(&[3][..], 4, 2), (&[0, 2, 2, 9, 10], 6, 1), (&[40, 41], 8, 4)] {
            let rows = ends[ends.len() - 1] as usize;
            let of = Attention { ends: ends.into(), heads, kept: None };
            let qkv = || some::<B, 2>([rows, 3 * width], 34, device);
            let dropped = some_dropped(ends, heads);
            add("attention with dropout".into(), B::causal_attention(qkv(), &dropped));
            let gradient = some::<B, 2>([rows, width], 35, device);
            add(
                "attention with dropout backward".into(),
                B::causal_attention_backward(qkv(), gradient, &dropped),
            );
            add("attention".into(), B::causal_attention(qkv(), &of));
            let gradient = some::<B, 2>([rows, width], 35, device);
            add("attention backward".into(), B::causal_attention_backward(qkv(), gradient, &of));
            add("attention of the last row".into(), B::attend_last(qkv(), heads));
            let x = || some::<B, 2>([rows, 3 * width], 39, device);
            let parameters =
                || [some::<B, 2>([width, 3 * width], 40, device), some::<B, 1>([3 * width], 41, device)];
            let [weight, bias] = parameters();
            let states = B::gru(x(), weight, bias, &of.ends);
            add("gru".into(), states.clone());
            let gradient = some::<B, 2>([rows, width], 42, device);
            let gradients = B::gru_backward(x(), parameters(), states, gradient, &of.ends);
            add("gru backward".into(), gradients.x);
            add("gru weight".into(), gradients.weight);
            add("gru bias".into(), row(gradients.bias));
            let state = some::<B, 2>([rows, width], 43, device);
            add("gru step".into(), B::gru_step(x(), parameters(), state));
        }
        let (groups, hidden) = ([0, 1, 0], [vec![0, 2], vec![]]);
        for (groups, hidden) in [(&groups[..], &hidden[..]), (&[], &[])] {
            let common = if groups.is_empty() { 3 } else { 5 };
            let of = Candidates { n: 5, common, targets: &[2, 0, 4], groups, hidden };
            for loss in LOSSES {
                let [x, candidates] = [(3, 36), (5, 37)].map(|(n, salt)| some::<B, 2>([n, 7], salt, device));
                let found = B::against(x, candidates, some::<B, 1>([5], 38, device), &of, loss, 0.5);
                add(format!("{loss:?}"), primitive(found.losses.unsqueeze::<2>()));
                add(format!("rows of {loss:?}"), primitive(found.rows));
                add(format!("candidates of {loss:?}"), primitive(found.candidates));
            }
        }
        for optimizer in
            [DenseOptimizer::Sgd, DenseOptimizer::Adagrad, DenseOptimizer::Adam, DenseOptimizer::Adamw]
        {
            let mut state = OptimizerState::<B>::default();
            let values = |salt| wrap::<B, 1>(some::<B, 1>([50], salt, device));
            let mut parameter = values(12);
            for step in 1..=4 {
                let rule = DenseRule {
                    optimizer,
                    learning_rate: 0.1,
                    weight_decay: 0.02,
                    step,
                    gradient_scale: 0.5,
                };
                parameter = B::optimizer_step(parameter, values(12 + step as usize), &mut state, &rule);
            }
            add(format!("{optimizer:?}"), primitive(parameter.unsqueeze::<2>()));
        }
        found
    }

    #[test]
    fn every_device_has_the_operations_of_the_cpu() {
        let expected = results::<Cpu>(&Default::default());
        for device in devices() {
            let found = match device {
                Device::Cpu => continue,
                Device::Cuda(_) => results::<Gpu<CudaRuntime>>(&Gpu::<CudaRuntime>::device(device).unwrap()),
                Device::Wgpu(_) => results::<Gpu<WgpuRuntime>>(&Gpu::<WgpuRuntime>::device(device).unwrap()),
            };
            // Some devices multiply f32 in units that keep ten bits of a fraction.
            let within = if matches!(device, Device::Cuda(_)) { 3e-3 } else { 2e-5 };
            for ((what, ours), (_, expected)) in found.iter().zip(&expected) {
                assert_eq!(ours.len(), expected.len(), "{what} on {device}");
                for (a, b) in ours.iter().zip(expected) {
                    assert!((a - b).abs() <= within * (1.0 + b.abs()), "{what} on {device}: {a} beside {b}");
                }
            }
        }
    }

    #[test]
    fn a_buffer_and_a_tensor_are_the_same_memory() {
        for device in devices() {
            let Device::Wgpu(_) = device else { continue };
            type Wgpu = Gpu<WgpuRuntime>;
            let buffer = Buffer::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], device, "a test").unwrap();
            let matrix = matrix_of::<Wgpu>(buffer, 3).unwrap();
            assert_eq!(matrix.dims(), [2, 3]);
            let turned = buffer_of(matrix.clone().transpose()).unwrap();
            assert_eq!(turned.into_vec().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
            let again = buffer_of(matrix.clone()).unwrap();
            // What burn may change in place is not what a buffer still holds.
            let more = matrix.add_scalar(1.0);
            assert_eq!(again.into_vec().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            assert_eq!(buffer_of(more).unwrap().into_vec().unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
            assert!(Wgpu::device(Device::Cpu).is_err());
            let elsewhere = Buffer::from_vec(vec![1.0f32], "a test").unwrap();
            assert!(matrix_of::<Wgpu>(elsewhere, 1).is_err());
        }
    }
}
