#pragma once

/// Reading and writing the safetensors format: SafetensorsFile, SafetensorsCheckpoint, SafetensorsWriter.
#include "residua/io/safetensors_checkpoint.hpp"
#include "residua/io/safetensors_file.hpp"
#include "residua/io/safetensors_view.hpp"
#include "residua/io/safetensors_writer.hpp"
