//! CUDA devices that are not there: a kernel launched on one is written down as CUDA C++.
//!
//! An operation runs on such a device as it would on a real one, with the properties of that chip; so what is written down
//! is what cubecl would give NVIDIA's compiler there. Buffers are bytes of this process: what is uploaded can be read back,
//! what a kernel should have written is zero, unless kernels run (`run.rs`).
//!
//! The properties and options repeat those that cubecl-cuda 0.10 sets in `runtime.rs`.

pub(crate) mod run;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use cubecl::{
    CubeTask, Runtime,
    bytes::Bytes,
    client::ComputeClient,
    cuda::{CudaCompiler, CudaRuntime},
    device::{Device as CubeDevice, DeviceId, DeviceService, ServerUtilitiesHandle},
    future::DynFut,
    ir::{
        DeviceProperties, ElemType, FloatKind, HardwareProperties, MemoryDeviceProperties, TargetProperties,
        VectorSize,
        features::{Plane, TypeUsage},
    },
    profile::{ProfileDuration, TimingMethod},
    server::{
        Binding, ComputeServer, CopyDescriptor, CubeCount, ExecutionMode, KernelArguments, ProfileError,
        ProfilingToken, ServerCommunication, ServerError, ServerUtilities,
    },
    stream_id::StreamId,
    zspace::{Shape, Strides},
};
use cubecl_cpp::{
    DialectWmmaCompiler,
    cuda::{CudaDialect, arch::CudaArchitecture, mma::CudaWmmaCompiler},
    register_supported_types,
    shared::{CompilationOptions, register_mma_features, register_wmma_features},
};
use cubecl_runtime::{
    allocator::ContiguousMemoryLayoutPolicy,
    id::KernelId,
    logging::ServerLogger,
    memory_management::{
        ManagedMemoryHandle, MemoryAllocationMode, MemoryConfiguration, MemoryManagement,
        MemoryManagementOptions, MemoryUsage,
    },
    storage::{BytesResource, BytesStorage, ManagedResource},
    timestamp_profiler::TimestampProfiler,
    validation::{validate_cube_dim, validate_units},
};

use super::{
    Buffer, Storage,
    cube::{CubeStorage, Gpu, max_buffer_bytes, opening},
};
use crate::{Device, Error, Result};

/// What the properties of a chip depend on.
#[derive(Debug)]
pub(crate) struct Chip {
    /// Compute capability: 80 for 8.0.
    pub(crate) arch: u32,
    /// Bytes of shared memory that one group may ask for.
    shared_bytes: usize,
    multiprocessors: u32,
    memory: u64,
}

/// The chips that there are, an A100 and an H100.
pub(crate) const CHIPS: [Chip; 2] = [
    Chip { arch: 80, shared_bytes: 163 << 10, multiprocessors: 108, memory: 80 << 30 },
    Chip { arch: 90, shared_bytes: 227 << 10, multiprocessors: 132, memory: 80 << 30 },
];

/// Returns the device of `CHIPS[index]`: an index that no machine has.
pub(crate) const fn device_of(index: usize) -> Device {
    Device::Cuda(usize::MAX - index)
}

/// Returns which of the chips `device` is, if one.
pub(crate) fn chip_of(device: Device) -> Option<usize> {
    (0..CHIPS.len()).find(|&index| device_of(index) == device)
}

/// A kernel as it was launched first.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) kernel: String,
    /// The source, or why there is none.
    pub(crate) source: std::result::Result<String, String>,
    pub(crate) cube_dim: (u32, u32, u32),
    /// Bytes of shared memory that a group asks for at launch.
    pub(crate) shared_bytes: usize,
}

/// What a byte is that nobody has written, where kernels run: of no number and no index that there could be.
const UNWRITTEN: u8 = 0xff;

/// What has been written down since it was taken last.
static WRITTEN: Mutex<Vec<Written>> = Mutex::new(Vec::new());

/// Takes what the kernels launched on `device` have left.
pub(crate) fn take(device: Device) -> Result<Vec<Written>> {
    // Waits for the device's thread.
    let flushed = client(device)?.flush();
    let written = std::mem::take(&mut *WRITTEN.lock().unwrap_or_else(PoisonError::into_inner));
    flushed.map(|()| written).map_err(|_| Error::DeviceLost { device, doing: "writing kernels down" })
}

impl Gpu for PretendRuntime {
    fn client_of(device: Device) -> Result<ComputeClient<Self>> {
        client(device)
    }

    fn storage<T>(buffer: &Buffer<T>) -> Option<&CubeStorage<Self>> {
        match &buffer.storage {
            Storage::Pretend(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap<T>(storage: CubeStorage<Self>) -> Storage<T> {
        Storage::Pretend(storage)
    }
}

/// Returns the most bytes that one buffer on `device` may have.
pub(crate) fn open(device: Device) -> Result<u64> {
    Ok(max_buffer_bytes(&client(device)?))
}

fn client(device: Device) -> Result<ComputeClient<PretendRuntime>> {
    match chip_of(device) {
        Some(index) => Ok(PretendRuntime::client(&PretendDevice(index))),
        None => Err(Error::Unavailable { device, reason: "not a pretended device".into() }),
    }
}

/// An index into [`CHIPS`].
#[derive(Clone, Debug, Default)]
pub(crate) struct PretendDevice(usize);

impl CubeDevice for PretendDevice {
    fn from_id(id: DeviceId) -> Self {
        Self(id.index_id.into())
    }

    fn to_id(&self) -> DeviceId {
        // A type that no runtime of cubecl's has.
        DeviceId { type_id: u16::MAX, index_id: self.0 as u16 }
    }
}

/// The runtime whose kernels are written down.
#[derive(Clone, Debug)]
pub(crate) struct PretendRuntime;

impl Runtime for PretendRuntime {
    type Compiler = CudaCompiler;
    type Server = PretendServer;
    type Device = PretendDevice;

    fn client(device: &Self::Device) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "cuda"
    }

    fn require_array_lengths() -> bool {
        CudaRuntime::require_array_lengths()
    }

    fn max_cube_count() -> (u32, u32, u32) {
        CudaRuntime::max_cube_count()
    }

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        CudaRuntime::can_read_tensor(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        CudaRuntime::target_properties()
    }

    fn enumerate_devices(_: u16, _: &()) -> Vec<DeviceId> {
        (0..CHIPS.len()).map(|index| PretendDevice(index).to_id()).collect()
    }
}

/// What stands where a device's server does.
#[derive(Debug)]
pub(crate) struct PretendServer {
    chip: &'static Chip,
    options: CompilationOptions,
    seen: HashSet<KernelId>,
    memory: MemoryManagement<BytesStorage>,
    timestamps: TimestampProfiler,
    utilities: Arc<ServerUtilities<Self>>,
    runner: Option<run::Runner>,
}

impl PretendServer {
    /// Runs a kernel over this process's memory.
    fn run(
        &mut self,
        id: &KernelId,
        count: CubeCount,
        arguments: KernelArguments,
    ) -> std::result::Result<(), String> {
        let Some(runner) = &mut self.runner else { return Ok(()) };
        let CubeCount::Static(x, y, z) = count else {
            return Err("a number of groups that a kernel has computed".into());
        };
        let mut bytes_of = |Binding { memory, offset_start, offset_end, .. }| {
            let resource = self.memory.get_resource(memory, offset_start, offset_end);
            resource.map(|resource| resource.get_write_ptr_and_length().0).map_err(|error| error.to_string())
        };
        let KernelArguments { buffers, info, .. } = arguments;
        let buffers: Vec<*mut u8> =
            buffers.into_iter().map(&mut bytes_of).collect::<std::result::Result<_, _>>()?;
        runner.run(id, (x, y, z), &buffers, &info.data, info.dynamic_metadata_offset)
    }

    fn write_down(&self, kernel: &dyn CubeTask<CudaCompiler>, id: &KernelId, mode: ExecutionMode) -> Written {
        let properties = &self.utilities.properties;
        let compiled = opening(|| {
            validate_cube_dim(properties, id).map_err(|error| error.to_string())?;
            validate_units(properties, id).map_err(|error| error.to_string())?;
            let compiled = kernel
                .compile(&mut CudaCompiler::default(), &self.options, mode, kernel.address_type())
                .map_err(|error| error.to_string())?;
            let shared_bytes = compiled.repr.as_ref().map_or(0, |repr| repr.shared_memory_size());
            match shared_bytes <= self.chip.shared_bytes {
                true => Ok((compiled.entrypoint_name, compiled.source, shared_bytes)),
                false => Err(format!(
                    "{}: {shared_bytes} bytes of shared memory, the chip has {}",
                    compiled.entrypoint_name, self.chip.shared_bytes
                )),
            }
        });
        let cube_dim = id.cube_dim.into();
        let failed = |reason| Written {
            kernel: kernel.name().to_owned(),
            source: Err(reason),
            cube_dim,
            shared_bytes: 0,
        };
        match compiled {
            Ok(Ok((kernel, source, shared_bytes))) => {
                Written { kernel, source: Ok(source), cube_dim, shared_bytes }
            }
            Ok(Err(reason)) => failed(reason),
            Err(_) => failed("cubecl panicked while it wrote the source".into()),
        }
    }
}

impl DeviceService for PretendServer {
    fn init(id: DeviceId) -> Self {
        let chip = &CHIPS[usize::from(id.index_id) % CHIPS.len()];
        let logger = Arc::new(ServerLogger::default());
        let memory = MemoryManagement::from_configuration(
            BytesStorage::default(),
            &MemoryDeviceProperties { max_page_size: 1 << 30, alignment: 512 },
            MemoryConfiguration::ExclusivePages,
            logger.clone(),
            MemoryManagementOptions::new("bytes of a pretended device"),
        );
        let policy = ContiguousMemoryLayoutPolicy::new(512);
        Self {
            chip,
            options: options(chip),
            seen: HashSet::new(),
            memory,
            timestamps: TimestampProfiler::default(),
            utilities: Arc::new(ServerUtilities::new(properties(chip), logger, (), policy)),
            // One chip from the last to the first: what depends on the order of units is not the same on both.
            runner: run::Runner::new(chip.arch == CHIPS[1].arch),
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

fn options(chip: &Chip) -> CompilationOptions {
    let mut options = CompilationOptions::default();
    options.supports_features.fast_math = true;
    options.supports_features.grid_constants = chip.arch >= 70;
    options.supports_features.fast_tanh = chip.arch >= 75;
    options.supports_features.clusters = chip.arch >= 90;
    options.supports_features.elect_sync = chip.arch >= 90;
    options
}

fn properties(chip: &Chip) -> DeviceProperties {
    type Wmma = CudaWmmaCompiler;
    let arch = CudaArchitecture { version: chip.arch };
    let hardware = HardwareProperties {
        load_width: 128,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: chip.shared_bytes,
        max_cube_count: (i32::MAX as u32, u16::MAX.into(), u16::MAX.into()),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(chip.multiprocessors),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        max_vector_size: VectorSize::MAX,
    };
    let memory = MemoryDeviceProperties { max_page_size: chip.memory / 4, alignment: 512 };
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::System);
    register_supported_types(&mut properties);
    properties.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
    properties.features.copy_async = chip.arch >= 80;
    properties.features.memory_reinterpret = true;
    properties.features.alignment = true;
    properties.features.plane.insert(Plane::Sync);
    properties.features.plane.insert(Plane::Ops);
    properties.features.plane.insert(Plane::NonUniformControlFlow);
    let wmma = <Wmma as DialectWmmaCompiler<CudaDialect<Wmma>>>::supported_wmma_combinations(&arch);
    register_wmma_features(wmma, &mut properties);
    let mma = <Wmma as DialectWmmaCompiler<CudaDialect<Wmma>>>::supported_mma_combinations(&arch);
    register_mma_features(mma, &mut properties);
    properties
}

impl ServerCommunication for PretendServer {
    const SERVER_COMM_ENABLED: bool = false;
}

impl ComputeServer for PretendServer {
    type Kernel = Box<dyn CubeTask<CudaCompiler>>;
    type Info = ();
    type MemoryLayoutPolicy = ContiguousMemoryLayoutPolicy;
    type Storage = BytesStorage;

    fn initialize_memory(&mut self, memory: ManagedMemoryHandle, size: u64, _: StreamId) {
        let bound = self.memory.reserve(size).and_then(|reserved| {
            self.memory.bind(reserved, memory.clone(), 0)?;
            self.memory.get_resource(memory.binding(), None, None)
        });
        // A page may have been somebody's before.
        let unwritten = if self.runner.is_some() { UNWRITTEN } else { 0 };
        if let Ok(mut bytes) = bound {
            bytes.write().fill(unwritten);
        }
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        self.utilities.clone()
    }

    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        _: StreamId,
    ) -> DynFut<std::result::Result<Vec<Bytes>, ServerError>> {
        let read = descriptors
            .into_iter()
            .map(|CopyDescriptor { handle, .. }| {
                let size = handle.size_in_used() as usize;
                let bytes =
                    self.memory.get_resource(handle.memory, handle.offset_start, handle.offset_end)?;
                Ok(Bytes::from_bytes_vec(bytes.read()[..size].to_vec()))
            })
            .collect();
        Box::pin(async move { read })
    }

    fn write(&mut self, descriptors: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {
        for (CopyDescriptor { handle, .. }, data) in descriptors {
            let to = self.memory.get_resource(handle.memory, handle.offset_start, handle.offset_end);
            if let Ok(mut to) = to {
                to.write()[..data.len()].copy_from_slice(&data);
            }
        }
    }

    fn sync(&mut self, _: StreamId) -> DynFut<std::result::Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn get_resource(
        &mut self,
        binding: Binding,
        _: StreamId,
    ) -> std::result::Result<ManagedResource<BytesResource>, ServerError> {
        let memory = binding.memory.clone();
        let resource = self.memory.get_resource(binding.memory, binding.offset_start, binding.offset_end)?;
        Ok(ManagedResource::new(memory, resource))
    }

    /// # Panics
    /// Where a kernel that is to run does not, which makes the device a lost one.
    #[expect(unsafe_code, reason = "the trait's own signature")]
    unsafe fn launch(
        &mut self,
        kernel: Self::Kernel,
        count: CubeCount,
        arguments: KernelArguments,
        mode: ExecutionMode,
        _: StreamId,
    ) {
        let mut id = kernel.id();
        id.mode(mode);
        let mut ran = Ok(());
        if !self.seen.contains(&id) {
            let written = self.write_down(&*kernel, &id, mode);
            if let Some(runner) = &mut self.runner {
                ran = runner.compile(id.clone(), &written);
            }
            WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).push(written);
            self.seen.insert(id.clone());
        }
        let ran = ran.and_then(|()| self.run(&id, count, arguments));
        assert!(ran.is_ok(), "{} does not run: {}", kernel.name(), ran.err().unwrap_or_default());
    }

    fn flush(&mut self, _: StreamId) -> std::result::Result<(), ServerError> {
        Ok(())
    }

    fn memory_usage(&mut self, _: StreamId) -> std::result::Result<MemoryUsage, ServerError> {
        Ok(self.memory.memory_usage())
    }

    fn memory_cleanup(&mut self, _: StreamId) {
        self.memory.cleanup(true);
    }

    fn start_profile(&mut self, _: StreamId) -> std::result::Result<ProfilingToken, ServerError> {
        Ok(self.timestamps.start())
    }

    fn end_profile(
        &mut self,
        _: StreamId,
        token: ProfilingToken,
    ) -> std::result::Result<ProfileDuration, ProfileError> {
        self.timestamps.stop(token)
    }

    fn allocation_mode(&mut self, mode: MemoryAllocationMode, _: StreamId) {
        self.memory.mode(mode);
    }
}
