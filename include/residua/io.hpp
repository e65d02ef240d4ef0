#pragma once

/// Formats that engines load: GPTQ checkpoints, compressed-tensors, GGUF and bitsandbytes NF4.
#include "residua/io/formats/compressed_tensors.hpp"
#include "residua/io/formats/fp4.hpp"
#include "residua/io/formats/gptq.hpp"
#include "residua/io/formats/gptq_config.hpp"
#include "residua/io/formats/model_config.hpp"
#include "residua/io/formats/nf4.hpp"
#include "residua/io/formats/quantized_layer.hpp"
#include "residua/io/gguf/blocks.hpp"
#include "residua/io/gguf/file.hpp"
#include "residua/io/gguf/writer.hpp"
