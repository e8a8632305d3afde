// Stands in for NVRTC: "machine code" is the source text itself, which the driver's
// stand-in compiles with g++. See `tests/devices.rs`.

#include <stdlib.h>
#include <string.h>

#include <string>

struct Program {
  std::string source, log, code;
};

extern "C" {
int nvrtcVersion(int* major, int* minor) {
  const char* wanted = getenv("STAND_IN_NVRTC");
  *major = wanted ? atoi(wanted) : 13;
  *minor = 5;
  return 0;
}
int nvrtcGetNumSupportedArchs(int* count) {
  *count = 2;
  return 0;
}
int nvrtcGetSupportedArchs(int* architectures) {
  architectures[0] = 75;
  architectures[1] = 90;
  return 0;
}
const char* nvrtcGetErrorString(int code) {
  return code == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INVALID_INPUT";
}
int nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers,
                       const char* const*, const char* const*) {
  if (!source || !name || headers) return 3;
  *program = new Program{source, "", ""};
  return 0;
}
int nvrtcDestroyProgram(Program** program) {
  delete *program;
  *program = nullptr;
  return 0;
}
int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  if (getenv("STAND_IN_BROKEN")) {
    program->log = "pass.cu(7): error: identifier \"x\" is undefined\n1 error detected\n";
    return 6;
  }
  for (int i = 0; i < count; ++i) program->code += std::string("// ") + options[i] + "\n";
  program->code += program->source;
  return 0;
}
int nvrtcGetProgramLogSize(Program* program, size_t* size) {
  *size = program->log.size() + 1;
  return 0;
}
int nvrtcGetProgramLog(Program* program, char* text) {
  memcpy(text, program->log.c_str(), program->log.size() + 1);
  return 0;
}
int nvrtcGetCUBINSize(Program* program, size_t* size) {
  *size = program->code.size() + 1;
  return 0;
}
int nvrtcGetCUBIN(Program* program, char* text) {
  memcpy(text, program->code.c_str(), program->code.size() + 1);
  return 0;
}
int nvrtcGetPTXSize(Program* program, size_t* size) { return nvrtcGetCUBINSize(program, size); }
int nvrtcGetPTX(Program* program, char* text) { return nvrtcGetCUBIN(program, text); }
}
