#pragma once

/// Every method.

#include "residua/methods/gptaq.hpp"
#include "residua/methods/gptq.hpp"
#include "residua/methods/method.hpp"
#include "residua/methods/qep.hpp"
#include "residua/methods/qronos.hpp"
#include "residua/methods/residual_comp.hpp"
