// The two small kernels: penstock_echo completes a launch and does nothing else, which is the floor that a prediction is
// measured against; penstock_clock reads the device's clock into DONE_CLOCK_NS.

extern "C" __global__ void penstock_echo(PENSTOCK_PARAMETERS) {
    const Arguments arguments = PENSTOCK_GATHERED;
    long long number = 0;
    if (threadIdx.x == 0) number = load_fresh((const long long *)((const unsigned char *)arguments.work + HEAD_NUMBER));
    complete_launch(arguments, number);
}

extern "C" __global__ void penstock_clock(PENSTOCK_PARAMETERS) {
    const Arguments arguments = PENSTOCK_GATHERED;
    if (threadIdx.x == 0 && blockIdx.x == 0)
        store_system((long long *)arguments.done + LAYOUT_DONE_CLOCK_NS, device_clock_ns());
}
