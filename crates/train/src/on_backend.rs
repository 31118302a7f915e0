//! Which backend of networks computes on a device.

/// Makes something with `$B` for the backend that computes on `$device`.
macro_rules! on_backend {
    ($device:expr, $B:ident => $make:expr) => {
        match $device {
            recmill_kernels::Device::Cpu => {
                type $B = recmill_core::dense::Cpu;
                $make
            }
            recmill_kernels::Device::Cuda(_) => {
                type $B = recmill_core::dense::Gpu<recmill_kernels::CudaRuntime>;
                $make
            }
            recmill_kernels::Device::Wgpu(_) => {
                type $B = recmill_core::dense::Gpu<recmill_kernels::WgpuRuntime>;
                $make
            }
        }
    };
}
