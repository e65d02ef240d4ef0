#pragma once

/// Formats that engines load: GPTQ checkpoints, compressed-tensors, GGUF and bitsandbytes NF4.
#include "residua/io/compressed_tensors.hpp"
#include "residua/io/fp4.hpp"
#include "residua/io/ggml_blocks.hpp"
#include "residua/io/gguf_file.hpp"
#include "residua/io/gguf_writer.hpp"
#include "residua/io/gptq.hpp"
#include "residua/io/gptq_config.hpp"
#include "residua/io/model_config.hpp"
#include "residua/io/nf4.hpp"
#include "residua/io/quantized_layer.hpp"
