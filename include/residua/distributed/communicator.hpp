#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>

#include "residua/core/error.hpp"

namespace residua {

/// A rank did not answer in time, or the engine that moves the bytes failed.
class CommunicationError : public std::runtime_error {
  public:
    /// The text becomes "residua: rank <rank>: <text>".
    CommunicationError(int rank, const std::string& text)
        : std::runtime_error("residua: rank " + std::to_string(rank) + ": " + text), rank_(rank) {}

    int rank() const { return rank_; }  ///< the rank that noticed

  private:
    int rank_;
};

/// In the place of a rank that receives: all of them do.
inline constexpr int every_rank = -1;

/// What communicators on an engine have in common; `name` is theirs.
namespace detail {

inline void require_receiver(const std::string& name, const char* operation, int to, int size) {
    require(to >= every_rank && to < size, name + "::" + operation + ": to is", to, "a rank, or every_rank");
}

inline void require_sender(const std::string& name, int from, int size) {
    require(from >= 0 && from < size, name + "::broadcast: from is", from, "a rank");
}

inline void require_timeout(const std::string& name, std::chrono::duration<double> timeout) {
    require(timeout.count() > 0, name + ": timeout is", timeout.count(), "a positive number of seconds");
}

/// The message of a rank that ends all of them. Throws CommunicationError where it is alone.
inline void announce_end(int rank, int size, const std::string& message) {
    if (size == 1) throw CommunicationError(0, message);
    std::fprintf(stderr, "rank %d of %d ends the run: %s\n", rank, size, message.c_str());
    std::fflush(stderr);
}

}  // namespace detail

/// Ranks that work together, and what moves their bytes. The operations are collective: every rank calls the
/// same ones in the same order with the same sizes, and none goes on from one before its own part is done.
///
///   1. c.size() ranks, numbered from 0; c.rank() is the number of the calling one. Neither ever changes.
///   2. c.sum(values, to): on rank `to`, or on every_rank, `values` become the element-wise sums over all
///      ranks; elsewhere they are unspecified afterwards. The order of the additions is the engine's, the same
///      in every run with as many ranks.
///   3. c.broadcast(values, from): `values` of all ranks become those of rank `from`.
///   4. c.exchange(out, in): both are c.size() pieces of equal length; piece r of `in` becomes the piece of
///      rank r's `out` that has the calling rank's number.
///   5. c.gather(piece, all, to): on rank `to`, or on every_rank, `all` becomes the pieces of all ranks, of
///      equal length, in the order of their numbers; it is not touched elsewhere.
///   6. c.abort(message) ends all ranks: the message, with the rank that says it, is on the standard error
///      stream, no process goes on. With one rank only there is nothing to end: it throws CommunicationError.
///   7. C::reaches_device: whether the values of 2 to 5 may lie in the device memory of a GPU.
///
/// Of float and double, and 3 of bytes too. `out` and `in`, `piece` and `all` do not overlap. An operation that
/// other ranks do not join within a communicator's timeout throws CommunicationError: catch it where work
/// begins, and abort().
template <class C>
concept Communicator = requires(C& c, const C& constant, std::span<float> floats,
                                std::span<const float> const_floats, std::span<double> doubles,
                                std::span<const double> const_doubles, std::span<std::byte> bytes, int rank,
                                const std::string& message) {
    { constant.rank() } -> std::same_as<int>;
    { constant.size() } -> std::same_as<int>;
    c.sum(floats, rank);
    c.sum(doubles, rank);
    c.broadcast(floats, rank);
    c.broadcast(doubles, rank);
    c.broadcast(bytes, rank);
    c.exchange(const_floats, floats);
    c.exchange(const_doubles, doubles);
    c.gather(const_floats, floats, rank);
    c.gather(const_doubles, doubles, rank);
    c.abort(message);
    { C::reaches_device } -> std::convertible_to<bool>;
};

}  // namespace residua
