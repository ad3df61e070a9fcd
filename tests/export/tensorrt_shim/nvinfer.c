#define LIBRARY "libtensorrt_rtx.so.1.7.1"
#include "forward.h"

int getInferLibVersion(void) { return ((int (*)(void))entry("getInferLibVersion"))(); }

void *createInferBuilder_INTERNAL(void *logger, int version) {
  (void)version;
  return ((void *(*)(void *, int))entry("createInferBuilder_INTERNAL"))(logger, getInferLibVersion());
}

/* There is no GPU: an engine could be opened by no runtime, and a refitter needs an engine. */
void *createInferRuntime_INTERNAL(void *logger, int version) {
  (void)logger, (void)version;
  return NULL;
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) {
  (void)engine, (void)logger, (void)version;
  return NULL;
}

void *getBuilderPluginRegistry(int capability) {
  return ((void *(*)(int))entry("getBuilderPluginRegistry"))(capability);
}

void *getPluginRegistry(void) { return ((void *(*)(void))entry("getPluginRegistry"))(); }
