// How the functions of the shim report exceptions.

#pragma once

#include <cstring>
#include <exception>

// Runs `body`. Returns a null pointer, or the text of an exception, which the caller frees.
template <typename Body> char *guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an unknown exception in libtorch");
  }
}
