// One function a kernel that a library exports, behind the kernels' source.
extern "C" void launch_sum_channels(
    const unsigned* grid, unsigned threads, const Vector* map, float* sums, int pixels, int lanes) {
    launch(grid, threads, true, [&] { sum_channels(map, sums, pixels, lanes); });
}
extern "C" void launch_find_affine(
    const unsigned* grid, unsigned threads, const Vector* map, const float* sums,
    const float* weight, const float* bias, float* affine, int pixels, int chunks, int channels,
    int stride, float eps) {
    launch(grid, threads, false, [&] {
        find_affine(map, sums, weight, bias, affine, pixels, chunks, channels, stride, eps);
    });
}
extern "C" void launch_rewrite(
    const unsigned* grid, unsigned threads, const Vector* map, const float* affine,
    const Vector* other, Vector* answer, int height, int width, int lanes, int padding, int mode,
    int has_affine, int affine_stride, int has_other, int relu, int phases, int answer_phases) {
    launch(grid, threads, false, [&] {
        rewrite(map, affine, other, answer, height, width, lanes, padding, mode, has_affine,
                affine_stride, has_other, relu, phases, answer_phases);
    });
}
