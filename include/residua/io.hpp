#pragma once

/// Files: safetensors, the quantized formats that engines load, and saved moments. Everything that follows is
/// in namespace residua::io; what is not named here is in residua::io::detail and may change.
///
///     error.hpp                       FileError, FormatError
///     dtype.hpp                       DType, name_of, size_of, dtype_named, dtype_of, Stored, StoredInteger
///     tensor_table.hpp                TensorTable, TensorInfo, Metadata
///     safetensors/view.hpp            SafetensorsView: a file that is in memory
///     safetensors/file.hpp            SafetensorsFile: a file on disk
///     safetensors/checkpoint.hpp      SafetensorsCheckpoint: a file, or a model in several
///     safetensors/writer.hpp          write_safetensors, tensor_of; SafetensorsWriter, TensorSpec
///     formats/moments.hpp             write_moments, read_moments
///     formats/gptq.hpp                GPTQLayer, pack_gptq, unpack_gptq, read_gptq
///     formats/gptq_config.hpp         GPTQConfig, GPTQVersion, require_gptq_bits
///     formats/compressed_tensors.hpp  PackQuantizedLayer, pack_quantized, unpack_quantized,
///                                     read_pack_quantized
///     formats/fp4.hpp                 FP4Layer, pack_nvfp4, unpack_nvfp4, pack_mxfp4, unpack_mxfp4, read_fp4
///     formats/nf4.hpp                 NF4Layer, pack_nf4, unpack_nf4, read_nf4
///     formats/onnx_matmul.hpp         MatMulNBitsLayer, pack_matmul_nbits, unpack_matmul_nbits, write_onnx,
///                                     require_matmul_nbits
///     formats/model_config.hpp        write_quantization_config, find_quantization_config, quantization_metadata,
///                                     write_json, read_json
///     gguf/tensor.hpp                 GGMLType, name_of, GGUFTensor, GGMLMatrix
///     gguf/blocks.hpp                 pack_ggml, unpack_ggml, ggml_matrix, GGMLFormat, BlockQ4_0, BlockQ4_1, BlockQ5_0,
///                                     BlockQ5_1, BlockQ8_0, BlockMXFP4
///     gguf/super_blocks.hpp           pack_super_blocks, unpack_super_blocks, ggml_type_of, BlockQ2_K,
///                                     BlockQ3_K, BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockIQ4_NL, BlockIQ4_XS
///     gguf/file.hpp                   GGUFFile
///     gguf/writer.hpp                 write_gguf, gguf_tensor, GGUFEntry, GGUFValue
///     packing/bit_packing.hpp         pack_rows, unpack_rows, pack_rows_transposed, unpack_rows_transposed,
///                                     packed_words
///     atomic_file.hpp                 AtomicFile: what writers of other formats write with
///     mapped_file.hpp                 MappedFile: what readers of other formats read from
///
/// What every packer takes and every unpacker makes is a residua::QuantizedLayer, a layer in host memory:
///
///     const auto packed = io::pack_gptq(quantized.to_host(backend));
///     io::write_safetensors("layer.safetensors", packed.tensors("model.layers.0.mlp.up_proj"));
///
/// Three kinds of errors, whose texts are sentences with the name, the value and what was expected: FileError
/// where the system refuses, FormatError where a file is not what it should be, std::invalid_argument where
/// the call is not. Functions may be called from several threads at once, each object from one at a time.

#include "residua/io/atomic_file.hpp"
#include "residua/io/dtype.hpp"
#include "residua/io/error.hpp"
#include "residua/io/formats/compressed_tensors.hpp"
#include "residua/io/formats/fp4.hpp"
#include "residua/io/formats/gptq.hpp"
#include "residua/io/formats/gptq_config.hpp"
#include "residua/io/formats/model_config.hpp"
#include "residua/io/formats/moments.hpp"
#include "residua/io/formats/nf4.hpp"
#include "residua/io/formats/onnx_matmul.hpp"
#include "residua/io/gguf/blocks.hpp"
#include "residua/io/gguf/file.hpp"
#include "residua/io/gguf/super_blocks.hpp"
#include "residua/io/gguf/tensor.hpp"
#include "residua/io/gguf/writer.hpp"
#include "residua/io/mapped_file.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/checkpoint.hpp"
#include "residua/io/safetensors/file.hpp"
#include "residua/io/safetensors/view.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_table.hpp"
