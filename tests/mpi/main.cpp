// Started by mpirun: every rank runs the same tests.

#define CATCH_CONFIG_RUNNER
#include "residua/distributed/mpi_communicator.hpp"

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#include <catch2/catch.hpp>
#endif

int main(int argc, char** argv) {
    const residua::MPIEnvironment environment(argc, argv);
    return Catch::Session().run(argc, argv);
}
