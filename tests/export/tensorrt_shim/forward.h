/* A library of TensorRT's name whose C entry points call those of TensorRT-RTX's, which carry other names and check
   another version number. Each source that includes this defines LIBRARY first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void *entry(const char *name) {
  static void *library;
  if (!library && !(library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL))) {
    fprintf(stderr, "shim: %s\n", dlerror());
    abort();
  }
  void *found = dlsym(library, name);
  if (!found) {
    fprintf(stderr, "shim: %s has no %s\n", LIBRARY, name);
    abort();
  }
  return found;
}
