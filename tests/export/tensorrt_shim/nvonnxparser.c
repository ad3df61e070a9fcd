#define LIBRARY "libtensorrt_onnxparser_rtx.so.1.7.1"
#include "forward.h"

int getNvOnnxParserVersion(void) { return ((int (*)(void))entry("getNvOnnxParserVersion"))(); }

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
  (void)version;
  return ((void *(*)(void *, void *, int))entry("createNvOnnxParser_INTERNAL"))(network, logger, getNvOnnxParserVersion());
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) {
  (void)refitter, (void)logger, (void)version;
  return NULL;
}
