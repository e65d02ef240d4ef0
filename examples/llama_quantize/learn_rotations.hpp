#pragma once

#include <residua/backends/host/executor.hpp>

#include "../llama/rotation.hpp"
#include "settings.hpp"

/// For --rotate learned: llama::learn_rotations() on the first calibration windows, for what the settings round. `speaks`:
/// says on stderr what each rotation brought.
llama::Rotations learn_rotations(const Settings& settings, const llama::Windows& calibration,
                                 const residua::Executor& executor, bool speaks);
