//! A network on the device that it scores on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use recmill_kernels::{CudaRuntime, Device, WgpuRuntime};

use super::{AnyNetwork, EmbeddingTables, RankerModel, Shape, log_odds};
use crate::{
    Parameters, Result,
    dense::{Cpu, DeviceBackend, Gpu, load_parameters, put_parameters},
    features::FeatureBatch,
};

/// A network on one of the devices; a copy shares its parameters.
#[derive(Clone, Debug)]
pub(super) enum PlacedNetwork {
    /// On the CPU.
    Cpu(AnyNetwork<Cpu>),
    /// On an NVIDIA GPU.
    Cuda(AnyNetwork<Gpu<CudaRuntime>>),
    /// On a graphics adapter.
    Wgpu(AnyNetwork<Gpu<WgpuRuntime>>),
}

impl PlacedNetwork {
    /// Makes the network of `model` on `device` with the parameters of this one.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when the device cannot be used or there is no memory.
    pub(super) fn moved_to(&self, device: Device, model: &RankerModel, shape: &Shape) -> Result<Self> {
        let mut parameters = Parameters::default();
        self.put(&mut parameters)?;
        Ok(match device {
            Device::Cpu => Self::Cpu(network_of(&mut parameters, model, shape, device)?),
            Device::Cuda(_) => Self::Cuda(network_of(&mut parameters, model, shape, device)?),
            Device::Wgpu(_) => Self::Wgpu(network_of(&mut parameters, model, shape, device)?),
        })
    }

    /// Adds the parameters to those of a model.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy.
    pub(super) fn put(&self, parameters: &mut Parameters) -> Result<()> {
        match self {
            Self::Cpu(network) => put_parameters(network, parameters),
            Self::Cuda(network) => put_parameters(network, parameters),
            Self::Wgpu(network) => put_parameters(network, parameters),
        }
    }

    /// As [`log_odds`], with tables and network on `device`.
    pub(super) fn log_odds(
        &self,
        device: Device,
        tables: &EmbeddingTables,
        shape: &Shape,
        batch: &FeatureBatch,
    ) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(network) => log_odds_on(network, device, tables, shape, batch),
            Self::Cuda(network) => log_odds_on(network, device, tables, shape, batch),
            Self::Wgpu(network) => log_odds_on(network, device, tables, shape, batch),
        }
    }
}

fn log_odds_on<B: DeviceBackend>(
    network: &AnyNetwork<B>,
    device: Device,
    tables: &EmbeddingTables,
    shape: &Shape,
    batch: &FeatureBatch,
) -> Result<Vec<f32>> {
    let score = || {
        let log_odds = log_odds(network, tables, shape, batch, &B::device(device)?)?;
        B::check_answers(device)?;
        Ok(log_odds)
    };
    if device == Device::Cpu {
        return score();
    }
    // burn panics where a device refuses; what has failed is the device, not the program.
    catch_unwind(AssertUnwindSafe(score))
        .unwrap_or_else(|_| Err(recmill_kernels::Error::DeviceLost { device, doing: "scoring" }.into()))
}

/// Makes a network on `device` of its parameters.
///
/// # Errors
/// [`crate::Error::MissingDense`], [`crate::Error::WrongSize`] when they are not of this model; as [`DeviceBackend::device`].
pub(super) fn network_of<B: DeviceBackend>(
    parameters: &mut Parameters,
    model: &RankerModel,
    shape: &Shape,
    device: Device,
) -> Result<AnyNetwork<B>> {
    load_parameters(AnyNetwork::new(model, shape, 0, &B::device(device)?), parameters)
}
