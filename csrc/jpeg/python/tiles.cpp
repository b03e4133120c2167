// The module fastssl._C_jpeg, which fastssl/shards/making/tiled.py and entry_points.py call. It
// knows nothing of torch, whose import takes seconds and hundreds of megabytes in every process of
// a conversion. What may happen to hostile bytes is a status, never an exception.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

#include "jpeg/crc32.h"
#include "jpeg/entry_points.h"
#include "jpeg/parse.h"
#include "jpeg/transcode.h"

namespace {

using fastssl::jpeg::Layout;
using fastssl::jpeg::Status;

// transcode(data: bytes, interval: int) -> (status, the new file or nothing)
PyObject* transcode(PyObject*, PyObject* arguments) {
  const char* data;
  Py_ssize_t size;
  int interval;
  if (!PyArg_ParseTuple(arguments, "y#i", &data, &size, &interval)) return nullptr;
  std::vector<uint8_t> out;
  Status status;
  // The caller's arguments keep the bytes alive and nobody may write to them.
  Py_BEGIN_ALLOW_THREADS;
  status = fastssl::jpeg::transcode(reinterpret_cast<const uint8_t*>(data),
                                    static_cast<size_t>(size), interval, &out);
  Py_END_ALLOW_THREADS;
  // From a null pointer None would be built.
  const char* bytes = out.empty() ? "" : reinterpret_cast<const char*>(out.data());
  return Py_BuildValue("iy#", static_cast<int>(status), bytes, static_cast<Py_ssize_t>(out.size()));
}

// find_entry_points(data: bytes, bytes_apart: int, most: int) -> (status, the record or nothing)
PyObject* find_entry_points(PyObject*, PyObject* arguments) {
  const char* text;
  Py_ssize_t length;
  int bytes_apart;
  unsigned int most;
  if (!PyArg_ParseTuple(arguments, "y#iI", &text, &length, &bytes_apart, &most)) return nullptr;
  const auto* data = reinterpret_cast<const uint8_t*>(text);
  const auto size = static_cast<size_t>(length);
  std::vector<uint8_t> out;
  Status status;
  Py_BEGIN_ALLOW_THREADS;
  static thread_local fastssl::jpeg::EntryFinder finder;
  status = finder.find(data, size, fastssl::jpeg::crc32(data, size), bytes_apart, most, &out);
  Py_END_ALLOW_THREADS;
  const char* bytes = out.empty() ? "" : reinterpret_cast<const char*>(out.data());
  return Py_BuildValue("iy#", static_cast<int>(status), bytes, static_cast<Py_ssize_t>(out.size()));
}

// check_entry_points(data: bytes, record: bytes) -> status
PyObject* check_entry_points(PyObject*, PyObject* arguments) {
  const char *text, *said;
  Py_ssize_t length, record_length;
  if (!PyArg_ParseTuple(arguments, "y#y#", &text, &length, &said, &record_length)) return nullptr;
  const auto* data = reinterpret_cast<const uint8_t*>(text);
  const auto size = static_cast<size_t>(length);
  Status status;
  Py_BEGIN_ALLOW_THREADS;
  static thread_local fastssl::jpeg::EntryFinder finder;
  status = finder.check(data, size,
                        {reinterpret_cast<const uint8_t*>(said), static_cast<size_t>(record_length),
                         fastssl::jpeg::crc32(data, size)});
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(static_cast<long>(status));
}

PyObject* to_list(const std::vector<int64_t>& numbers) {
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(numbers.size()));
  if (list == nullptr) return nullptr;
  for (size_t i = 0; i < numbers.size(); ++i) {
    PyObject* number = PyLong_FromLongLong(numbers[i]);
    if (number == nullptr || PyList_SetItem(list, static_cast<Py_ssize_t>(i), number) != 0) {
      Py_DECREF(list);
      return nullptr;
    }
  }
  return list;
}

// parse(data: bytes) -> (status, fields of the layout, status of find_segments, segments)
PyObject* parse(PyObject*, PyObject* arguments) {
  const char* text;
  Py_ssize_t length;
  if (!PyArg_ParseTuple(arguments, "y#", &text, &length)) return nullptr;
  const auto* data = reinterpret_cast<const uint8_t*>(text);
  const auto size = static_cast<size_t>(length);
  Layout layout;
  std::vector<uint32_t> offsets;
  const Status status = fastssl::jpeg::parse(data, size, &layout);
  Status followed = status;
  if (status == Status::ok) {
    followed = fastssl::jpeg::find_segments(data, size, layout, &offsets);
  }
  // In the order of fastssl.shards.making.tiled.JpegLayout.
  PyObject* fields = to_list(
      {layout.width, layout.height, layout.num_components, layout.mcu_width, layout.mcu_height,
       layout.mcus_per_row, layout.mcu_rows, layout.blocks_per_mcu, layout.precision,
       layout.restart_interval, layout.orientation, layout.frame, layout.num_scans,
       static_cast<int64_t>(layout.entropy_begin), static_cast<int64_t>(layout.entropy_end)});
  PyObject* segments = to_list({offsets.begin(), offsets.end()});
  if (fields == nullptr || segments == nullptr) {
    Py_XDECREF(fields);
    Py_XDECREF(segments);
    return nullptr;
  }
  return Py_BuildValue("iNiN", static_cast<int>(status), fields, static_cast<int>(followed),
                       segments);
}

PyMethodDef methods[] = {
    {"transcode", transcode, METH_VARARGS, nullptr},
    {"parse", parse, METH_VARARGS, nullptr},
    {"check_entry_points", check_entry_points, METH_VARARGS, nullptr},
    {"find_entry_points", find_entry_points, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_C_jpeg", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C_jpeg(void) {
  return PyModule_Create(&module);
}
