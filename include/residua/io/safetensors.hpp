#pragma once

/// Reading and writing the safetensors format: SafetensorsFile, SafetensorsCheckpoint, SafetensorsWriter.
#include "residua/io/safetensors/checkpoint.hpp"
#include "residua/io/safetensors/file.hpp"
#include "residua/io/safetensors/view.hpp"
#include "residua/io/safetensors/writer.hpp"
