// Schemas of every operator, and the module whose import registers them.
#include <Python.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>

namespace {

// "key=value" pairs: what this binary was built with.
std::string build_info() { return std::string("torch=") + TORCH_VERSION + ";cuda_archs=;jpeg="; }

}  // namespace

TORCH_LIBRARY(fastssl, m) {
  m.def("build_info() -> str", &build_info);
  m.def(
      "extract_patches(Tensor images, Tensor corners, int size, Tensor? flip, Tensor? grey, "
      "Tensor? order, float[]? mean, float[]? std, bool standardize, ScalarType dtype, "
      "bool channels_last) -> Tensor");
  m.def(
      "normalize(Tensor images, Tensor? flip, Tensor? grey, float[] mean, float[] std, "
      "ScalarType dtype, bool channels_last) -> Tensor");
}

// Python's side holds nothing: importing the module runs the static initialisers above and in the
// kernels' files.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
