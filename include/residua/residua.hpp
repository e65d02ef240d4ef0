#pragma once

/// residua for the CPU: moments, the Eigen backend, grids, methods, solvers and transforms. The CUDA backend
/// (residua/cuda.hpp) and file formats (residua/io.hpp) are included on their own.
///
/// Everything is in namespace residua; what is not named here is in residua::detail and may change.
///
/// To quantize a layer:
///     solver/moments.hpp                  Moments, ResidualStream
///     solver/solver.hpp                   Solver, GPTQSolver, GPTAQSolver, ResidualCompSolver,
///                                         GPTQResidualCompSolver, QEPSolver, QronosSolver
///     solver/refine.hpp                   refine, RefineOptions
///     solver/round_weights.hpp            round_weights
///     solver/final_norm.hpp               final_norm_gains, NormGains
///     solver/quantized_matrix.hpp         QuantizedMatrix
///     solver/quantized_layer.hpp          QuantizedLayer, Grouping
///     solver/objective.hpp                objective, objectives
///     solver/workspace.hpp                workspace_bytes, PlannedMoments
///     backends/eigen.hpp                  EigenBackend
///     backends/host/executor.hpp          Executor
///     core/options.hpp                    SolverOptions, Ordering, Damping, Refinement, Progress, OnFailure,
///                                         PublishedBehaviour, ResidualView, GroupScales
///     core/report.hpp                     Report, Status, to_string, Arithmetic, Objective,
///                                         RefinementStep, StageSeconds
///     core/view.hpp                       MatrixView, read_only
///     core/types.hpp                      Index, Code, float16, bfloat16, Real, Element
///     core/matrix.hpp                     Matrix
///     core/version.hpp                    Version, version, to_string
///
/// Grids:
///     grids/integer_grid.hpp              IntegerGrid, Symmetry
///     grids/codebook_grid.hpp             CodebookGrid, Codebook, NF4Grid
///     grids/float_grid.hpp                FloatGrid, FP4Grid, FP8Grid
///     grids/mxfp4_grid.hpp                MXFP4Grid
///     grids/nvfp4_grid.hpp                NVFP4Grid
///     grids/ggml_grid.hpp                 Q4_0Grid, Q4_1Grid, Q5_0Grid, Q5_1Grid, Q8_0Grid, GGMLSignedGrid,
///                                         GGMLMinimumGrid
///     grids/k_quant_grid.hpp              KQuantGrid, IQ4Grid, k_quant_columns
///
/// Transforms of weights and activations:
///     transform/hadamard.hpp              HadamardTransform, HadamardOptions, hadamard_matrix, hadamard_sign,
///                                         is_hadamard_order, largest_hadamard_block
///     transform/activation_quantizer.hpp  ActivationQuantizer
///     transform/learned_rotation.hpp      learn_rotation, RotationNoise, RotationOptions, LearnedRotation
///
/// To write a grid, a method or a backend:
///     grids/grid.hpp                      Grid, TwoLevelGrid, GridParams, ScaleType, round_scale,
///                                         RefittableGrid, Rounding
///     grids/scale_search.hpp              ClipSearch, ScaleSearch
///     grids/group_size.hpp                FixedGroupGrid, resolve_group_size
///     core/minifloat.hpp                  E2M1, E4M3, E8M0
///     core/error.hpp                      require, reject
///     methods/method.hpp                  Method, Residuals
///     methods/gptq.hpp                    GPTQ
///     methods/gptaq.hpp                   GPTAQ
///     methods/residual_comp.hpp           ResidualComp, GPTQResidualComp
///     methods/qep.hpp                     QEP
///     methods/qronos.hpp                  Qronos
///     backends/backend.hpp                Backend, Transpose
///     backends/host.hpp                   HostBackend
///     backends/sweep_block.hpp            SweepBlock
///     backends/refine_block.hpp           RefineBlock, RefineGroup, RefineFamily, Number, Tally,
///                                         refined_columns
///     core/ordering.hpp                   GroupRange
///     core/code_packing.hpp               packed_words
///     solver/factorization.hpp            Factorization, FactorizationKey
///     solver/factored_gram.hpp            FactoredGram, CholeskyStep

#include "residua/backends/eigen.hpp"
#include "residua/core/code_packing.hpp"
#include "residua/core/version.hpp"
#include "residua/grids/grids.hpp"
#include "residua/solver/final_norm.hpp"
#include "residua/solver/solver.hpp"
#include "residua/solver/workspace.hpp"
#include "residua/transform/activation_quantizer.hpp"
#include "residua/transform/hadamard.hpp"
#include "residua/transform/learned_rotation.hpp"
