#pragma once

/// residua on several ranks, processes on one machine or on many, one for each GPU or for some cores: moments
/// are summed up over ranks, solves are shared. Beside residua.hpp or cuda.hpp; everything is in namespace
/// residua, and what is not named here is in residua::detail and may change.
///
/// Linked with residua::mpi or residua::nccl, or compiled with RESIDUA_MPI or RESIDUA_NCCL defined, this includes
/// the communicators that need them.
///
///     distributed/distributed_quantizer.hpp  DistributedQuantizer, DistributedOptions, DistributedLayer
///     distributed/all_reduce.hpp             all_reduce, reduce, Reduction
///     distributed/sharded_moments.hpp        ShardedMoments
///     distributed/broadcast_layer.hpp        broadcast_layer
///     distributed/share.hpp                  Share, share_of
///     distributed/solve_plan.hpp             SolvePlan, SolveCost, GroupShape, RowTask
///
/// What moves the bytes:
///     distributed/communicator.hpp           Communicator, CommunicationError, every_rank
///     distributed/self_communicator.hpp      SelfCommunicator: one rank alone
///     distributed/mpi_communicator.hpp       MPICommunicator, MPIEnvironment
///     distributed/cuda/nccl_communicator.hpp NCCLCommunicator, NCCLRendezvous

#include "residua/distributed/distributed_quantizer.hpp"
#include "residua/distributed/self_communicator.hpp"

#ifdef RESIDUA_MPI
#include "residua/distributed/mpi_communicator.hpp"
#endif
#ifdef RESIDUA_NCCL
#include "residua/distributed/cuda/nccl_communicator.hpp"
#endif
