// As much of CUDA as the kernels of service/runtimes/cuda_kernels.py use: a block at a time, its
// threads one after the other, or as threads where they wait for each other.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <thread>
#include <vector>

using std::max;
using std::min;

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx;
static Index blockIdx, blockDim, gridDim;
static float shared[1 << 16];
static std::barrier<>* waiting;

#define __device__ static
#define __global__
#define __shared__

static void __syncthreads() { waiting->arrive_and_wait(); }
static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
static float rsqrtf(float value) { return 1.0f / std::sqrt(value); }

template <class Thread>
void launch(const unsigned* grid, unsigned threads, bool together, Thread thread) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                if (!together) {
                    for (unsigned i = 0; i < threads; ++i) {
                        threadIdx = {i, 0, 0};
                        thread();
                    }
                    continue;
                }
                std::barrier<> barrier(threads);
                waiting = &barrier;
                std::vector<std::thread> running;
                for (unsigned i = 0; i < threads; ++i)
                    running.emplace_back([&, i] {
                        threadIdx = {i, 0, 0};
                        thread();
                    });
                for (auto& one : running) one.join();
            }
}
