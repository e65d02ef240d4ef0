#pragma once

#include <residua/distributed/share.hpp>

#ifdef RESIDUA_MPI
#include <residua/distributed/mpi_communicator.hpp>
/// The processes that quantize a model together: those that mpirun has started.
using Ranks = residua::MPICommunicator;
#else
#include <residua/distributed/self_communicator.hpp>
/// The processes that quantize a model together: this one alone, for the program was built without RESIDUA_MPI.
using Ranks = residua::SelfCommunicator;
#endif

/// How the calibration windows are cut among ranks, and their moments added up.
struct Cooperation {
    bool ordered = false;         ///< the same bits for any number of ranks
    residua::Index segments = 8;  ///< where ordered: of the windows, added up as a tree
    double timeout = 600;         ///< seconds that ranks wait for each other

    residua::Index segments_of(const Ranks& ranks) const { return ordered ? segments : ranks.size(); }

    residua::Share segments_here(const Ranks& ranks) const {
        return residua::share_of(segments_of(ranks), ranks.rank(), ranks.size());
    }
};
