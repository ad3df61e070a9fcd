/* A CUDA driver that says what the test told it to, in environment variables, and can do nothing else. */
#include <stdlib.h>
#include <string.h>

static int told(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

int cuInit(unsigned flags) {
  (void)flags;
  return told("FAKE_CUDA_INIT", 0);
}

int cuDriverGetVersion(int *version) {
  *version = told("FAKE_CUDA_VERSION", 13000);
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = told("FAKE_CUDA_COUNT", 1);
  return 0;
}

int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return 0;
}

int cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  strncpy(name, "NVIDIA Imaginary 9000", size);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 9 : 0;
  return 0;
}
