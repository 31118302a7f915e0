//! A network on the device that it scores on.

use recmill_kernels::Device;

use super::{AnyNetwork, EmbeddingTables, RankerModel, Shape, log_odds};
use crate::{
    Parameters, Result,
    dense::{Cpu, DeviceBackend, guarded, load_parameters, put_parameters},
    features::FeatureBatch,
};

/// A network on one of the devices; a copy shares its parameters.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one, whatever is built in")]
pub(super) enum PlacedNetwork {
    /// On the CPU.
    Cpu(AnyNetwork<Cpu>),
    /// On an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(AnyNetwork<crate::dense::Gpu<recmill_kernels::CudaRuntime>>),
    /// On a graphics adapter.
    #[cfg(feature = "wgpu")]
    Wgpu(AnyNetwork<crate::dense::Gpu<recmill_kernels::WgpuRuntime>>),
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
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Self::Cuda(network_of(&mut parameters, model, shape, device)?),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => Self::Wgpu(network_of(&mut parameters, model, shape, device)?),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            device => return Err(device.not_built().into()),
        })
    }

    /// Adds the parameters to those of a model.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy.
    pub(super) fn put(&self, parameters: &mut Parameters) -> Result<()> {
        match self {
            Self::Cpu(network) => put_parameters(network, parameters),
            #[cfg(feature = "cuda")]
            Self::Cuda(network) => put_parameters(network, parameters),
            #[cfg(feature = "wgpu")]
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
            #[cfg(feature = "cuda")]
            Self::Cuda(network) => log_odds_on(network, device, tables, shape, batch),
            #[cfg(feature = "wgpu")]
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
    guarded(device, "scoring", || {
        let log_odds = log_odds(network, tables, shape, batch, &B::device(device)?)?;
        B::check_answers(device)?;
        Ok(log_odds)
    })
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
