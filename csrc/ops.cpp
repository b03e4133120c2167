// Schemas of the operators on tensors, and the module whose import registers all. Those on the
// bytes of a JPEG stand in jpeg/ops_*.cpp, since a build without libjpeg-turbo has none of them.
#include <Python.h>
#include <torch/library.h>
#include <torch/version.h>

// setup.py gives both; empty without CUDA kernels.
#ifndef FASTSSL_CUDA_VERSION
#define FASTSSL_CUDA_VERSION ""
#endif
#ifndef FASTSSL_CUDA_ARCHS
#define FASTSSL_CUDA_ARCHS ""
#endif
// setup.py gives the library and its version; empty without the native loader.
#ifdef FASTSSL_JPEG
#define FASTSSL_JPEG_TEXT FASTSSL_JPEG
#else
#define FASTSSL_JPEG_TEXT ""
#endif

// What this binary was built with, as "key=value" pairs. fastssl/extension.py finds the text in the
// file before it loads it: a binary for another torch may crash instead of failing to load.
extern "C" __attribute__((visibility("default"), used)) const char fastssl_build[] =
    "fastssl build: torch=" TORCH_VERSION ";cuda=" FASTSSL_CUDA_VERSION
    ";cuda_archs=" FASTSSL_CUDA_ARCHS ";jpeg=" FASTSSL_JPEG_TEXT ";";

TORCH_LIBRARY(fastssl, m) {
  m.def(
      "extract_patches(Tensor images, Tensor corners, int size, Tensor? flip, Tensor? grey, "
      "Tensor? order, float[]? mean, float[]? std, bool standardize, ScalarType dtype, "
      "bool channels_last) -> Tensor");
  m.def(
      "normalize(Tensor images, Tensor? flip, Tensor? grey, float[] mean, float[] std, "
      "ScalarType dtype, bool channels_last) -> Tensor");
  m.def(
      "color_jitter(Tensor images, Tensor brightness, Tensor saturation, Tensor brightness_first, "
      "Tensor? flip, Tensor? grey, bool mean_grey, float[]? mean, float[]? std, bool standardize, "
      "ScalarType dtype, bool channels_last) -> Tensor");
  m.def(
      "augment_views(Tensor images, Tensor? gain, Tensor? shift, Tensor? grey, Tensor? flip, "
      "Tensor? offset, Tensor? corner, int copies, int cutout, bool is_lab, float[] mean, "
      "float[] std, ScalarType dtype, bool channels_last) -> Tensor");
  m.def("rgb_to_lab(Tensor images, bool eight_bit) -> Tensor");
  m.def(
      "split_lab(Tensor images, Tensor? flip, int stride, bool mean, bool eight_bit, "
      "ScalarType dtype) -> (Tensor, Tensor)");
  m.def(
      "color_loss(Tensor logits, Tensor ab, Tensor bins, Tensor offsets, Tensor candidates, "
      "Tensor? weights, Tensor? counted, int num_neighbors, float sigma) -> (Tensor, Tensor)");
  m.def(
      "color_loss_backward(Tensor grads, Tensor log_sums, Tensor logits, Tensor ab, Tensor bins, "
      "Tensor offsets, Tensor candidates, Tensor? weights, Tensor? counted, int num_neighbors, "
      "float sigma) -> Tensor");
}

// Python's side holds nothing: importing the module runs the static initialisers above and in the
// kernels' files.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
