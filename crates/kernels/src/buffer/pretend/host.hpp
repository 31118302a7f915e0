// What a CUDA kernel asks of its compiler and its chip, on a processor: one group of units after the other.
//
// A kernel without barriers is a loop over its units. Any other runs each unit on a stack of its own until it waits; who
// waits goes on once all units of the group (__syncthreads) or of the warp (shuffles, votes) wait at the same line, so a
// barrier that some units never reach, or reach elsewhere, ends the launch with a reason. Shared memory is filled with
// bytes that are no number before every group: a kernel that trusts in zeros is found out.
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

// The C library has functions of its own by these names.
#define __powf powf
#define __expf expf
#define __logf logf
#define __sinf sinf
#define __cosf cosf

#include <type_traits>
#include <utility>

#define __global__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// 16-bit numbers; what is computed with them is computed in 32 bits and rounded.
struct __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value(_Float16(x)) {}
    operator float() const { return float(value); }
};
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t word;
        memcpy(&word, &x, 4);
        // To the nearest, ties to even; what is no number stays none.
        bits = x != x ? uint16_t(word >> 16 | 0x40) : uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
    }
    operator float() const {
        uint32_t word = uint32_t(bits) << 16;
        float x;
        memcpy(&x, &word, 4);
        return x;
    }
};

struct __align__(4) __half2 { __half x, y; };
struct __align__(4) __nv_bfloat162 { __nv_bfloat16 x, y; };

struct uint3 { unsigned x, y, z; };
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr unsigned warpSize = 32;
extern "C" { __attribute__((aligned(1024))) unsigned char dynamic_shared_mem[256 << 10]; }

namespace host {

constexpr unsigned WARP = warpSize, MOST = 1024;
constexpr int RUNNING = -1, ENDED = -2;

struct Unit {
    uint3 place;
    jmp_buf here;
    ucontext_t first;
    bool begun;
    int line;        // where it waits, or RUNNING, or ENDED
    bool with_warp;  // whether it waits for its warp alone
};

// Of the group that runs.
static Unit units[MOST];
static unsigned n_units, current;
static jmp_buf turns;
static const char* failure;
// What the units of a warp show each other.
alignas(16) static unsigned char shown[MOST][16];

static void leave() { _longjmp(turns, 1); }

__attribute__((noinline)) static void wait(int line, bool with_warp) {
    Unit& unit = units[current];
    unit.line = line;
    unit.with_warp = with_warp;
    if (_setjmp(unit.here) == 0) leave();
}

// Lets the units go on that all wait for each other; fails where they wait at different lines.
static bool release(unsigned begin, unsigned end, bool with_warp) {
    int line = ENDED;
    for (unsigned u = begin; u < end; u++) {
        if (units[u].line == ENDED) continue;
        if (units[u].line == RUNNING || units[u].with_warp != with_warp) return false;
        if (line == ENDED) line = units[u].line;
        if (line != units[u].line) {
            failure = "units wait at different barriers";
            return false;
        }
    }
    if (line == ENDED) return false;
    for (unsigned u = begin; u < end; u++)
        if (units[u].line != ENDED) units[u].line = RUNNING;
    return true;
}

template <class T> __attribute__((noinline)) static T shuffled(int line, T value, unsigned from) {
    static_assert(sizeof(T) <= 16, "");
    unsigned lane = current % WARP;
    memcpy(shown[current], &value, sizeof(T));
    wait(line, true);
    unsigned source = current - lane + from;
    // A lane that is not there, or has ended, shows nothing: the value is undefined, here the unit's own.
    if (from < WARP && source < n_units) memcpy(&value, shown[source], sizeof(T));
    wait(line, true);
    return value;
}

static unsigned lane() { return current % WARP; }

__attribute__((noinline)) static unsigned ballot(int line, bool vote) {
    unsigned first = current - lane(), votes = 0;
    memcpy(shown[current], &vote, 1);
    wait(line, true);
    for (unsigned u = first; u < first + WARP && u < n_units; u++)
        if (units[u].line != ENDED && shown[u][0]) votes |= 1u << (u - first);
    wait(line, true);
    return votes;
}

__attribute__((noinline)) static unsigned present(int line) { return ballot(line, true); }

}  // namespace host

#define __syncthreads() host::wait(__LINE__, false)
#define __syncwarp(...) host::wait(__LINE__, true)
#define __threadfence() ((void)0)
#define __shfl_sync(mask, value, from) host::shuffled(__LINE__, value, (from) % host::WARP)
#define __shfl_xor_sync(mask, value, other) host::shuffled(__LINE__, value, host::lane() ^ (other))
#define __shfl_up_sync(mask, value, by) \
    host::shuffled(__LINE__, value, host::lane() < (by) ? host::lane() : host::lane() - (by))
#define __shfl_down_sync(mask, value, by) \
    host::shuffled(__LINE__, value, host::lane() + (by) < host::WARP ? host::lane() + (by) : host::lane())
#define __ballot_sync(mask, vote) host::ballot(__LINE__, vote)
#define __any_sync(mask, vote) (host::ballot(__LINE__, vote) != 0)
#define __all_sync(mask, vote) (host::ballot(__LINE__, !(vote)) == 0)
#define __activemask() host::present(__LINE__)

// One group runs at a time and a unit is only left where it waits, so what is atomic on a chip is plain here.
template <class T, class V> static T swapped(T* at, V value) { T old = *at; *at = T(value); return old; }
template <class T, class V> static T atomicAdd(T* at, V value) { return swapped(at, *at + T(value)); }
template <class T, class V> static T atomicSub(T* at, V value) { return swapped(at, *at - T(value)); }
template <class T, class V> static T atomicMin(T* at, V value) { return swapped(at, *at < T(value) ? *at : T(value)); }
template <class T, class V> static T atomicMax(T* at, V value) { return swapped(at, *at > T(value) ? *at : T(value)); }
template <class T, class V> static T atomicAnd(T* at, V value) { return swapped(at, *at & T(value)); }
template <class T, class V> static T atomicOr(T* at, V value) { return swapped(at, *at | T(value)); }
template <class T, class V> static T atomicXor(T* at, V value) { return swapped(at, *at ^ T(value)); }
template <class T, class V> static T atomicExch(T* at, V value) { return swapped(at, value); }
template <class T, class C, class V> static T atomicCAS(T* at, C expected, V value) {
    return swapped(at, *at == T(expected) ? T(value) : *at);
}

static inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(unsigned long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
static inline int __ffsll(unsigned long long x) { return __builtin_ffsll((long long)x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
static inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
// Of two numbers the larger and the smaller, whatever their types; what is no number loses.
template <class A, class B> static std::common_type_t<A, B> max(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return x > y || y != y ? x : y;
}
template <class A, class B> static std::common_type_t<A, B> min(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return x < y || y != y ? x : y;
}

// Matrix units. What a warp holds together its first unit holds alone here; sums are cut, not rounded, as some chips do.
namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static constexpr int rows = std::is_same<Use, matrix_b>::value ? K : M;
    static constexpr int columns = std::is_same<Use, matrix_a>::value ? K : N;
    T x[rows * columns];
};

template <class F, class T> static void load(F& to, const T* from, unsigned stride, bool by_row) {
    if (host::lane() != 0) return;
    for (unsigned r = 0; r < F::rows; r++)
        for (unsigned c = 0; c < F::columns; c++) to.x[r * F::columns + c] = by_row ? from[r * stride + c] : from[c * stride + r];
}

template <class Use, int M, int N, int K, class T, class Layout>
static void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& to, const T* from, unsigned stride) {
    load(to, from, stride, std::is_same<Layout, row_major>::value);
}

template <int M, int N, int K, class T>
static void load_matrix_sync(fragment<accumulator, M, N, K, T>& to, const T* from, unsigned stride, layout_t layout) {
    load(to, from, stride, layout == mem_row_major);
}

template <int M, int N, int K, class T>
static void store_matrix_sync(T* to, const fragment<accumulator, M, N, K, T>& from, unsigned stride, layout_t layout) {
    if (host::lane() != 0) return;
    for (unsigned r = 0; r < M; r++)
        for (unsigned c = 0; c < N; c++) to[layout == mem_row_major ? r * stride + c : c * stride + r] = from.x[r * N + c];
}

template <class F, class V> static void fill_fragment(F& to, V value) {
    for (auto& x : to.x) x = value;
}

template <int M, int N, int K, class H, class A, class B>
static void mma_sync(fragment<accumulator, M, N, K, float>& to, const fragment<matrix_a, M, N, K, H, A>& a,
                     const fragment<matrix_b, M, N, K, H, B>& b, const fragment<accumulator, M, N, K, float>& c) {
    if (host::lane() != 0) return;
    for (unsigned m = 0; m < M; m++)
        for (unsigned n = 0; n < N; n++) {
            double sum = c.x[m * N + n];
            for (unsigned k = 0; k < K; k++) sum += double(float(a.x[m * K + k])) * double(float(b.x[k * N + n]));
            float cut = float(sum);
            to.x[m * N + n] = fabs(double(cut)) > fabs(sum) ? nextafterf(cut, 0.0f) : cut;
        }
}

}  // namespace wmma
}  // namespace nvcuda

namespace host {

using Kernel = void (*)(void* const*);
static void* const* arguments;
static Kernel body;

// As cuLaunchKernel takes them: a pointer to each argument.
template <class... A, size_t... I>
static void call(void (*kernel)(A...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

// A unit's life in every group of a launch: its stack is made once.
static void unit() {
    Unit& self = units[current];
    for (;;) {
        body(arguments);
        self.line = ENDED;
        if (_setjmp(self.here) == 0) leave();
    }
}

static uint3 place(unsigned u) {
    return {u % blockDim.x, u / blockDim.x % blockDim.y, u / (blockDim.x * blockDim.y)};
}

static void run_group(unsigned char* stacks, size_t stack_bytes, bool backward) {
    unsigned left = n_units;
    for (unsigned u = 0; u < n_units; u++) {
        units[u].place = place(u);
        units[u].line = RUNNING;
    }
    while (left > 0 && !failure) {
        bool moved = false;
        for (unsigned turn = 0; turn < n_units; turn++) {
            volatile unsigned u = backward ? n_units - 1 - turn : turn;
            if (units[u].line != RUNNING) continue;
            moved = true;
            current = u;
            threadIdx = units[u].place;
            if (_setjmp(turns) == 0) {
                if (units[u].begun) _longjmp(units[u].here, 1);
                units[u].begun = true;
                getcontext(&units[u].first);
                units[u].first.uc_stack.ss_sp = stacks + u * stack_bytes;
                units[u].first.uc_stack.ss_size = stack_bytes;
                units[u].first.uc_link = nullptr;
                makecontext(&units[u].first, unit, 0);
                setcontext(&units[u].first);
            }
            if (units[u].line == ENDED) left--;
        }
        bool released = false;
        for (unsigned begin = 0; begin < n_units; begin += WARP)
            released |= release(begin, begin + WARP < n_units ? begin + WARP : n_units, true);
        released |= release(0, n_units, false);
        if (left > 0 && !moved && !released && !failure) failure = "a barrier that some units never reach";
    }
}

// Returns why the launch failed, or null.
static const char* launch(Kernel kernel, bool waits, void* const* with, const unsigned* sizes, size_t shared_bytes,
                          unsigned char* stacks, size_t stack_bytes, bool backward) {
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    n_units = blockDim.x * blockDim.y * blockDim.z;
    body = kernel;
    arguments = with;
    failure = nullptr;
    for (Unit& unit : units) unit.begun = false;
    if (n_units > MOST || shared_bytes > sizeof dynamic_shared_mem) return "a group too large";
    uint64_t groups = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
    for (uint64_t turn = 0; turn < groups && !failure; turn++) {
        uint64_t g = backward ? groups - 1 - turn : turn;
        blockIdx = {unsigned(g % gridDim.x), unsigned(g / gridDim.x % gridDim.y),
                    unsigned(g / gridDim.x / gridDim.y)};
        memset(dynamic_shared_mem, 0xff, shared_bytes);
        if (waits) {
            run_group(stacks, stack_bytes, backward);
            continue;
        }
        for (unsigned turn = 0; turn < n_units; turn++) {
            current = backward ? n_units - 1 - turn : turn;
            threadIdx = place(current);
            kernel(with);
        }
    }
    return failure;
}

}  // namespace host
