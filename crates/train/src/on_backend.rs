//! Which backend of networks computes on a device.

/// Makes a result of something with `$B` for the backend that computes on `$device`; an error where this build has none.
macro_rules! on_backend {
    ($device:expr, $B:ident => $make:expr) => {
        match $device {
            recmill_kernels::Device::Cpu => {
                type $B = recmill_core::dense::Cpu;
                $make
            }
            #[cfg(feature = "cuda")]
            recmill_kernels::Device::Cuda(_) => {
                type $B = recmill_core::dense::Gpu<recmill_kernels::CudaRuntime>;
                $make
            }
            #[cfg(feature = "wgpu")]
            recmill_kernels::Device::Wgpu(_) => {
                type $B = recmill_core::dense::Gpu<recmill_kernels::WgpuRuntime>;
                $make
            }
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            device => Err(device.not_built().into()),
        }
    };
}
