// expect: satisfaction of 'Backend<|Backend<residua::HostBackend, float>' evaluated to false
#include "residua/backends/host.hpp"
#include "residua/solver/moments.hpp"

// HostBackend alone has no products, solves and factorization.
residua::Moments<float, residua::HostBackend>* moments = nullptr;
