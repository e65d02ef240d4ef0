#pragma once

/// Marks code that a CUDA compiler may also run on the device: grids, methods and number formats.
#if defined(__CUDACC__)
#define RESIDUA_HOST_DEVICE __host__ __device__
#else
#define RESIDUA_HOST_DEVICE
#endif
