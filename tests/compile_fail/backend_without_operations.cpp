// expect: satisfaction of 'Backend<|Backend<residua::HostBackend, float>' evaluated to false
#include "residua/backend/host.hpp"
#include "residua/moments.hpp"

// HostBackend alone has no products, solves and factorization.
residua::Moments<float, residua::HostBackend>* moments = nullptr;
